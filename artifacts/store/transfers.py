"""Large files to and from a bucket, in parts, going on where an earlier try was broken off.

Knows S3's multipart uploads and ranges (https://docs.aws.amazon.com/AmazonS3/latest/userguide/
mpuoverview.html), no artifact.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from artifacts.store.s3 import EXISTS, GONE, THREADS, Bucket, client_error, error_code
from engineworks.errors import StoreError

log = logging.getLogger("engineworks.s3")

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

#: Files up to this size go in one request. Larger ones in parts of at least this size.
PART_BYTES = 16 * 2**20
#: S3's own limit on the number of parts.
MOST_PARTS = 10_000


def part_bytes(size: int) -> int:
    """Size of a part: depends on the file's size alone, so that any process can go on."""
    least = math.ceil(size / MOST_PARTS)
    return max(PART_BYTES, math.ceil(least / 2**20) * 2**20)


def upload(bucket: Bucket, path: Path, key: str, progress: Progress | None = None) -> bool:
    """Write a file as a new object, in parts when it is large.

    An upload that was broken off is gone on with: the parts that have arrived whole stay.

    Returns:
        False if the object was there already.
    """
    size = path.stat().st_size
    if size <= PART_BYTES:
        fresh = bucket.write(key, path.read_bytes(), only_new=True)
        if progress:
            progress(size, size)
        return fresh
    return _Upload(bucket, path, key, size, progress).run()


def download(
    bucket: Bucket, key: str, size: int, target: Path, progress: Progress | None = None
) -> bool:
    """Read an object into a file, in parts, going on where an earlier try was broken off.

    Args:
        bucket: Where it is.
        key: Its name under the address.
        size: Bytes that it must have.
        target: The file; beside it lies `<name>.parts`, the list of parts that are there.
        progress: Called after every part.

    Returns:
        False if there is no such object of this size.
    """
    if bucket.size(key) != size:
        return False
    done_path = target.with_name(target.name + ".parts")
    part = part_bytes(size)
    count = max(1, math.ceil(size / part))
    done: set[int] = set()
    if target.is_file() and target.stat().st_size == size and done_path.is_file():
        numbers = done_path.read_text(encoding="ascii").split()
        done = {int(word) for word in numbers if word.isdigit() and int(word) < count}
    else:
        done_path.unlink(missing_ok=True)
        with target.open("wb") as fresh:
            fresh.truncate(size)
    lock = threading.Lock()
    with target.open("r+b") as stream, done_path.open("a", encoding="ascii") as record:

        def fetch(index: int) -> None:
            start = index * part
            data = bucket.read_range(key, start, min(size, start + part))
            with lock:
                stream.seek(start)
                stream.write(data)
                stream.flush()
                record.write(f"{index}\n")
                record.flush()
                done.add(index)
                if progress:
                    progress(min(size, len(done) * part), size)

        missing = [index for index in range(count) if index not in done] if size else []
        _all(fetch, missing)
    return True


class _Upload:
    """One file going up in parts."""

    def __init__(
        self, bucket: Bucket, path: Path, key: str, size: int, progress: Progress | None
    ) -> None:
        self._bucket, self._path, self._size, self._progress = bucket, path, size, progress
        self._place = {"Bucket": bucket.address.bucket, "Key": bucket.full_key(key)}
        self._key = key
        self._client = bucket.client
        self._part = part_bytes(size)
        self._lock = threading.Lock()
        self._tags: dict[int, str] = {}

    def run(self) -> bool:
        if self._bucket.size(self._key) == self._size:
            return False
        try:
            upload_id = self._begin()
            place = {**self._place, "UploadId": upload_id}
            count = math.ceil(self._size / self._part)
            missing = [n for n in range(1, count + 1) if n not in self._tags]
            _all(lambda number: self._send(place, number), missing)
            parts = [{"PartNumber": n, "ETag": self._tags[n]} for n in sorted(self._tags)]
            self._bucket.patiently(
                lambda: self._client.complete_multipart_upload(
                    **place, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
            )
        except client_error() as error:
            # Another process has completed the same upload, or one of its own.
            if error_code(error) in GONE | EXISTS and self._bucket.size(self._key) == self._size:
                if error_code(error) in EXISTS:
                    with contextlib.suppress(client_error()):
                        self._client.abort_multipart_upload(**place)
                return False
            raise StoreError(
                f"{self._bucket.address}/{self._key}: the upload was refused ({error_code(error)})",
                hint="run again: the parts that have arrived are kept",
            ) from error
        return True

    def _begin(self) -> str:
        """Id of an open upload of this object, with its whole parts; else of a new one."""
        answer = self._bucket.patiently(
            lambda: self._client.list_multipart_uploads(
                Bucket=self._place["Bucket"], Prefix=self._place["Key"]
            )
        )
        for upload in answer.get("Uploads", ()):
            if upload["Key"] == self._place["Key"]:
                self._keep(upload["UploadId"])
                return str(upload["UploadId"])
        begun = self._bucket.patiently(lambda: self._client.create_multipart_upload(**self._place))
        return str(begun["UploadId"])

    def _keep(self, upload_id: str) -> None:
        pages = self._client.get_paginator("list_parts").paginate(**self._place, UploadId=upload_id)
        parts = self._bucket.patiently(lambda: [p for page in pages for p in page.get("Parts", ())])
        for part in parts:
            number = int(part["PartNumber"])
            # The tag of a part is the MD5 of its bytes, unless the server encrypts: then it is
            # sent again.
            data = self._read(number)
            own = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if len(data) == part["Size"] and part["ETag"].strip('"') == own:
                self._tags[number] = part["ETag"]
        log.info("going on with %s: %d parts are there", self._key, len(self._tags))

    def _read(self, number: int) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek((number - 1) * self._part)
            return stream.read(self._part)

    def _send(self, place: dict[str, str], number: int) -> None:
        data = self._read(number)
        answer = self._bucket.patiently(
            lambda: self._client.upload_part(**place, PartNumber=number, Body=data)
        )
        with self._lock:
            self._tags[number] = answer["ETag"]
            if self._progress:
                self._progress(min(self._size, len(self._tags) * self._part), self._size)


def _all(work: Callable[[int], None], items: list[int]) -> None:
    """Do all items in threads; the first error stops what has not begun."""
    pool = ThreadPoolExecutor(min(THREADS, max(1, len(items))))
    try:
        for _ in pool.map(work, items):
            pass
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
