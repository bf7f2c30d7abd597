"""One S3 bucket, used with patience: conditional writes, resumed transfers, the server's clock.

Knows boto3 and S3's rules (https://docs.aws.amazon.com/AmazonS3/latest/API/), no artifact.
Credentials, region and endpoint come by the usual AWS chain (environment, ~/.aws, instance role;
AWS_ENDPOINT_URL_S3 for a server of one's own).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from engineworks.errors import MissingDependency, StoreError

log = logging.getLogger("engineworks.s3")

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

#: Files up to this size go in one request. Larger ones in parts of at least this size.
PART_BYTES = 16 * 2**20
#: S3's own limit on the number of parts.
MOST_PARTS = 10_000
#: Requests at the same time.
THREADS = 6

#: Seconds that an unreachable server is waited for; ENGINEWORKS_STORE_PATIENCE_S sets another.
PATIENCE_S = 120.0

#: Answers that another try may mend, beside all of 500 and above.
PASSING = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "OperationAborted"}
GONE = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
EXISTS = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a store is: `s3://bucket/prefix`."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def parse(text: str) -> Address:
    """Read `s3://bucket/prefix`.

    Raises:
        StoreError: It is something else, or carries a password.
    """
    parts = urlsplit(text)
    if parts.username or parts.password or "@" in parts.netloc:
        raise StoreError(
            "ENGINEWORKS_STORE carries a user or password",
            hint="write s3://bucket/prefix and give credentials as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials",
        )
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise StoreError(
            f"ENGINEWORKS_STORE is {text!r}, which is no s3://bucket/prefix",
            hint="write for example s3://models/engineworks, or leave it out for the local store",
        )
    return Address(bucket=parts.netloc, prefix=parts.path.strip("/"))


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object's bytes and how old it is, by the server's own clock."""

    data: bytes
    age_s: float


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One object of a listing."""

    key: str
    size_bytes: int
    age_s: float


class Bucket:
    """Objects under an address. Every call waits for a server that is gone for a while."""

    def __init__(self, address: Address, *, patience_s: float | None = None) -> None:
        self.address = address
        given = os.environ.get("ENGINEWORKS_STORE_PATIENCE_S")
        self.patience_s = patience_s if patience_s is not None else float(given or PATIENCE_S)
        self._client = _client()

    def _key(self, key: str) -> str:
        return f"{self.address.prefix}/{key}".lstrip("/")

    def size(self, key: str) -> int | None:
        """Size of an object in bytes, or None when there is none."""

        def ask() -> int | None:
            try:
                answer = self._client.head_object(Bucket=self.address.bucket, Key=self._key(key))
            except _client_error() as error:
                if _code(error) in GONE:
                    return None
                raise
            return int(answer["ContentLength"])

        return self._patiently(ask)

    def write(self, key: str, data: bytes, *, only_new: bool) -> bool:
        """Write a small object in one request.

        Args:
            key: Its name under the address.
            data: Its bytes.
            only_new: Leave one that is there already as it is (If-None-Match).

        Returns:
            False if one was there already.
        """
        condition = {"IfNoneMatch": "*"} if only_new else {}

        def ask() -> bool:
            try:
                self._client.put_object(
                    Bucket=self.address.bucket, Key=self._key(key), Body=data, **condition
                )
            except _client_error() as error:
                if only_new and _code(error) in EXISTS:
                    return False
                raise
            return True

        return self._patiently(ask)

    def read(self, key: str) -> Found | None:
        """A small object, or None when there is none."""

        def ask() -> Found | None:
            try:
                answer = self._client.get_object(Bucket=self.address.bucket, Key=self._key(key))
            except _client_error() as error:
                if _code(error) in GONE:
                    return None
                raise
            return Found(data=answer["Body"].read(), age_s=_age_s(answer, answer["LastModified"]))

        return self._patiently(ask)

    def list(self, prefix: str) -> list[Listed]:
        """All objects whose name begins with `prefix`."""

        def ask() -> list[Listed]:
            found = []
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=self._key(prefix)
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    found.append(
                        Listed(
                            key=item["Key"][len(self._key("")) :],
                            size_bytes=int(item["Size"]),
                            age_s=_age_s(page, item["LastModified"]),
                        )
                    )
            return found

        return self._patiently(ask)

    def set_aside(self, key: str) -> str:
        """Rename a damaged object, so that whoever holds the right bytes writes it anew."""
        aside = f"damaged/{key}-{int(time.time())}"
        source = {"Bucket": self.address.bucket, "Key": self._key(key)}
        self._patiently(
            lambda: self._client.copy_object(
                Bucket=self.address.bucket, Key=self._key(aside), CopySource=source
            )
        )
        self.delete(key)
        return f"{self.address}/{aside}"

    def delete(self, key: str) -> None:
        """Remove an object; none is there afterwards."""
        self._patiently(
            lambda: self._client.delete_object(Bucket=self.address.bucket, Key=self._key(key))
        )

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> bool:
        """Write a file as a new object, in parts when it is large.

        An upload that was broken off is gone on with: the parts that have arrived whole stay.

        Returns:
            False if the object was there already.
        """
        size = path.stat().st_size
        if size <= PART_BYTES:
            fresh = self.write(key, path.read_bytes(), only_new=True)
            if progress:
                progress(size, size)
            return fresh
        return _Upload(self, path, key, size, progress).run()

    def download(self, key: str, size: int, target: Path, progress: Progress | None = None) -> bool:
        """Read an object into a file, in parts, going on where an earlier try was broken off.

        Args:
            key: Its name under the address.
            size: Bytes that it must have.
            target: The file; beside it lies `<name>.parts`, the list of parts that are there.
            progress: Called after every part.

        Returns:
            False if there is no such object of this size.
        """
        if self.size(key) != size:
            return False
        done_path = target.with_name(target.name + ".parts")
        part = part_bytes(size)
        count = max(1, math.ceil(size / part))
        done: set[int] = set()
        if target.is_file() and target.stat().st_size == size and done_path.is_file():
            words = done_path.read_text(encoding="ascii").split()
            done = {int(word) for word in words if word.isdigit() and int(word) < count}
        else:
            done_path.unlink(missing_ok=True)
            with target.open("wb") as fresh:
                fresh.truncate(size)
        lock = threading.Lock()
        with target.open("r+b") as stream, done_path.open("a", encoding="ascii") as record:

            def fetch(index: int) -> None:
                start = index * part
                data = self._range(key, start, min(size, start + part))
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

    def _range(self, key: str, start: int, stop: int) -> bytes:
        def ask() -> bytes:
            answer = self._client.get_object(
                Bucket=self.address.bucket, Key=self._key(key), Range=f"bytes={start}-{stop - 1}"
            )
            data: bytes = answer["Body"].read()
            if len(data) != stop - start:
                raise ConnectionError(f"{len(data)} bytes came, {stop - start} were asked for")
            return data

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Try until it works, is refused, or the patience is spent."""
        from botocore import exceptions as boto

        began, pause_s, words = time.monotonic(), 0.25, ""
        while True:
            try:
                return ask()
            except _client_error() as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status < 500 and _code(error) not in PASSING:
                    raise self._refusal(error) from error
                words = f"{_code(error)} ({status})"
            except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
                raise StoreError(
                    f"{self.address}: there are no credentials for it",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fill "
                    "~/.aws/credentials (AWS_PROFILE chooses a section)",
                ) from error
            except (
                boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, OSError
            ) as error:  # fmt: skip
                words = type(error).__name__
            except boto.BotoCoreError as error:
                raise StoreError(
                    f"{self.address} cannot be used: {error}",
                    hint="check AWS_REGION, AWS_ENDPOINT_URL_S3 and ~/.aws/config",
                ) from error
            waited_s = time.monotonic() - began
            if waited_s + pause_s > self.patience_s:
                raise StoreError(
                    f"{self.address} did not answer within {self.patience_s:.0f} s ({words})",
                    hint="check the server, the network and AWS_ENDPOINT_URL_S3, then run again: "
                    "what has arrived is kept",
                )
            if pause_s >= 1:
                log.warning("%s: %s, trying again in %.0f s", self.address, words, pause_s)
            time.sleep(pause_s * random.uniform(0.7, 1.0))  # noqa: S311 - spreads retries
            pause_s = min(pause_s * 2, 10.0)

    def _refusal(self, error: Any) -> Exception:
        code = _code(error)
        if code in GONE | EXISTS:
            return error  # type: ignore[no-any-return]  # the caller knows what it means
        if code == "NoSuchBucket":
            return StoreError(
                f"{self.address}: there is no bucket {self.address.bucket!r}",
                hint="create it, or correct ENGINEWORKS_STORE",
            )
        if code == "RequestTimeTooSkewed":
            return StoreError(
                f"{self.address}: this machine's clock differs too much from the server's",
                hint="set the clock (timedatectl set-ntp true), then run again",
            )
        return StoreError(
            f"{self.address} refused: {code} ({error.response['Error'].get('Message', '')[:200]})",
            hint="check the credentials and what they may do: list, get, put and delete objects",
        )


def part_bytes(size: int) -> int:
    """Size of a part: depends on the file's size alone, so that any process can go on."""
    least = math.ceil(size / MOST_PARTS)
    return max(PART_BYTES, math.ceil(least / 2**20) * 2**20)


class _Upload:
    """One file going up in parts."""

    def __init__(
        self, bucket: Bucket, path: Path, key: str, size: int, progress: Progress | None
    ) -> None:
        self._bucket, self._path, self._size, self._progress = bucket, path, size, progress
        self._place = {"Bucket": bucket.address.bucket, "Key": bucket._key(key)}
        self._key = key
        self._client = bucket._client
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
            self._bucket._patiently(
                lambda: self._client.complete_multipart_upload(
                    **place, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
            )
        except _client_error() as error:
            # Another process has completed the same upload, or one of its own.
            if _code(error) in GONE | EXISTS and self._bucket.size(self._key) == self._size:
                if _code(error) in EXISTS:
                    with contextlib.suppress(_client_error()):
                        self._client.abort_multipart_upload(**place)
                return False
            raise StoreError(
                f"{self._bucket.address}/{self._key}: the upload was refused ({_code(error)})",
                hint="run again: the parts that have arrived are kept",
            ) from error
        return True

    def _begin(self) -> str:
        """Id of an open upload of this object, with its whole parts; else of a new one."""
        answer = self._bucket._patiently(
            lambda: self._client.list_multipart_uploads(
                Bucket=self._place["Bucket"], Prefix=self._place["Key"]
            )
        )
        for upload in answer.get("Uploads", ()):
            if upload["Key"] == self._place["Key"]:
                self._keep(upload["UploadId"])
                return str(upload["UploadId"])
        begun = self._bucket._patiently(lambda: self._client.create_multipart_upload(**self._place))
        return str(begun["UploadId"])

    def _keep(self, upload_id: str) -> None:
        pages = self._client.get_paginator("list_parts").paginate(**self._place, UploadId=upload_id)
        parts = self._bucket._patiently(
            lambda: [p for page in pages for p in page.get("Parts", ())]
        )
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
        answer = self._bucket._patiently(
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


def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingDependency(
            "the store is on S3, and the package boto3 is not installed here",
            hint="pip install 'engineworks[fleet]'",
        ) from error
    addressing = os.environ.get("ENGINEWORKS_S3_ADDRESSING", "auto")
    if addressing not in ("auto", "path", "virtual"):
        raise StoreError(
            f"ENGINEWORKS_S3_ADDRESSING is {addressing!r}",
            hint="use auto, path (servers without a domain per bucket) or virtual",
        )
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        # `_patiently` tries again, with a limit in seconds; two loops would multiply.
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=THREADS * 2,
        s3={"addressing_style": addressing},
    )
    session = boto3.Session()
    region = session.region_name or "us-east-1"
    return session.client("s3", config=config, region_name=region)


def _client_error() -> Any:
    from botocore.exceptions import ClientError

    return ClientError


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _age_s(answer: Any, modified: datetime) -> float:
    """Age of an object: the answer's Date header minus the object's own date.

    Both are the server's, so the clocks of other machines do not matter.
    """
    header = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(header) if header else datetime.now(modified.tzinfo)
    return max(0.0, (now - modified).total_seconds())


def spread(work: Callable[[T], Any], items: Iterator[T] | list[T]) -> list[Any]:
    """Results of many small requests, several at a time, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))
