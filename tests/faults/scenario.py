"""A database, a bucket and a spool for one test, read from outside the product."""

from __future__ import annotations

import asyncio
import io
import json
import os
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aioboto3
import asyncpg  # type: ignore[import-untyped]  # published without types
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from domain.session_id import parse_session_id
from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.pattern import BYTES_PER_SECOND, disagreement

PREFIX = "sessions/"
FLUSH_SECONDS = 2.0
LEASE_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """The endpoint and the credentials of S3."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    name: str
    region: str = "us-east-1"

    @property
    def address(self) -> tuple[str, int]:
        url = urlsplit(self.endpoint_url)
        return str(url.hostname), int(url.port or 80)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a client received as acknowledged."""

    session_id: str
    tag: int
    received: int
    stored: int
    sent: int
    finals: tuple[str, ...]
    store_audio: bool
    store_transcript: bool
    speed: float = 1.0
    """Seconds of audio in a second: what a flush interval costs grows with it."""

    @classmethod
    def of(cls, client: PatternClient) -> Expected:
        return cls(
            client.session_id,
            client.tag,
            client.received,
            client.stored,
            client.sent,
            tuple(client.finals),
            client.store_audio,
            client.store_transcript,
            client.speed,
        )


@dataclass
class Scenario:
    """The stores of one test, to compare with what clients received."""

    database_url: str
    bucket: Bucket
    folder: Path
    s3: Any
    spool_count: int = field(default=0)

    def new_spool(self) -> Path:
        """The spool directory of one machine."""
        self.spool_count += 1
        return self.folder / f"spool-{self.spool_count}"

    def environment(
        self, spool: Path, *, postgres_port: int | None = None, s3_port: int | None = None, **settings: object
    ) -> dict[str, str]:
        """A server's settings: short deadlines and leases, so that faults show within seconds."""
        url = urlsplit(self.database_url)
        if postgres_port is not None:
            url = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{postgres_port}"))
        values: dict[str, object] = {
            "database_url": url.geturl(),
            "database_deadline_seconds": 3,
            "s3_endpoint_url": self.bucket.endpoint_url if s3_port is None else f"http://127.0.0.1:{s3_port}",
            "s3_bucket": self.bucket.name,
            "s3_region": self.bucket.region,
            "s3_access_key_id": self.bucket.access_key_id,
            "s3_secret_access_key": self.bucket.secret_access_key,
            "s3_deadline_seconds": 3,
            "spool_dir": spool,
            "flush_seconds": FLUSH_SECONDS,
            "lease_seconds": LEASE_SECONDS,
            "lease_renewal_seconds": 1.5,
            "reap_seconds": 1,
            "recovery_grace_seconds": 3,
            "delete_age_seconds": 3,
            "sweep_seconds": 3,
            "max_sessions": 256,
            "log_level": "INFO",
        }
        return {f"DALSTON_{name.upper()}": str(value) for name, value in (values | settings).items()}

    def program_environment(self, spool: Path) -> dict[str, str]:
        """The environment of a program that is not a server."""
        return {**os.environ, **self.environment(spool)}

    @asynccontextmanager
    async def postgres(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.database_url, timeout=5)
        try:
            yield connection
        finally:
            await connection.close()

    async def row(self, session_id: str) -> dict[str, Any]:
        async with self.postgres() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM realtime_sessions WHERE id = $1", parse_session_id(session_id)
            )
        return dict(row) if row else {}

    async def waiting(self) -> list[str]:
        """The sessions that are not stored to their end yet, and what each waits for."""
        async with self.postgres() as connection:
            rows = await connection.fetch("SELECT * FROM realtime_sessions ORDER BY id")
        return [f"{row['id']}: {reason}" for row in rows if (reason := _waits_for(row))]

    async def settled(self, seconds: float = 60) -> None:
        """Waits until every session has ended and is stored."""
        waiting: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                while waiting := await self.waiting():  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(
                f"{len(waiting)} sessions are not finished after {seconds:.0f} s: {waiting[:3]}"
            ) from None

    async def object(self, key: str) -> bytes | None:
        try:
            answer = await self.s3.get_object(Bucket=self.bucket.name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404", "NotFound"):
                return None
            raise
        async with answer["Body"] as body:
            return bytes(await body.read())

    async def keys(self, prefix: str = PREFIX) -> list[str]:
        keys: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = await self.s3.list_objects_v2(Bucket=self.bucket.name, Prefix=prefix, **token)
            keys += [item["Key"] for item in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return keys
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def uploads(self) -> list[str]:
        page = await self.s3.list_multipart_uploads(Bucket=self.bucket.name)
        return [upload["Key"] for upload in page.get("Uploads", [])]

    async def compare(
        self, expected: Sequence[Expected], *, lost_seconds: float = 0.0, statuses: Sequence[str] = ("interrupted",)
    ) -> None:
        """Checks P1 to P3 for each session: status, every byte of audio, every final.

        Args:
            lost_seconds: how much of the tail may be missing, in seconds of the clock: 0 but for a lost disk.
            statuses: what a session may have ended as.
        """
        problems = [
            f"{each.session_id} (tag {each.tag}): {problem}"
            for each in expected
            for problem in await self._problems(each, lost_seconds, statuses)
        ]
        assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems)

    async def _problems(self, each: Expected, lost_seconds: float, statuses: Sequence[str]) -> list[str]:
        FIGURES.add("sessions compared")
        row = await self.row(each.session_id)
        if not row:
            return ["there is no row"]
        problems = []
        if row["status"] not in statuses:
            problems.append(f"status {row['status']} ({row['error']})")
        key = f"{PREFIX}{each.session_id}/"
        if each.store_audio:
            problems += _audio_problems(await self.object(key + "audio.wav"), each, lost_seconds, row)
        if each.store_transcript:
            problems += _transcript_problems(await self.object(key + "transcript.json"), each, lost_seconds)
        return problems

    async def nothing_is_left(self, *spools: Path) -> None:
        """P10: no running row, no unfinished upload, no tail object, no object without its row, no spooled session."""
        async with self.postgres() as connection:
            rows = await connection.fetch("SELECT * FROM realtime_sessions")
        wanted = {f"{PREFIX}sess_{row['id'].hex}/{name}" for row in rows for name in _names(row)}
        keys = set(await self.keys())
        left = {
            "rows that wait": [reason for row in rows if (reason := _waits_for(row))],
            "tombstones": [str(row["id"]) for row in rows if row["deleted_at"]],
            "objects without a row": sorted(keys - wanted),
            "rows without their object": sorted(wanted - keys),
            "unfinished uploads": await self.uploads(),
            "spooled sessions": [path.name for spool in spools for path in spool.glob("*/sess_*")],
        }
        assert not any(left.values()), {name: things[:5] for name, things in left.items() if things}

    async def until_nothing_is_left(self, *spools: Path, seconds: float = 30) -> None:
        """The same, after the time that cleaning up may take."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                return await self.nothing_is_left(*spools)
            except AssertionError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.25)


def _waits_for(row: Any) -> str | None:
    if row["deleted_at"]:
        return None
    if row["status"] == "active":
        return "it is active"
    for name in ("audio", "transcript"):
        if row[f"store_{name}"] and not row[f"{name}_uri"]:
            return f"its {name} is not stored"
    return None


def _names(row: Any) -> list[str]:
    names = {"audio.wav": row["audio_uri"], "transcript.json": row["transcript_uri"]}
    return [name for name, uri in names.items() if uri]


def _audio_problems(wav: bytes | None, each: Expected, lost_seconds: float, row: Any) -> list[str]:
    if wav is None:
        return ["there is no audio"]
    try:
        data = read_wav(wav)
    except (ValueError, wave.Error, EOFError) as error:
        return [f"not a WAV file: {error}"]
    FIGURES.add("bytes compared", len(data))
    FIGURES.add("bytes acknowledged", each.received)
    problems = []
    missing = each.received - len(data)
    if missing > 0:
        FIGURES.add("bytes lost with a lost disk" if lost_seconds else "BYTES LOST", missing)
    if missing > lost_seconds * each.speed * BYTES_PER_SECOND:
        problems.append(f"{missing} of {each.received} acknowledged bytes are lost ({len(data)} stored)")
    if len(data) < each.stored:
        problems.append(f"{each.stored} bytes were reported as stored, {len(data)} are")
    if found := disagreement(each.tag, data):
        FIGURES.add("RECORDINGS DAMAGED")
        problems.append(f"audio differs {found}")
    if len(data) > each.sent:
        problems.append(f"{len(data)} bytes are stored and only {each.sent} were sent")
    if abs(row["audio_duration_seconds"] - len(data) / BYTES_PER_SECOND) > max(lost_seconds * each.speed, 0.001):
        problems.append(f"the row states {row['audio_duration_seconds']} s, the file {len(data) / BYTES_PER_SECOND} s")
    return problems


def read_wav(wav: bytes) -> bytes:
    """The audio of a WAV file of mono 16-bit PCM at 16 kHz.

    Raises:
        ValueError, wave.Error, EOFError: it is no such file, or its lengths do not agree.
    """
    if int.from_bytes(wav[4:8], "little") != len(wav) - 8:
        raise ValueError(f"the header states {int.from_bytes(wav[4:8], 'little') + 8} bytes, the file has {len(wav)}")
    with wave.open(io.BytesIO(wav)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, 16_000):
            raise ValueError("another format")
        data = file.readframes(file.getnframes())
        if len(data) != file.getnframes() * 2:
            raise ValueError("the data chunk is longer than the file")
    return data


def _transcript_problems(body: bytes | None, each: Expected, lost_seconds: float) -> list[str]:
    if body is None:
        return ["there is no transcript"]
    stored = [utterance["text"] for utterance in json.loads(body)["utterances"]]
    FIGURES.add("finals compared", len(each.finals))
    problems = []
    if len(set(stored)) != len(stored):
        problems.append("a final is in the transcript twice")
    received = list(each.finals)
    # What was sent is a beginning of what is stored: finals come in order, and the last may not have arrived.
    if stored[: len(received)] != received and not (lost_seconds and received[: len(stored)] == stored):
        lost = len(set(received) - set(stored))
        FIGURES.add("FINALS LOST", lost)
        problems.append(f"{lost} finals of {len(received)} are lost, {len(stored)} are stored")
    return problems


@asynccontextmanager
async def a_scenario(template_url: str, bucket: Bucket, folder: Path) -> AsyncIterator[Scenario]:
    """A scenario with a database from the template, a bucket, and a client of S3."""
    name = "w_" + bucket.name.replace("-", "_")
    connection = await asyncpg.connect(template_url.rpartition("/")[0] + "/postgres")
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_url.rpartition("/")[2]}"')
    finally:
        await connection.close()
    config = AioConfig(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=bucket.endpoint_url,
        region_name=bucket.region,
        aws_access_key_id=bucket.access_key_id,
        aws_secret_access_key=bucket.secret_access_key,
        config=config,
    ) as s3:
        await s3.create_bucket(Bucket=bucket.name)
        scenario = Scenario(f"{template_url.rpartition('/')[0]}/{name}", bucket, folder, s3)
        try:
            yield scenario
        finally:
            # A bucket has volumes of its own in SeaweedFS, and a disk has room for some dozens of those.
            for key in await scenario.keys(""):
                await s3.delete_object(Bucket=bucket.name, Key=key)
            await s3.delete_bucket(Bucket=bucket.name)
