"""Buckets of S3, or of what speaks like it. Credentials, region and proxies are found in botocore's usual ways.

Reading is plain HTTP at signed addresses, so that a bucket and a web server fail, are interrupted and are limited in
one way; writing is botocore's own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import botocore.config
import botocore.session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnection

from enticed.limits import (
    DEPOT_PART_SIZE_BYTES,
    DEPOT_PARTS_AT_ONCE_COUNT,
    DEPOT_PARTS_MAX_COUNT,
    ORIGIN_ADDRESS_LIFETIME_S,
    ORIGIN_CONNECT_TIMEOUT_S,
    ORIGIN_SILENT_S,
)
from enticed.origin.errors import ObjectAbsentError, OriginFaultError
from enticed.origin.port import Progressed
from enticed.origin.web import WebOrigin
from protocol.errors import DeniedError, EnticedError, ExhaustedError, LocalError

_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401"}
_ABSENT = {"NoSuchKey", "404"}
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, NoAuthTokenError)
# It would log what is signed, session tokens among it.
logging.getLogger("botocore").setLevel(logging.INFO)

_HOW = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this host a role"


def s3_client(endpoint: str | None) -> Any:
    """A client, thread-safe. endpoint: of a service that is not Amazon's; None: as the environment says.

    `LocalError` where what the environment says cannot be used.
    """
    settings = botocore.config.Config(
        connect_timeout=ORIGIN_CONNECT_TIMEOUT_S,
        read_timeout=ORIGIN_SILENT_S,
        signature_version="s3v4",
        retries={"mode": "standard"},
        # What is not Amazon's often knows no other: bytes are verified by whoever reads them anyway.
        request_checksum_calculation="when_required",
        # A service with an endpoint of its own seldom has a host's name for each bucket.
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        session = botocore.session.get_session()
        region = session.get_config_variable("region") or "us-east-1"
        return session.create_client("s3", region, endpoint_url=endpoint, config=settings)
    except (BotoCoreError, ValueError) as error:
        raise LocalError(f"S3 cannot be used as the environment has it: {error}") from error


class SignedAddresses:
    """Addresses of a bucket's objects, each signed for a while; made without asking anybody."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def __call__(self, name: str) -> str:
        wanted = {"Bucket": self._bucket, "Key": self._prefix + name}
        try:
            return str(self._client.generate_presigned_url("get_object", wanted, ORIGIN_ADDRESS_LIFETIME_S))
        except _NO_CREDENTIALS as error:
            raise ObjectAbsentError(f"there are no credentials for S3: {_HOW}") from error
        except (BotoCoreError, ClientError) as error:  # the latter: whoever is to lend a role has refused
            raise OriginFaultError(f"no address in bucket {self._bucket} can be signed: {error}") from error


def s3_origin(label: str, bucket: str, prefix: str, endpoint: str | None) -> WebOrigin:
    """prefix: empty, or with its slash at the end."""
    return WebOrigin(label, SignedAddresses(s3_client(endpoint), bucket, prefix))


class S3Depot:
    """`Depot` in a bucket. There are no holes in it: zeros are sent."""

    def __init__(self, label: str, bucket: str, prefix: str, endpoint: str | None) -> None:
        self.label = label
        self._client = s3_client(endpoint)
        self._bucket = bucket
        self._prefix = prefix

    def size_bytes(self, name: str) -> int | None:
        try:
            return int(self._client.head_object(**self._object(name))["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise self._told(error) from error
        except BotoCoreError as error:
            raise self._told(error) from error

    def put(self, name: str, data: bytes) -> None:
        with self._telling():
            self._client.put_object(**self._object(name), Body=data)

    def put_file(self, name: str, fd: int, size_bytes: int, progressed: Progressed) -> None:
        """In parts; what was begun is taken back where it cannot be finished."""
        with self._telling():
            upload = self._client.create_multipart_upload(**self._object(name))["UploadId"]
            try:
                parts = self._put_parts(name, upload, fd, size_bytes, progressed)
                self._client.complete_multipart_upload(
                    **self._object(name), UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                self._client.abort_multipart_upload(**self._object(name), UploadId=upload)
                raise

    def close(self) -> None:
        self._client.close()

    def _put_parts(
        self, name: str, upload: str, fd: int, size_bytes: int, progressed: Progressed
    ) -> list[dict[str, Any]]:
        part_bytes = max(DEPOT_PART_SIZE_BYTES, -(-size_bytes // DEPOT_PARTS_MAX_COUNT))

        def put(offset_bytes: int) -> tuple[int, dict[str, Any]]:
            data = _read_exactly(fd, min(part_bytes, size_bytes - offset_bytes), offset_bytes)
            number = offset_bytes // part_bytes + 1
            answer = self._client.upload_part(**self._object(name), UploadId=upload, PartNumber=number, Body=data)
            return len(data), {"PartNumber": number, "ETag": answer["ETag"]}

        parts: list[dict[str, Any]] = []
        done_bytes = 0
        at_once = max(1, DEPOT_PARTS_AT_ONCE_COUNT * DEPOT_PART_SIZE_BYTES // part_bytes)
        with ThreadPoolExecutor(at_once, "depot") as pool:
            running: set[Future[tuple[int, dict[str, Any]]]] = set()
            offsets = iter(range(0, size_bytes, part_bytes))
            try:
                for offset in offsets:
                    running.add(pool.submit(put, offset))
                    if len(running) < at_once:
                        continue
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        sent_bytes, part = future.result()
                        parts.append(part)
                        done_bytes += sent_bytes
                        progressed(done_bytes, size_bytes)
                parts += [future.result()[1] for future in running]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        progressed(size_bytes, size_bytes)
        return sorted(parts, key=lambda part: part["PartNumber"])

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> EnticedError:
        """What botocore says, by what helps."""
        if isinstance(error, _NO_CREDENTIALS):
            return DeniedError(f"there are no credentials for S3: {_HOW}")
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            if code in _DENIED:
                return DeniedError(f"{self.label} may not be written with these credentials ({code})")
            if code == "NoSuchBucket":
                return LocalError(f"{self.label}: there is no such bucket: make it first")
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            kind = ExhaustedError if status >= 500 or code == "SlowDown" else LocalError
            return kind(f"{self.label}: {code}: {error.response['Error'].get('Message', '')}")
        if isinstance(error, HTTPClientError | NoConnection):
            # Their texts hold whole addresses.
            return ExhaustedError(f"{self.label} cannot be reached ({type(error).__name__})")
        return LocalError(f"{self.label}: {error}")


def _read_exactly(fd: int, size_bytes: int, offset_bytes: int) -> bytearray:
    data = bytearray(size_bytes)
    filled = 0
    while filled < size_bytes:
        try:
            count = os.preadv(fd, [memoryview(data)[filled:]], offset_bytes + filled)
        except OSError as error:
            raise LocalError(f"the image cannot be read: {error.strerror}") from error
        if not count:
            raise LocalError("the image shrank while it was read")
        filled += count
    return data
