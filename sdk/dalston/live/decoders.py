"""Decodes audio other than WAV with an installed decoder: PyAV, soundfile or ffmpeg."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from dalston.errors import InvalidRequest
from dalston.events import Warned
from dalston.live.samples import Samples
from dalston.live.wav import Reader, invalid, read_at_most, read_header

_READ_BYTES = 32_768
_READ_FRAMES = 4096
_MOST_BEFORE = 1024 * 1024
"""Largest box before the audio of an MP4, in bytes."""
_MAX_ERROR_CHARACTERS = 200
"""Length of a decoder's error message in a warning."""
# Audio containers, by libav's names. Playlists are excluded because they refer to other files and hosts.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,ast,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,m4v,matroska,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,"
    "nut,ogg,opus,rm,sox,spx,tta,voc,w64,wav,webm,wv"
)
# ffmpeg fills gaps with silence and chooses the nearest of these formats.
_RATES = "8000|11025|12000|16000|22050|24000|32000|44100|48000"
_FFMPEG_FORMATS = f"aresample=async=1,aformat=channel_layouts=mono|stereo:sample_rates={_RATES}"
# libav estimates the length of these formats from the file size and the bit rate.
_ESTIMATED = {"aac", "ac3", "amr", "dts", "eac3", "mp3", "mpeg", "mpegts"}
_TOLERANCE_OF_GAPS = 0.1
_LONGEST_GAP = 600.0
"""Longest gap in seconds that is filled with silence, so that times stay correct. A longer one is a wrong timestamp."""
_TOLERANCE = 1.0
"""Seconds by which a container's length may exceed the audio, because other streams may be longer."""
INSTALL = "install ffmpeg, or the Python package PyAV: pip install av"


@dataclass(frozen=True)
class Decoded:
    """Audio that is being decoded."""

    samples: Samples
    pieces: Iterator[bytes]
    """Pieces of any size, not necessarily of whole sample frames."""
    seconds: float | None
    """Length in seconds if the file states it."""
    close: Callable[[], None]
    """Releases the decoder; the reader of `pieces` calls it at the end."""
    warnings: list[Warned] = field(default_factory=list)
    """Defects that did not end the decoding; complete when `pieces` are exhausted."""
    interrupt: Callable[[], None] | None = None
    """Interrupts a blocked step of `pieces`; called from another thread."""


class RewindableFile:
    """A file or pipe that can be rewound to its first byte until `stop_buffering` is called.

    Args:
        path: the path of a regular file; None for a pipe.
    """

    def __init__(self, file: BinaryIO, path: Path | None = None) -> None:
        self.file = file
        self.path = path
        self._read = bytearray()
        self._start = _position(file)
        self._is_kept = self._start is None
        self._replay = io.BytesIO()

    @property
    def is_seekable(self) -> bool:
        """Whether `file` is seekable and its audio starts at its first byte."""
        return self._start == 0

    def read(self, size: int, /) -> bytes:
        if piece := self._replay.read(size):
            return piece
        piece = self.file.read(size)
        if self._is_kept:
            self._read += piece
        return piece

    def rewind(self) -> None:
        """Rewinds to the first byte."""
        if self._start is not None:
            self.file.seek(self._start)
        else:
            self._replay = io.BytesIO(bytes(self._read))

    def stop_buffering(self) -> None:
        """Discards the buffered bytes; the file is not rewound any more."""
        self._is_kept = False
        self._read.clear()


def decode(source: RewindableFile) -> Decoded:
    """Opens audio in any format that an installed decoder reads.

    Raises:
        InvalidRequest: no installed decoder can read it; `reason` is `INVALID_AUDIO`.
    """
    if source.is_seekable or not _has_table_last(source):
        return _decode(source)
    with contextlib.ExitStack() as stack:
        # A temporary file, because the length is not bounded.
        whole = stack.enter_context(tempfile.NamedTemporaryFile(prefix="dalston-"))
        source.rewind()
        source.stop_buffering()
        shutil.copyfileobj(cast(BinaryIO, source), whole, _READ_BYTES)
        whole.flush()
        whole.seek(0)
        decoded = _decode(RewindableFile(cast(BinaryIO, whole), Path(whole.name)))
        stack.callback(decoded.close)
        return replace(decoded, close=stack.pop_all().close)


def _has_table_last(source: RewindableFile) -> bool:
    """Whether it is an MP4 with its index after the audio, which therefore cannot be read from a pipe."""
    source.rewind()
    box, length, position = b"ftyp", 0, 0
    while box in (b"ftyp", b"free", b"skip", b"wide", b"uuid") and length <= _MOST_BEFORE:
        if len(read_at_most(source, length)) < length or len(head := read_at_most(source, 8)) < 8:
            return False
        size, box = int.from_bytes(head[:4], "big"), head[4:]
        if position == 0 and box != b"ftyp":
            return False
        position, length = position + size, max(0, size - 8)
    return box == b"mdat"


def _decode(source: RewindableFile) -> Decoded:
    attempted: list[str] = []
    for name, opened in (("PyAV", _by_pyav), ("soundfile", _by_soundfile), ("ffmpeg", _by_ffmpeg)):
        source.rewind()
        try:
            decoded = opened(source)
        except _DecoderMissing:
            continue
        except _Unreadable:
            attempted.append(name)
            continue
        return decoded
    if "PyAV" in attempted or "ffmpeg" in attempted:
        raise invalid("the file is damaged or not in a supported audio format")
    raise MissingDecoder("the audio is not a WAV file")


class MissingDecoder(InvalidRequest):
    """No decoder for the format of the audio is installed."""

    def __init__(self, problem: str) -> None:
        message = f"{problem}: transcribe_file takes it as it is; to stream it, {INSTALL}"
        super().__init__(message, reason="INVALID_AUDIO")
        self.problem = problem
        """Why the audio cannot be read, without what to do."""
        self.remedy = INSTALL


class _DecoderMissing(Exception):
    """The decoder is not installed, or cannot read from a pipe."""


class _Unreadable(Exception):
    """The decoder is installed and does not support the file."""


def _by_pyav(source: RewindableFile) -> Decoded:
    try:
        import av
    except ImportError:
        raise _DecoderMissing from None
    file: Any = source.file if source.is_seekable else source
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    warnings: list[Warned] = []
    with contextlib.ExitStack() as stack:
        try:
            container = av.open(file, "r", options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError, OSError):
            raise _Unreadable from None
        stack.callback(container.close)
        audio = next(iter(container.streams.audio), None)
        frames = _frames(container, audio, warnings)
        first = None if audio is None else next(frames, None)
        if first is None:
            raise _Unreadable
        opened = stack.pop_all()
    rate = first.sample_rate if 8_000 <= first.sample_rate <= 48_000 else 48_000
    channels = 2 if first.layout.nb_channels == 2 else 1
    resampler = av.AudioResampler(format="s16", layout="stereo" if channels == 2 else "mono", rate=rate)
    seconds = None if container.duration is None else container.duration / av.time_base
    is_estimate = container.format.name in _ESTIMATED
    source.stop_buffering()

    def pieces() -> Iterator[bytes]:
        frame, decoded, due = first, 0.0, first.time
        while frame is not None:
            length = frame.samples / frame.sample_rate
            if frame.time is not None and due is not None:
                if _TOLERANCE_OF_GAPS < (gap := frame.time - due) < _LONGEST_GAP:
                    warnings.append(_gap(due, gap))
                    yield from _silence(round(gap * rate) * channels * 2)
                    decoded += gap
                due = frame.time + length
            decoded += length
            yield from map(_bytes_of, resampler.resample(frame))
            frame = next(frames, None)
        yield from map(_bytes_of, resampler.resample(None))
        if seconds is not None and not is_estimate and not warnings and (missing := seconds - decoded) > _TOLERANCE:
            warnings.append(truncated(missing))

    return Decoded(Samples("pcm", 16, rate, channels), pieces(), seconds, opened.close, warnings)


def _silence(size: int) -> Iterator[bytes]:
    for start in range(0, size, _READ_BYTES):
        yield bytes(min(_READ_BYTES, size - start))


def _frames(container: Any, stream: Any, warnings: list[Warned]) -> Iterator[Any]:
    """Yields the frames that can be decoded. Damaged packets are skipped; the first adds a warning."""
    from av import FFmpegError

    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except FFmpegError as error:
                if not warnings and packet.size:
                    warnings.append(_damaged("a part of it was skipped", error.strerror))
    except FFmpegError as error:
        warnings.append(_damaged("the rest of it could not be read", error.strerror))


def truncated(seconds: float) -> Warned:
    """The warning about a file that is `seconds` shorter than its header states."""
    message = f"the file is incomplete: it ends {seconds:.1f} s before the end that its header states"
    return Warned("truncated_audio", message, {"missing_seconds": f"{seconds:.3f}"})


def _gap(at: float, seconds: float) -> Warned:
    message = f"{seconds:.1f} s of audio are missing at {at:.1f} s; silence replaces them"
    return Warned("damaged_audio", message, {"missing_seconds": f"{seconds:.3f}"})


def _damaged(what: str, why: object) -> Warned:
    return Warned("damaged_audio", f"the file is damaged: {what} ({str(why)[:_MAX_ERROR_CHARACTERS]})")


def _bytes_of(frame: Any) -> bytes:
    # A plane may be longer than its samples.
    return bytes(frame.planes[0])[: frame.samples * frame.layout.nb_channels * 2]


def _by_soundfile(source: RewindableFile) -> Decoded:
    if not source.is_seekable:
        raise _DecoderMissing
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: libsndfile is missing.
        raise _DecoderMissing from None
    try:
        file = soundfile.SoundFile(source.file)
        samples = Samples("pcm", 16, file.samplerate, file.channels)
    except (soundfile.SoundFileError, ValueError, OSError, TypeError):
        raise _Unreadable from None
    warnings: list[Warned] = []

    def pieces() -> Iterator[bytes]:
        try:
            while piece := bytes(file.buffer_read(_READ_FRAMES, dtype="int16")):
                yield piece
        except (soundfile.SoundFileError, OSError) as error:
            warnings.append(_damaged("the rest of it could not be read", error))

    seconds = file.frames / file.samplerate if 0 < file.frames < 1 << 60 else None
    return Decoded(samples, pieces(), seconds, file.close, warnings)


def _by_ffmpeg(source: RewindableFile) -> Decoded:
    program = shutil.which("ffmpeg")
    if program is None:
        raise _DecoderMissing
    # ffmpeg cannot read a container with its index at the end from a pipe, so it is given the path if there is one.
    name = "pipe:0" if source.path is None else f"file:{source.path}"
    command = [
        program, "-nostdin", "-hide_banner", "-v", "error", "-protocol_whitelist", "file,pipe",
        "-format_whitelist", _CONTAINERS, "-i", name, "-map", "0:a:0", "-af", _FFMPEG_FORMATS, "-c:a", "pcm_s16le",
        "-f", "wav", "pipe:1",
    ]  # fmt: skip
    warnings: list[Warned] = []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        stdin = subprocess.PIPE if source.path is None else subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=log)
        stack.callback(_end, process)
        if process.stdin is not None:
            threading.Thread(target=_copy, args=(source, process.stdin), name="dalston ffmpeg", daemon=True).start()
        output = cast("IO[bytes]", process.stdout)
        try:
            if output.read(4) != b"RIFF":
                raise _Unreadable
            header = read_header(output)
        except InvalidRequest:
            raise _Unreadable from None
        first = output.read(_READ_BYTES)
        if not first and process.wait() != 0:
            raise _Unreadable
        opened = stack.pop_all()
    source.stop_buffering()

    def pieces() -> Iterator[bytes]:
        piece = first
        while piece:
            yield piece
            piece = output.read(_READ_BYTES)
        if process.wait() != 0 or log.tell():
            log.seek(0)
            lines = log.read(4096).decode(errors="replace").strip().splitlines() or ["ffmpeg failed"]
            warnings.append(_damaged("a part of it may be missing", lines[-1]))

    return Decoded(header.samples, pieces(), None, opened.close, warnings, opened.close)


def _copy(source: Reader, sink: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError), sink:  # ffmpeg has exited, or the source was closed.
        while piece := source.read(_READ_BYTES):
            sink.write(piece)
            sink.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _position(file: BinaryIO) -> int | None:
    """The current position of a file; None if it is not seekable."""
    try:
        return file.tell() if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None
