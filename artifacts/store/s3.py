"""One S3 bucket, used with patience: conditional writes, small objects, the server's clock.

Knows boto3 and S3's rules (https://docs.aws.amazon.com/AmazonS3/latest/API/), no artifact; large
files are the business of `transfers`.
Credentials, region and endpoint come by the usual AWS chain (environment, ~/.aws, instance role;
AWS_ENDPOINT_URL_S3 for a server of one's own).
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from engineworks import loopback
from engineworks.errors import MissingDependency, StoreError

log = logging.getLogger("engineworks.s3")

T = TypeVar("T")

#: Requests at the same time.
THREADS = 6

#: Seconds that an unreachable server is waited for; ENGINEWORKS_STORE_PATIENCE_S sets another.
PATIENCE_S = 120.0

#: Seconds from which on an object that is used is made young again.
TOUCH_S = 12 * 3600.0

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
class StoredObject:
    """An object's bytes and how old it is, by the server's own clock."""

    data: bytes
    age_s: float
    etag: str
    """The server's name for these very bytes, for `replace` and `delete`."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One object of a listing."""

    key: str
    size_bytes: int
    age_s: float
    etag: str = ""
    """The server's name for its bytes, where a listing gives it."""


class Bucket:
    """Objects under an address. Every call waits for a server that is gone for a while."""

    def __init__(self, address: Address, *, patience_s: float | None = None) -> None:
        self.address = address
        given = os.environ.get("ENGINEWORKS_STORE_PATIENCE_S")
        self.patience_s = patience_s if patience_s is not None else float(given or PATIENCE_S)
        self.client = _client()

    def full_key(self, key: str) -> str:
        """An object's name in the bucket."""
        return f"{self.address.prefix}/{key}".lstrip("/")

    def size(self, key: str) -> int | None:
        """Size of an object in bytes, or None when there is none."""
        listed = self.head(key)
        return None if listed is None else listed.size_bytes

    def head(self, key: str) -> Listed | None:
        """Size and age of an object, or None when there is none."""

        def ask() -> Listed | None:
            try:
                answer = self.client.head_object(Bucket=self.address.bucket, Key=self.full_key(key))
            except client_error() as error:
                if error_code(error) in GONE:
                    return None
                raise
            return Listed(
                key=key,
                size_bytes=int(answer["ContentLength"]),
                age_s=_age_s(answer, answer["LastModified"]),
            )

        return self.patiently(ask)

    def touch(self, key: str) -> None:
        """Make an object young again, as one that is used; one that is gone stays so."""
        place = {"Bucket": self.address.bucket, "Key": self.full_key(key)}

        def ask() -> None:
            try:
                self.client.copy_object(**place, CopySource=place, MetadataDirective="REPLACE")
            except client_error() as error:
                if error_code(error) not in GONE:
                    raise

        self.patiently(ask)

    def write(self, key: str, data: bytes, *, only_new: bool) -> bool:
        """Write a small object in one request.

        Args:
            key: Its name under the address.
            data: Its bytes.
            only_new: Leave one that is there already as it is (If-None-Match).

        Returns:
            False if one was there already.
        """
        return self._put(key, data, {"IfNoneMatch": "*"} if only_new else {})

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Write a small object over the bytes of this `etag` alone (If-Match).

        Returns:
            False if there are others by now, or none.
        """
        return self._put(key, data, {"IfMatch": etag})

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        """Write if the condition holds.

        When the answer to a write that was carried out is lost, the next try is refused: False
        may also mean that one's own bytes are there. `read` tells.
        """

        def ask() -> bool:
            try:
                self.client.put_object(
                    Bucket=self.address.bucket, Key=self.full_key(key), Body=data, **condition
                )
            except client_error() as error:
                if condition and error_code(error) in EXISTS | GONE:
                    return False
                raise
            return True

        return self.patiently(ask)

    def read(self, key: str) -> StoredObject | None:
        """A small object, or None when there is none."""

        def ask() -> StoredObject | None:
            try:
                answer = self.client.get_object(Bucket=self.address.bucket, Key=self.full_key(key))
            except client_error() as error:
                if error_code(error) in GONE:
                    return None
                raise
            return StoredObject(
                data=answer["Body"].read(),
                age_s=_age_s(answer, answer["LastModified"]),
                etag=answer["ETag"],
            )

        return self.patiently(ask)

    def list(self, prefix: str) -> list[Listed]:
        """All objects whose name begins with `prefix`."""

        def ask() -> list[Listed]:
            listed = []
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=self.full_key(prefix)
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    listed.append(
                        Listed(
                            key=item["Key"][len(self.full_key("")) :],
                            size_bytes=int(item["Size"]),
                            age_s=_age_s(page, item["LastModified"]),
                            etag=str(item.get("ETag", "")),
                        )
                    )
            return listed

        return self.patiently(ask)

    def set_aside(self, key: str) -> str:
        """Rename a damaged object, so that whoever holds the right bytes writes it anew."""
        aside = f"damaged/{key}-{int(time.time())}"
        source = {"Bucket": self.address.bucket, "Key": self.full_key(key)}
        self.patiently(
            lambda: self.client.copy_object(
                Bucket=self.address.bucket, Key=self.full_key(aside), CopySource=source
            )
        )
        self.delete(key)
        return f"{self.address}/{aside}"

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Remove an object; with `etag` only if it still has those bytes."""
        condition = {} if etag is None else {"IfMatch": etag}

        def ask() -> None:
            try:
                self.client.delete_object(
                    Bucket=self.address.bucket, Key=self.full_key(key), **condition
                )
            except client_error() as error:
                if not condition or error_code(error) not in EXISTS | GONE:
                    raise

        self.patiently(ask)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` - 1 of an object."""

        def ask() -> bytes:
            answer = self.client.get_object(
                Bucket=self.address.bucket,
                Key=self.full_key(key),
                Range=f"bytes={start}-{stop - 1}",
            )
            data: bytes = answer["Body"].read()
            if len(data) != stop - start:
                raise ConnectionError(f"{len(data)} bytes came, {stop - start} were asked for")
            return data

        return self.patiently(ask)

    def patiently(self, ask: Callable[[], T]) -> T:
        """Try until it works, is refused, or the patience is spent.

        Raises:
            StoreError: The server is away for too long, or refuses.
        """
        from botocore import exceptions as boto

        began, pause_s, trouble = time.monotonic(), 0.25, ""
        while True:
            try:
                return ask()
            except client_error() as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status < 500 and error_code(error) not in PASSING:
                    raise self._refusal(error) from error
                trouble = f"{error_code(error)} ({status})"
            except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
                raise StoreError(
                    f"{self.address}: there are no credentials for it",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fill "
                    "~/.aws/credentials (AWS_PROFILE chooses a section)",
                ) from error
            except (
                boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, OSError
            ) as error:  # fmt: skip
                trouble = type(error).__name__
            except boto.BotoCoreError as error:
                raise StoreError(
                    f"{self.address} cannot be used: {error}",
                    hint="check AWS_REGION, AWS_ENDPOINT_URL_S3 and ~/.aws/config",
                ) from error
            waited_s = time.monotonic() - began
            if waited_s + pause_s > self.patience_s:
                raise StoreError(
                    f"{self.address} did not answer within {self.patience_s:.0f} s ({trouble})",
                    hint="check the server, the network and AWS_ENDPOINT_URL_S3, then run again: "
                    "what has arrived is kept",
                )
            if pause_s >= 1:
                log.warning("%s: %s, trying again in %.0f s", self.address, trouble, pause_s)
            time.sleep(pause_s * random.uniform(0.7, 1.0))  # noqa: S311 - spreads retries
            pause_s = min(pause_s * 2, 10.0)

    def _refusal(self, error: Any) -> Exception:
        code = error_code(error)
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
        # `patiently` tries again, with a limit in seconds; two loops would multiply.
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=THREADS * 2,
        s3={"addressing_style": addressing},
    )
    loopback.spare(os.environ)
    session = boto3.Session()
    region = session.region_name or "us-east-1"
    return session.client("s3", config=config, region_name=region)


def client_error() -> Any:
    """The class of S3's own answers that are errors."""
    from botocore.exceptions import ClientError

    return ClientError


def error_code(error: Any) -> str:
    """S3's word for an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _age_s(answer: Any, modified: datetime) -> float:
    """Age of an object: the answer's Date header minus the object's own date.

    Both are the server's, so the clocks of other machines do not matter.
    """
    header = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(header) if header else datetime.now(modified.tzinfo)
    return max(0.0, (now - modified).total_seconds())


def in_parallel(work: Callable[[T], Any], items: Iterator[T] | list[T]) -> list[Any]:
    """Results of many small requests, several at a time, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))
