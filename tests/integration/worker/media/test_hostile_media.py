"""Hostile files: they fail with a reason or decode, within their limits, and leave nothing behind."""

import asyncio
import contextlib
import ctypes
import io
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.audio.media import sniff
from tests.media_files import (
    MEDIA_BOXES,
    SPEECH_RATE,
    box,
    chunk,
    encoded,
    id3,
    opus_bomb,
    pcm16,
    resampled,
    speech,
    streams_file,
    wav,
    with_boxes,
    with_reference,
)
from worker.media import demuxing
from worker.media.decode import Decoded, Limits, decode
from worker.media.errors import (
    DecodingFailed,
    DecodingTimeout,
    MediaError,
    MediaTooLarge,
    MediaTooLong,
    NoDiskSpace,
    Reason,
    UndecodableMedia,
)
from worker.media.scratch import Scratch

ROOT = Path(__file__).resolve().parents[4]
HOUR = Limits(max_seconds=3600)


def children() -> list[psutil.Process]:
    """The decoders that this process has."""
    return [child for child in psutil.Process().children() if "worker.media.child" in _command(child)]


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """After each test there is neither a decoder nor an open file.

    Other threads of the process, such as those of gRPC, may open what the decoder never does.
    """
    before = held_files()
    yield
    assert not children()
    assert held_files() <= before


def held_files() -> Counter[str]:
    """What this process has open of the kinds that decoding opens: files, pipes and process descriptors."""
    found = fds_of(os.getpid())
    return Counter(
        link
        for link in found
        if link.startswith("pipe:") or "pidfd" in link or (link[0] == "/" and "/dev/" not in link)
    )


async def outcome(data: bytes, folder: Path, limits: Limits = HOUR) -> Decoded | MediaError:
    """Decodes a hostile file. The output must exist exactly if decoding succeeded."""
    source, output = folder / "source", folder / "out.pcm"
    source.write_bytes(data)
    scratch = Scratch(folder, 1 << 30, min_free_bytes=0)
    try:
        result = await decode(source, output, scratch, limits)
    except MediaError as error:
        assert not scratch.reserved_bytes
        assert _names(folder) == ["source"]
        return error
    assert _names(folder) == ["out.pcm", "source"]
    assert output.stat().st_size == result.byte_count == scratch.reserved_bytes
    output.unlink()
    return result


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def reason_of(data: bytes, folder: Path, limits: Limits = HOUR) -> Reason:
    error = await outcome(data, folder, limits)
    assert isinstance(error, UndecodableMedia)
    assert not error.is_retryable
    assert str(error)
    return error.reason


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as output:
        output.writestr("../../etc/passwd.wav", wav(pcm16(speech(1.0))))
    return file.getvalue()


NOT_MEDIA = {
    "nothing": b"",
    "one byte": b"R",
    "text": b"Dear transcriber, please transcribe this.\n" * 100,
    "zeros": bytes(100_000),
    "a zip with a wav": archive(),
    "an m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n",
    "an m3u8 after a tag": id3(200) + b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
    "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a dash manifest": b'<?xml version="1.0"?><MPD><Period><BaseURL>http://127.0.0.1:9/</BaseURL></Period></MPD>',
    "a session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    "an svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "an avif": box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"meta", bytes(200)),
    "subtitles": b"1\n00:00:00,000 --> 00:00:10,000\nhello\n",
    "a program": b"\x7fELF" + bytes(500),
    "random bytes": random.Random(1).randbytes(200_000),
}


@pytest.mark.parametrize("name", NOT_MEDIA)
async def test_what_is_not_media_is_refused_by_the_decoder_and_by_the_sniffer(tmp_path: Path, name: str) -> None:
    data = NOT_MEDIA[name]
    if "tag" in name:
        assert await reason_of(data, tmp_path) is Reason.DAMAGED
    else:
        assert await reason_of(data, tmp_path) is Reason.UNSUPPORTED_FORMAT
        assert sniff(data[:16_384]) is None


async def test_the_refusal_lists_the_formats(tmp_path: Path) -> None:
    assert "flac" in str(await outcome(b"text", tmp_path))


ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "flac": ("flac", "flac", {}),
    "mp3": ("mp3", "libmp3lame", {}),
    "mp4": ("mp4", "aac", {}),
    "fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "ogg": ("ogg", "libopus", {}),
    "webm": ("webm", "libopus", {}),
    "wav": ("wav", "pcm_s16le", {}),
    "aiff": ("aiff", "pcm_s16be", {}),
    "caf": ("caf", "alac", {}),
    "aac": ("adts", "aac", {}),
}
"""The container, the codec and the options of each format."""


class Formats(dict[str, bytes]):
    """A file of each format, encoded when it is first needed: every process of `pytest -n` collects this module."""

    def __missing__(self, name: str) -> bytes:
        container, codec, options = ENCODERS[name]
        if name == "wav":
            self[name] = wav(pcm16(speech(2.0)))
        else:
            self[name] = encoded(container, codec, resampled(speech(2.0), 48_000), 48_000, options=options)
        return self[name]


FORMATS = Formats()


@pytest.mark.parametrize("name", ENCODERS)
async def test_a_truncated_file_yields_what_it_has_or_a_reason(tmp_path: Path, name: str) -> None:
    whole = FORMATS[name]
    seconds = []
    for part in (0.01, 0.5, 0.9):
        result = await outcome(whole[: max(1, int(len(whole) * part))], tmp_path)
        if isinstance(result, Decoded):
            seconds.append(result.seconds)
            if name in ("flac", "fragments", "ogg", "wav", "aiff", "mp3") and result.seconds < 1.7:
                assert result.is_truncated
        else:
            assert isinstance(result, UndecodableMedia)
    assert seconds == sorted(seconds)
    if name in ("mp4", "caf"):  # Their index is at the end.
        return
    # A page of Ogg has a second.
    assert seconds[-1] == pytest.approx(1.0 if name == "ogg" else 1.8, abs=0.15)


async def test_an_mp4_without_its_index_is_cut_off(tmp_path: Path) -> None:
    error = await outcome(FORMATS["mp4"][:-2_000], tmp_path)
    assert isinstance(error, UndecodableMedia)
    assert error.reason is Reason.DAMAGED
    assert "cut off" in str(error)


async def test_a_damaged_middle_is_skipped(tmp_path: Path) -> None:
    data = bytearray(encoded("mp3", "libmp3lame", resampled(speech(), 44_100), 44_100))
    middle = len(data) // 2
    data[middle : middle + 3_000] = random.Random(2).randbytes(3_000)
    result = await outcome(bytes(data), tmp_path)
    assert isinstance(result, Decoded)
    assert result.seconds == pytest.approx(8.0, abs=0.6)


async def test_an_encrypted_file_is_called_encrypted(tmp_path: Path) -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    data = encoded("mp4", "aac", resampled(speech(), 44_100), 44_100, options=options)
    assert await reason_of(data, tmp_path) is Reason.ENCRYPTED


async def test_files_without_audio_say_so(tmp_path: Path) -> None:
    assert await reason_of(streams_file("mp4", [], video=True), tmp_path) is Reason.NO_AUDIO
    assert await reason_of(wav(b""), tmp_path) is Reason.NO_AUDIO
    assert await reason_of(wav(b"", after=chunk(b"LIST", b"INFO" + bytes(3_000))), tmp_path) is Reason.NO_AUDIO


async def test_a_name_of_a_codec_that_is_not_ascii_does_no_harm(tmp_path: Path) -> None:
    changed = FORMATS["fragments"].replace(b"mp4a", b"\xb9p4a")
    result = await outcome(changed, tmp_path)
    assert isinstance(result, Decoded | UndecodableMedia)
    assert "UnicodeDecodeError" not in str(result)


async def test_pictures_and_attachments_are_ignored(tmp_path: Path) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    for data in (with_picture("mp4", "aac", None), with_picture("matroska", "libopus", svg)):
        result = await outcome(data, tmp_path)
        assert isinstance(result, Decoded)
        assert result.seconds == pytest.approx(2.0, abs=0.06)


def with_picture(container: str, codec: str, attachment: bytes | None) -> bytes:
    """A file with a cover, or with an attachment that is not what its name and type say."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        track: Any = output.add_stream(codec, rate=48_000)
        track.layout = "mono"
        if attachment is not None:
            output.add_attachment("../../cover.jpg", "image/jpeg", attachment)
        else:
            cover: Any = output.add_stream("mjpeg", rate=1)
            cover.width = cover.height = 64
            cover.pix_fmt = "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            output.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
            output.mux(cover.encode(None))
        samples = resampled(speech(2.0), 48_000)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="flt", layout="mono")
        frame.rate = 48_000
        size = track.codec_context.frame_size
        converter = av.AudioResampler(format=track.format, layout="mono", rate=48_000, frame_size=size)
        for piece in [*converter.resample(frame), *converter.resample(None)]:
            output.mux(track.encode(piece))
        output.mux(track.encode(None))
    return file.getvalue()


async def test_a_codec_that_is_not_supported_is_named(tmp_path: Path) -> None:
    error = await outcome(encoded("matroska", "ac3", resampled(speech(), 48_000), 48_000), tmp_path)
    assert isinstance(error, UndecodableMedia)
    assert error.reason is Reason.UNSUPPORTED_CODEC
    assert "ac3" in str(error)


@pytest.mark.parametrize(
    "header",
    [
        {"rate": 0},
        {"rate": 1},
        {"rate": 3_999},
        {"rate": 0xFFFFFFFF},
        {"rate": 384_001},
        {"channels": 0},
        {"channels": 65},
        {"channels": 65_535},
        {"bits": 0},
        {"bits": 65_535},
        {"tag": 0},
        {"tag": 0xFFFF},
        {"tag": 0x2000},
    ],
)
async def test_absurd_headers_are_refused(tmp_path: Path, header: dict[str, int]) -> None:
    result = await outcome(wav(pcm16(speech()), **header), tmp_path)
    assert isinstance(result, UndecodableMedia)


async def test_the_length_that_a_header_claims_is_not_trusted(tmp_path: Path) -> None:
    days = bytearray(FORMATS["flac"])
    days[21:26] = bytes([days[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # the number of samples
    for data in (
        bytes(days),
        wav(pcm16(speech(2.0)), data_size=0xFFFFFFF0 - 4096),
        wav(pcm16(speech(2.0)), data_size=1 << 30),
    ):
        result = await outcome(data, tmp_path)
        assert isinstance(result, Decoded)
        assert result.seconds == pytest.approx(2.0, abs=0.01)


async def test_a_small_file_of_hours_of_silence_ends_at_the_limit(tmp_path: Path) -> None:
    bomb = opus_bomb(3600)
    assert len(bomb) < 70_000
    assert isinstance(await outcome(bomb, tmp_path, Limits(max_seconds=600)), MediaTooLong)


async def test_a_limit_of_length_is_exact(tmp_path: Path) -> None:
    data = wav(pcm16(speech(2.0)))
    assert isinstance(await outcome(data, tmp_path, Limits(max_seconds=2.0)), Decoded)
    assert isinstance(await outcome(data, tmp_path, Limits(max_seconds=2.0 - 1 / SPEECH_RATE)), MediaTooLong)


async def test_gaps_of_hours_between_timestamps_end_at_the_limit(tmp_path: Path) -> None:
    few = spread(50)
    assert len(few) < 20_000
    assert isinstance(await outcome(few, tmp_path, HOUR), MediaTooLong)


def spread(pieces: int) -> bytes:
    """A WebM whose packets are 590 s apart."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as output:
        stream: Any = output.add_stream("libopus", rate=48_000)
        stream.layout = "mono"
        for index in range(pieces):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="flt", layout="mono")
            frame.rate, frame.pts = 48_000, index * 960
            for packet in stream.encode(frame):
                packet.pts = packet.dts = index * 590_000
                packet.time_base = Fraction(1, 1_000)
                output.mux(packet)
    return file.getvalue()


async def test_a_file_that_needs_much_time_for_little_audio_is_ended(tmp_path: Path) -> None:
    limits = Limits(cpu_seconds=1, cpu_seconds_per_hour=0)
    assert await reason_of(opus_bomb(10 * 3600), tmp_path, limits) is Reason.TOO_COSTLY


async def test_time_is_granted_as_audio_is_produced(tmp_path: Path) -> None:
    limits = Limits(cpu_seconds=2, cpu_seconds_per_hour=60, max_seconds=2 * 3600)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = await outcome(opus_bomb(3600), tmp_path, limits)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert isinstance(result, Decoded)
    assert result.seconds == pytest.approx(3_600, abs=31)
    assert after.ru_utime - before.ru_utime > 2


async def test_an_index_of_billions_of_samples_is_refused(tmp_path: Path) -> None:
    data = encoded("mov", "pcm_s16le", speech(), SPEECH_RATE)
    for name, content in (
        (b"stsz", struct.pack(">III", 0, 1, 0xFFFFFFFF)),
        (b"stts", struct.pack(">IIII", 0, 1, 0xFFFFFFFF, 0x7FFFFFFF)),
        (b"stco", struct.pack(">II", 0, 0xFFFFFFFF)),
        (b"stsc", struct.pack(">IIIII", 0, 1, 1, 0xFFFFFFFF, 1)),
    ):
        changed = with_boxes(data, (*MEDIA_BOXES, b"stbl", name), lambda _, content=content: content)
        result = await outcome(changed, tmp_path)
        assert isinstance(result, UndecodableMedia | Decoded)


async def test_a_compressed_index_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    claimed = 950 << 20
    packed = zlib.compress(bytes(1 << 20))
    compressed = box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", claimed) + packed))
    data = box(b"ftyp", b"qt  \0\0\2\0qt  ") + box(b"moov", compressed)
    assert await reason_of(data, tmp_path) is Reason.TOO_COSTLY


async def test_nested_containers_and_boxes_are_harmless(tmp_path: Path) -> None:
    deep = b""
    for _ in range(20_000):
        deep = box(b"moov", deep) if len(deep) < 1 << 24 else deep
    assert isinstance(await outcome(FORMATS["mp4"][:32] + deep, tmp_path), UndecodableMedia)
    # A FLAC inside a WAV inside an AIFF.
    inner = wav(FORMATS["flac"])
    outer = b"FORM" + struct.pack(">I", len(inner) + 4) + b"AIFF" + inner
    assert isinstance(await outcome(outer, tmp_path), UndecodableMedia)
    result = await outcome(inner, tmp_path)  # It is a WAV of noise.
    assert isinstance(result, Decoded)


async def test_a_tag_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    mp3 = FORMATS["mp3"]
    tag = bytearray(id3(100))
    tag[6:10] = b"\x7f\x7f\x7f\x7f"
    assert isinstance(await outcome(bytes(tag) + mp3, tmp_path), UndecodableMedia)
    assert isinstance(await outcome(id3(5) * 100 + mp3, tmp_path), UndecodableMedia | Decoded)


@pytest.mark.parametrize(
    "name", ["concat:a|b", "-i", "http:__127.0.0.1", "..%2f..%2fpasswd", "a\nb.m3u8", "x.wav", "\udcff"]
)
async def test_the_name_of_a_file_means_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS["ogg"])
    result = await decode(tmp_path / name, tmp_path / "out", Scratch(tmp_path, 1 << 30, 0))
    assert (result.format, result.codec) == ("ogg", "opus")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(ENCODERS)),
    seed=st.integers(0, 1 << 32),
    share=st.sampled_from([0.0002, 0.002, 0.02]),
    cut=st.floats(0.2, 1.0),
)
def test_damaged_files_never_harm(tmp_path: Path, name: str, seed: int, share: float, cut: float) -> None:
    data, chance = bytearray(FORMATS[name]), random.Random(seed)
    del data[int(len(data) * cut) :]
    for _ in range(max(1, int(len(data) * share))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    result = asyncio.run(outcome(bytes(data), tmp_path))
    assert isinstance(result, Decoded | UndecodableMedia | MediaTooLong)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(
        [b"", b"RIFF\0\0\0\0WAVE", b"OggS\0\2", b"fLaC\0\0\0\x22", b"\xff\xfb\x90\x00", b"caff\0\1\0\0", b"#!AMR\n"]
    ),
    rest=st.binary(max_size=4_000),
)
def test_random_bytes_never_harm(tmp_path: Path, start: bytes, rest: bytes) -> None:
    assert isinstance(asyncio.run(outcome(start + rest, tmp_path)), Decoded | UndecodableMedia | MediaTooLong)


# What refers to other files and hosts.


class Watch:
    """Notices whether a file is opened."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK)
        opened = 0x20
        assert self._libc.inotify_add_watch(self._fd, str(path).encode(), opened) > 0

    def was_opened(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._fd, 4096))
        return False

    def close(self) -> None:
        os.close(self._fd)


def references(secret: Path, port: int) -> dict[str, bytes]:
    url = f"http://127.0.0.1:{port}/x"
    movie = encoded("mov", "pcm_s16le", speech(2.0), SPEECH_RATE)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXTINF:10,\n{url}.ts\n".encode()
    return {
        "alias in an mp4": with_reference(movie, str(secret)),
        "alias with an address": with_reference(movie, url),
        "m3u8": playlist,
        "m3u8 after a tag": id3(100) + playlist,
        "m3u8 inside a wav": wav(playlist),
        "m3u8 in an mp4": box(b"ftyp", b"isom\0\0\2\0isom") + box(b"mdat", playlist),
        "concat": f"ffconcat version 1.0\nfile {secret}\nfile {url}\n".encode(),
        "metadata with addresses": encoded(
            "flac", "flac", speech(2.0), SPEECH_RATE, metadata={"title": url, "comment": f"file://{secret}"}
        ),
        "data address": b"data:audio/wav;base64,UklGRg==",
        "subfile": f"subfile,,start,0,end,10,,:{secret}".encode(),
    }


async def test_no_other_file_is_read_and_no_connection_is_made(tmp_path: Path) -> None:
    (folder := tmp_path / "files").mkdir()
    secret = tmp_path / "secret.raw"
    secret.write_bytes(b"SECRET" * 10_000)
    watch = Watch(secret)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        for data in references(secret, listener.getsockname()[1]).values():
            result = await outcome(data, folder)
            assert isinstance(result, Decoded | UndecodableMedia)
            # The demuxers by themselves refer to nothing either, without the rights that the child has lost.
            output = bytearray()
            with contextlib.suppress(UndecodableMedia):
                demuxing.decode(io.BytesIO(data), output.extend, 100)
            assert b"SECRET" not in output
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not watch.was_opened()
    secret.read_bytes()
    assert watch.was_opened()
    watch.close()


def test_an_alias_is_followed_where_it_is_allowed(tmp_path: Path) -> None:
    # Proves that the file in the test above is the attack that it should be.
    secret, movie = tmp_path / "secret.raw", tmp_path / "movie.mov"
    secret.write_bytes(b"SECRET" * 10_000)
    movie.write_bytes(with_reference(encoded("mov", "pcm_s16le", speech(2.0), SPEECH_RATE), str(secret)))
    with av.open(str(movie), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        frame = next(container.decode(audio=0))
        assert bytes(frame.planes[0]).startswith(b"SECRET")


# What the child may do.

RIGHTS = """
import os, signal, socket, sys, tempfile, threading
from worker.media import sandbox
applied = sandbox.isolate()
parent = os.getppid()
attempts = {
    "read a file": lambda: open("/etc/passwd"),
    "list a folder": lambda: os.listdir("/"),
    "make a socket": lambda: socket.socket(),
    "make a local socket": lambda: socket.socket(socket.AF_UNIX),
    "make a pipe": lambda: os.pipe(),
    "fork": lambda: os.fork(),
    "start a thread": lambda: threading.Thread(target=print).start(),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "kill its parent": lambda: os.kill(parent, signal.SIGKILL),
    "delete a file": lambda: os.unlink("/tmp/does-not-exist"),
    "raise its limits": lambda: __import__("resource").setrlimit(7, (1024, 1024)),
    "attach to its parent": lambda: open(f"/proc/{parent}/mem", "r+b"),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
        done.append(name)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            done.append(name)
print(applied, done)
"""


def test_the_child_has_no_rights() -> None:
    environment = {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", "import resource\n" + RIGHTS],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert result.stdout.strip() == "['descriptors', 'network', 'system_calls'] []", result.stderr


async def until(condition: Any) -> Any:
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return value


async def stopped_child(task: "asyncio.Task[Any]") -> psutil.Process:
    """The decoder of a task, stopped in its start."""
    (child,) = await until(children)
    assert not task.done()
    child.suspend()
    return child


async def test_the_child_has_only_the_files_that_it_needs_and_no_environment(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DALSTON_SECRET", "x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        task = asyncio.create_task(outcome(opus_bomb(7200), tmp_path))
        child = await stopped_child(task)
        assert set(child.environ()) <= {
            "PYTHONPATH",
            "OPENBLAS_NUM_THREADS",
            "OMP_NUM_THREADS",
            "MALLOC_ARENA_MAX",
            "LC_CTYPE",
        }
        assert child.cwd() == "/"
        assert os.getpgid(child.pid) == child.pid
        links = fds_of(child.pid)
        assert {str(tmp_path / "source"), str(tmp_path / "out.pcm")} <= set(links)
        assert not [link for link in links if "socket" in link]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def fds_of(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


def limits_of(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


async def test_limits_of_memory_time_and_files_apply_while_it_decodes(tmp_path: Path) -> None:
    output = tmp_path / "out.pcm"
    task = asyncio.create_task(outcome(opus_bomb(24 * 3600), tmp_path, Limits(cpu_seconds=7)))
    await until(lambda: output.exists() and output.stat().st_size)
    (child,) = children()
    limits = {}
    for line in limits_of(child.pid).splitlines()[1:]:
        limits[line[:26].strip()] = line[26:].split()[:2]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limits["Max address space"] == [str(1 << 30)] * 2
    assert limits["Max open files"] == ["0", "0"]
    assert limits["Max processes"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"][1] == str(1 << 30)
    assert 7 <= int(limits["Max cpu time"][0]) <= int(limits["Max cpu time"][1]) == 7 + 24 * 120 + 1


async def test_cancelling_ends_the_child_and_removes_the_output(tmp_path: Path) -> None:
    task = asyncio.create_task(outcome(opus_bomb(7200), tmp_path))
    child = await stopped_child(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(child.pid)
    assert _names(tmp_path) == ["source"]


async def test_a_crash_of_the_decoder_is_the_fault_of_the_file_and_a_kill_is_not(tmp_path: Path) -> None:
    for number, kind in ((signal.SIGSEGV, UndecodableMedia), (signal.SIGKILL, DecodingFailed)):
        task = asyncio.create_task(outcome(opus_bomb(7200), tmp_path))
        child = await stopped_child(task)
        child.send_signal(number)
        child.resume()
        error = await task
        assert type(error) is kind
        assert error.is_retryable is (kind is DecodingFailed)


async def test_a_deadline_that_passes_is_not_the_fault_of_the_file(tmp_path: Path) -> None:
    task = asyncio.create_task(outcome(opus_bomb(7200), tmp_path, Limits(timeout_seconds=1.0)))
    child = await stopped_child(task)
    error = await task
    assert type(error) is DecodingTimeout
    assert error.is_retryable
    assert not psutil.pid_exists(child.pid)


PARENT = """
import asyncio, sys
from pathlib import Path
from worker.media.decode import decode
from worker.media.scratch import Scratch
folder = Path(sys.argv[1])
asyncio.run(decode(folder / "source", folder / "out", Scratch(folder, 1 << 40, 0)))
"""


async def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(opus_bomb(24 * 3600))
    parent = psutil.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env={"PYTHONPATH": str(ROOT)})
    try:
        # The kernel kills it only once it has asked for that, which it has when it writes.
        await until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size)
        (child,) = parent.children()
    finally:
        parent.kill()
        parent.wait()
    await until(lambda: not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE)


# Endless sources and full disks.


async def endless(start: bytes = b"") -> AsyncIterator[bytes]:
    yield start
    while True:
        yield bytes(1 << 20)


async def test_a_source_without_end_is_ended_at_its_limit(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1 << 30, 0)
    with pytest.raises(MediaTooLarge) as error:
        await decode(endless(FORMATS["wav"]), tmp_path / "out", scratch, Limits(max_source_bytes=5 << 20))
    assert not error.value.is_retryable
    assert (_names(tmp_path), scratch.reserved_bytes) == ([], 0)


async def test_temporary_files_have_a_budget(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 3 << 20, 0)
    with pytest.raises(NoDiskSpace) as error:
        await decode(endless(), tmp_path / "out", scratch)
    assert error.value.is_retryable
    assert (_names(tmp_path), scratch.reserved_bytes) == ([], 0)
    # The decoded audio counts too.
    (tmp_path / "source").write_bytes(opus_bomb(1800))
    with pytest.raises(NoDiskSpace):
        await decode(tmp_path / "source", tmp_path / "out", scratch)
    assert (_names(tmp_path), scratch.reserved_bytes) == (["source"], 0)


async def test_a_disk_without_room_is_noticed_before_anything_starts(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1 << 60, min_free_bytes=1 << 60)
    (tmp_path / "source").write_bytes(FORMATS["wav"])
    with pytest.raises(NoDiskSpace):
        await decode(tmp_path / "source", tmp_path / "out", scratch)
    assert _names(tmp_path) == ["source"]


async def test_what_is_no_file_or_exists_already_is_refused(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1 << 30, 0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "source").write_bytes(FORMATS["wav"])
    (tmp_path / "exists").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for source in ("pipe", "."):
        with pytest.raises(OSError, match="regular"):
            await decode(tmp_path / source, tmp_path / "out", scratch)
    for destination in ("exists", "link"):
        with pytest.raises(FileExistsError):
            await decode(tmp_path / "source", tmp_path / destination, scratch)
    assert (tmp_path / "exists").read_bytes() == b"kept"
    assert not (tmp_path / "elsewhere").exists()


async def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield FORMATS["wav"]
        raise ConnectionError("lost")

    scratch = Scratch(tmp_path, 1 << 30, 0)
    with pytest.raises(ConnectionError):
        await decode(broken(), tmp_path / "out", scratch)
    assert (_names(tmp_path), scratch.reserved_bytes) == ([], 0)
