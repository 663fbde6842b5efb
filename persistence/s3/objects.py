"""Objects in one S3 bucket. Every call has a deadline and is repeated after transient failures; errors are typed."""

import asyncio
import functools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.handlers import add_expect_header
from prometheus_client import Counter

from domain.errors import StorageUnavailable
from persistence.config import PersistenceSettings
from persistence.errors import ObjectNotFound, ObjectStoreUnavailable, ObjectTooShort, UploadNotFound
from persistence.outage import Outage
from persistence.s3.layout import PART_BYTES
from persistence.s3.spooled_part import SpooledPart
from persistence.session_values import StoredPart
from telemetry.logs import get_logger

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.literals import BucketLocationConstraintType
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        DeleteTypeDef,
        ListObjectsV2OutputTypeDef,
        ListPartsOutputTypeDef,
    )

log = get_logger(__name__)

T = TypeVar("T")

__all__ = ["PART_BYTES", "Body", "ObjectStore", "open_objects"]

Body = bytes | SpooledPart
"""The content of an object or a part."""

_CHUNK_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 1 << 20
_DELETE_KEYS: Final = 1000
_ATTEMPTS: Final = 4
_FIRST_PAUSE_SECONDS: Final = 0.2
_READS: Final = frozenset(
    {
        "head_bucket",
        "create_bucket",
        "head_object",
        "get_object",
        "list_objects",
        "list_multipart_uploads",
        "list_parts",
    }
)
_NO_METADATA: Final[Mapping[str, str]] = {}
_NOT_FOUND: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_BEYOND_END: Final = frozenset({"416", "InvalidRange"})
_REFUSALS: Final = frozenset({"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
_FAILURES = (ClientError, BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)

_retries = Counter("dalston_s3_retries_total", "Calls to S3 that were repeated", ["operation"])
_failures = Counter("dalston_s3_failures_total", "Calls to S3 that failed after all attempts", ["operation"])


def _code(error: BaseException) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _why(error: BaseException) -> str:
    """The reason of a failure, with the operator's remedy where it is known."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return (
            "there are no credentials for S3: set DALSTON_S3_ACCESS_KEY_ID and DALSTON_S3_SECRET_ACCESS_KEY, or give"
            " the server those of the default chain of AWS (environment, profile or role)"
        )
    if _code(error) in _REFUSALS:
        return (
            f"the object store rejects the credentials, or denies the operation ({_code(error)}): check"
            " DALSTON_S3_ACCESS_KEY_ID, DALSTON_S3_SECRET_ACCESS_KEY, DALSTON_S3_BUCKET and what the identity may do"
        )
    return "the object store does not answer as it should"


def _missing(error: BaseException) -> Exception | None:
    """What the store does not have, if that is its answer."""
    code = _code(error)
    if code == "NoSuchUpload":
        return UploadNotFound("the upload is not in the store")
    if code in _NOT_FOUND:
        return ObjectNotFound("the object is not in the store")
    return ObjectTooShort() if code in _BEYOND_END else None


def _may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later."""
    if not isinstance(error, ClientError):
        return not isinstance(error, BotoCoreError) or "Credentials" not in type(error).__name__
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # The last: another conditional write of the key was in progress.
    transient = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict"}
    return status >= 500 or status == 429 or _code(error) in transient


class ObjectStore:
    """Objects by key in one bucket. All methods raise StorageUnavailable while S3 is unavailable."""

    def __init__(
        self, client: "S3Client", downloads: "S3Client", bucket: str, region: str, deadline_seconds: float
    ) -> None:
        self._client = client
        self._downloads = downloads
        self._bucket = bucket
        self._region = region
        self._deadline_seconds = deadline_seconds
        self.check: Callable[[], None] = lambda: None
        """Called before every write; raises if this process may not write, and its error propagates."""
        self.outage = Outage()
        """Since when calls fail because S3 does not answer."""

    def uri(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self._bucket}/{key}"

    async def ensure_bucket(self) -> None:
        """Creates the bucket if it does not exist."""
        try:
            await self._call("head_bucket", lambda: self._client.head_bucket(Bucket=self._bucket))
        except ObjectNotFound:
            await self._call("create_bucket", self._create_bucket)

    async def _create_bucket(self) -> None:
        try:
            if self._region == "us-east-1":  # the one region that S3 does not accept as a constraint
                await self._client.create_bucket(Bucket=self._bucket)
            else:
                constraint: BucketLocationConstraintType = self._region  # type: ignore[assignment]  # any region's name
                await self._client.create_bucket(
                    Bucket=self._bucket, CreateBucketConfiguration={"LocationConstraint": constraint}
                )
        except ClientError as error:
            if _code(error) != "BucketAlreadyOwnedByYou":
                raise

    async def put(self, key: str, body: Body, content_type: str, metadata: Mapping[str, str] = _NO_METADATA) -> None:
        """Writes a whole object, replacing an existing one."""

        async def put() -> None:
            async with _opened(body) as data:
                await self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=data, ContentType=content_type, Metadata=metadata
                )

        await self._call("put_object", put)

    async def put_new(self, key: str, body: bytes, content_type: str) -> bool:
        """Writes a whole object unless there is one of this key; returns whether this call has written it.

        False may also mean that an earlier attempt of this call wrote it and its answer was lost: compare the content.
        """

        async def put() -> bool:
            try:
                await self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=body, ContentType=content_type, IfNoneMatch="*"
                )
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

        return await self._call("put_object", put)

    async def create_upload(self, key: str, content_type: str) -> str:
        """Begins a multipart upload; returns its id.

        A lost response leaves an unknown upload behind: call `abort_uploads` once the object is complete.
        """
        answer = await self._call(
            "create_multipart_upload",
            lambda: self._client.create_multipart_upload(Bucket=self._bucket, Key=key, ContentType=content_type),
        )
        return answer["UploadId"]

    async def upload_part(self, key: str, upload_id: str, number: int, part: Body) -> str:
        """Uploads a part, replacing an earlier one of its number; returns its ETag. All but the last have PART_BYTES.

        Raises:
            UploadNotFound: the upload is complete, was aborted or never existed.
        """

        async def upload() -> str:
            async with _opened(part) as data:
                answer = await self._client.upload_part(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=data
                )
                return answer["ETag"]

        return await self._call("upload_part", upload)

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> None:
        """Completes an object from its parts. Repeating it has no effect, so a lost response does no harm.

        Raises:
            UploadNotFound: neither the upload nor an object of this length exists.
        """
        done: list[CompletedPartTypeDef] = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        try:
            await self._call(
                "complete_multipart_upload",
                lambda: self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": done}
                ),
            )
        except StorageUnavailable:
            if not await self.has(key, sum(part.size for part in parts)):
                raise

    async def put_parts(self, key: str, parts: AsyncIterator[Body], content_type: str) -> None:
        """Writes a large object from parts of PART_BYTES each, the last of any size.

        Reads a part only after the previous one was uploaded. Unfinished uploads of the key are aborted, including this
        one when it fails: a key has one writer.
        """
        await self.abort_uploads(key)
        upload_id = await self.create_upload(key, content_type)
        try:
            done: list[StoredPart] = []
            async for part in parts:
                number = len(done) + 1
                etag = await self.upload_part(key, upload_id, number, part)
                done.append(StoredPart(upload_id, number, etag, len(part)))
            await self.complete_upload(key, upload_id, done)
        except StorageUnavailable:
            await self._abort_quietly(key, upload_id)
            raise

    async def _abort_quietly(self, key: str, upload_id: str) -> None:
        try:
            await self._abort(key, upload_id)
        except StorageUnavailable:
            log.warning("unfinished upload left behind", key=key)

    async def _abort(self, key: str, upload_id: str) -> None:
        async def abort() -> None:
            try:
                await self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            except ClientError as error:
                if _code(error) != "NoSuchUpload":
                    raise

        await self._call("abort_multipart_upload", abort)

    async def abort_uploads(self, key: str) -> None:
        """Aborts every unfinished upload of the key."""
        for upload_id in await self.uploads(key):
            await self._abort(key, upload_id)

    async def uploads(self, key: str) -> list[str]:
        """The ids of the key's unfinished uploads."""
        listed = await self._call(
            "list_multipart_uploads",
            lambda: self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key),
        )
        return [upload["UploadId"] for upload in listed.get("Uploads", []) if upload.get("Key") == key]

    async def parts(self, key: str, upload_id: str) -> list[StoredPart]:
        """The parts of an unfinished upload, in the order of their numbers.

        Raises:
            UploadNotFound: the upload is complete, was aborted or never existed.
        """
        parts: list[StoredPart] = []
        marker = 0
        while True:
            listed = await self._call("list_parts", functools.partial(self._parts_page, key, upload_id, marker))
            page = listed.get("Parts", [])
            parts += [StoredPart(upload_id, each["PartNumber"], each["ETag"], each["Size"]) for each in page]
            if not page or not listed.get("IsTruncated"):
                return parts
            marker = page[-1]["PartNumber"]

    async def _parts_page(self, key: str, upload_id: str, marker: int) -> "ListPartsOutputTypeDef":
        return await self._client.list_parts(Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumberMarker=marker)

    async def uploads_below(self, prefix: str) -> list[str]:
        """The keys with unfinished uploads, of about the first thousand uploads."""
        listed = await self._call(
            "list_multipart_uploads",
            lambda: self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix),
        )
        return sorted({upload["Key"] for upload in listed.get("Uploads", [])})

    async def page(self, prefix: str, after: str) -> list[str]:
        """The next keys with `prefix`, at most a thousand; none after the last."""
        listed = await self._call("list_objects", functools.partial(self._list_page, prefix, after))
        return [each["Key"] for each in listed.get("Contents", [])]

    async def size(self, key: str) -> int:
        """Length of an object in bytes.

        Raises:
            ObjectNotFound: there is no such object.
        """
        return (await self.size_and_version(key))[0]

    async def size_and_version(self, key: str) -> tuple[int, str]:
        """Length of an object in bytes, and its ETag, or an empty string without one.

        Raises:
            ObjectNotFound: there is no such object.
        """
        answer = await self._call("head_object", lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        return answer["ContentLength"], answer.get("ETag", "")

    async def metadata(self, key: str) -> Mapping[str, str]:
        """What `put` was given to describe an object.

        Raises:
            ObjectNotFound: there is no such object.
        """
        answer = await self._call("head_object", lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        return answer.get("Metadata", {})

    async def has(self, key: str, size: int) -> bool:
        """Whether an object of this length exists."""
        try:
            return await self.size(key) == size
        except ObjectNotFound:
            return False

    async def list(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, in order."""
        keys: list[str] = []
        after = ""
        while True:
            listed = await self._call("list_objects", functools.partial(self._list_page, prefix, after))
            page = [each["Key"] for each in listed.get("Contents", [])]
            keys += page
            if not page or not listed.get("IsTruncated"):
                return keys
            after = page[-1]

    async def _list_page(self, prefix: str, after: str) -> "ListObjectsV2OutputTypeDef":
        return await self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, StartAfter=after)

    async def read(self, key: str) -> bytes:
        """A whole object, which must fit into memory.

        Raises:
            ObjectNotFound: there is no such object.
        """

        return (await self.read_described(key))[0]

    async def read_described(self, key: str) -> tuple[bytes, Mapping[str, str]]:
        """A whole object, which must fit into memory, and its metadata.

        Raises:
            ObjectNotFound: there is no such object.
        """

        async def read() -> tuple[bytes, Mapping[str, str]]:
            answer = await self._client.get_object(Bucket=self._bucket, Key=key)
            async with answer["Body"] as body:
                return await body.read(), answer.get("Metadata", {})

        return await self._call("get_object", read)

    async def read_start(self, key: str, size: int) -> bytes:
        """At most the first `size` bytes of an object.

        Raises:
            ObjectNotFound: there is no such object.
        """
        return await self._read_range(key, 0, size)

    async def read_range(self, key: str, begin: int, end: int) -> bytes:
        """The bytes of an object from `begin` to `end`.

        Raises:
            ObjectNotFound: there is no such object.
            StorageUnavailable: also where the object is shorter.
        """
        data = await self._read_range(key, begin, end) if begin < end else b""
        if len(data) != end - begin:
            raise ObjectTooShort
        return data

    async def _read_range(self, key: str, begin: int, end: int) -> bytes:
        async def read() -> bytes:
            answer = await self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={begin}-{end - 1}")
            async with answer["Body"] as body:
                return await body.read()

        return await self._call("get_object", read)

    async def get(self, key: str) -> tuple[int, AsyncGenerator[bytes, None]]:
        """Length of an object and its bytes in chunks, as `get_range` yields them.

        Raises:
            ObjectNotFound: there is no such object.
        """
        size = await self.size(key)
        return size, self.get_range(key, 0, size)

    async def get_range(self, key: str, first: int, size: int) -> AsyncGenerator[bytes, None]:
        """`size` bytes of an object from byte `first` on, in chunks of at most 64 KiB.

        They are fetched a mebibyte at a time, so that no connection to S3 waits for the reader of the chunks.

        Raises:
            ObjectNotFound: there is no such object.
            StorageUnavailable: also where the object is shorter, or is replaced in between.
        """
        end, etag = first + size, None
        while first < end:
            piece, etag = await self._read_piece(key, first, min(first + _PIECE_BYTES, end), etag)
            for at in range(0, len(piece), _CHUNK_BYTES):
                yield piece[at : at + _CHUNK_BYTES]
            first += len(piece)

    async def _read_piece(self, key: str, begin: int, end: int, etag: str | None) -> tuple[bytes, str]:
        """The bytes from `begin` to `end` of the object with this ETag, and the ETag."""
        same: dict[str, Any] = {} if etag is None else {"IfMatch": etag}

        async def read() -> tuple[bytes, str]:
            wanted = f"bytes={begin}-{end - 1}"
            answer = await self._downloads.get_object(Bucket=self._bucket, Key=key, Range=wanted, **same)
            async with answer["Body"] as body:
                return await body.read(), answer["ETag"]

        data, found = await self._call("get_object", read)
        if len(data) != end - begin:
            raise ObjectTooShort
        return data, found

    async def delete(self, key: str) -> None:
        """Deletes an object and its unfinished uploads, if there are any."""
        await self.abort_uploads(key)
        await self._call("delete_object", lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    async def delete_all(self, keys: Sequence[str]) -> None:
        """Deletes objects, a thousand with one call; missing ones are skipped."""
        for at in range(0, len(keys), _DELETE_KEYS):
            await self._call("delete_objects", functools.partial(self._delete_some, keys[at : at + _DELETE_KEYS]))

    async def _delete_some(self, keys: Sequence[str]) -> None:
        wanted: DeleteTypeDef = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await self._client.delete_objects(Bucket=self._bucket, Delete=wanted)
        if answer.get("Errors"):
            raise OSError("some objects were not deleted")

    async def _call(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """One idempotent call, repeated with exponential back-off while its failure may pass."""
        for attempt in range(_ATTEMPTS):
            try:
                # botocore's own timeouts do not end a call that hangs in the middle of an upload.
                if operation not in _READS:
                    self.check()
                async with asyncio.timeout(self._deadline_seconds):
                    answer = await call()
            except _FAILURES as error:
                if (missing := _missing(error)) is not None:
                    self.outage.answered()
                    raise missing from error
                if attempt == _ATTEMPTS - 1 or not _may_pass(error):
                    _failures.labels(operation).inc()
                    log.warning(
                        "object store call failed", operation=operation, error=type(error).__name__, code=_code(error)
                    )
                    self.outage.failed()
                    raise ObjectStoreUnavailable(_why(error)) from error
            else:
                self.outage.answered()
                return answer
            _retries.labels(operation).inc()
            pause = _FIRST_PAUSE_SECONDS * 2**attempt
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")


@asynccontextmanager
async def _opened(body: Body) -> AsyncIterator[bytes | BinaryIO]:
    if isinstance(body, bytes):
        yield body
        return
    with await asyncio.to_thread(body.open) as file:
        yield file


@functools.cache
def _session() -> aioboto3.Session:
    """One per process: the first client of each session parses a megabyte of service definitions."""
    return aioboto3.Session()


@asynccontextmanager
async def open_objects(settings: PersistenceSettings) -> AsyncIterator[ObjectStore]:
    """A client of the bucket for the block. Nothing is sent before the first call."""
    options: dict[str, Any] = {"endpoint_url": settings.s3_endpoint_url, "region_name": settings.s3_region}
    if settings.s3_access_key_id is not None and settings.s3_secret_access_key is not None:
        options["aws_access_key_id"] = settings.s3_access_key_id.get_secret_value()
        options["aws_secret_access_key"] = settings.s3_secret_access_key.get_secret_value()
    config = AioConfig(
        s3={"addressing_style": "path"},
        # `_call` repeats calls, within its deadlines.
        retries={"total_max_attempts": 1},
        connect_timeout=min(5.0, settings.s3_deadline_seconds),
        read_timeout=settings.s3_deadline_seconds,
        max_pool_connections=32,
        # Stores other than AWS often lack the newer checksums; TLS and ETags protect the transfer as before.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = _session()
    # Many concurrent downloads must not take the connections that storing needs.
    async with (
        session.client("s3", config=config, **options) as client,
        session.client("s3", config=config, **options) as downloads,
    ):
        # Files are sent without `Expect: 100-continue`, as bytes are: it would cost another round trip.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        yield ObjectStore(client, downloads, settings.s3_bucket, settings.s3_region, settings.s3_deadline_seconds)
