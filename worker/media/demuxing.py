"""Decodes one file with libav, restricted to a demuxer and to codecs that were chosen here."""

import contextlib
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import av

# libav's binding imports these where it first needs them, when the child can open no module any more.
import av.audio.stream
import av.error
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream

from server.audio.media import SUPPORTED_FORMATS, sniff
from worker.media import structure
from worker.media.errors import Reason, UndecodableMedia
from worker.media.pcm import PcmWriter

_DEMUXERS: Final = {"mp4": "mov", "webm": "matroska"}
"""Where the demuxer of libav has another name than the format."""
_PCM_CODECS: Final = (
    *("pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
    *("pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
)
_CODECS: Final = frozenset(
    {
        *("aac", "alac", "amrnb", "amrwb", "flac", "mp3", "mp3float", "opus", "vorbis"),
        *("adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm_ms"),
        *_PCM_CODECS,
    }
)
"""The decoders that may run, by libav's names: audio only, each written for whole files of strangers."""
_PROTECTED_TAGS: Final = frozenset({"enca", "drms"})
_TIMED: Final = frozenset({"mp4", "webm"})
"""Formats with a time axis for several streams, on which audio may begin later than the others."""
_UNSAFE_PLANES: Final = 8
_BUFFER_BYTES: Final = 256 * 1024
_MAX_STREAMS: Final = 64
_MAX_READ_ERRORS: Final = 16
"""Failed attempts to read a packet, one after the other, after which the rest of the file is given up."""
_TRUNCATED_SECONDS: Final = 0.25
"""A file is truncated if this much of the length that it states is missing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in a file. The rate and the number of channels are those before the conversion."""

    format: str
    codec: str
    sample_rate: int
    channels: int
    is_truncated: bool
    damaged_packets: int
    """Packets that could not be decoded and were skipped."""


class _Interleaver:
    """Interleaves the channels of frames that have many of them as separate planes.

    PyAV searches for the end of the list of planes, which has no end from eight planes on, and reads foreign memory.
    """

    def __init__(self) -> None:
        self._converter: Any = None
        self._of: object = None

    def frames(self, frame: Any) -> list[Any]:
        """The frame, or one with the same samples. Raises UndecodableMedia."""
        channels = frame.layout.nb_channels
        if not frame.format.is_planar or channels < _UNSAFE_PLANES:
            return [frame]
        if (of := (frame.format.name, frame.layout.name, frame.sample_rate)) != self._of:
            self._converter, self._of = av.AudioResampler(format="flt"), of
        try:
            return list(self._converter.resample(frame))
        except av.error.MemoryError as error:
            raise MemoryError from error
        except (av.error.FFmpegError, ValueError) as error:
            message = f"the audio has {channels} channels without a known layout"
            raise UndecodableMedia(Reason.UNSUPPORTED_CODEC, message) from error


class _Counts:
    damaged = 0
    is_cut_off = False


def warm_up() -> None:
    """Decodes a short file, so that every module and table that decoding needs is loaded."""
    audio = bytes(4_410 * 4)
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(audio),
        b"WAVE",
        b"fmt ",
        16,
        1,
        2,
        44_100,
        176_400,
        4,
        16,
        b"data",
        len(audio),
    )
    decode(io.BytesIO(header + audio), lambda _: None, 1.0)
    many_channels = av.AudioFrame(format="fltp", layout="7.1", samples=16)
    many_channels.rate = 48_000
    _Interleaver().frames(many_channels)


def decode(file: structure.File, write: Callable[[bytes], None], max_seconds: float) -> Facts:
    """Decodes the first default audio stream of a file, or else the first one, that has a supported codec.

    Args:
        file: seekable, at any position.
        write: receives the output, mono signed 16-bit PCM at 16 kHz.
        max_seconds: limit of the output.

    Raises:
        UndecodableMedia: it has no audio, or none that can be decoded.
        TooMuchAudio: the output is longer than the limit.
        MemoryError: the file needs more memory than the process may have.
    """
    tail = structure.after_tags(file)
    name = sniff(structure.head_of(tail)) or sniff(structure.head_of(file))
    if name is None:
        raise UndecodableMedia(
            Reason.UNSUPPORTED_FORMAT, f"the file is in none of the supported formats ({SUPPORTED_FORMATS})"
        )
    is_cut_off = structure.is_cut_off(tail, name)
    if name == "wav" and structure.wav_bytes(tail) == 0:
        raise UndecodableMedia(Reason.NO_AUDIO, "the audio of the file has a length of 0")
    tail.seek(0)
    with _opened(tail, name, is_cut_off=is_cut_off) as container:
        stream = _chosen(container)
        stated = _stated_seconds(container, stream) if _states_length(tail, name, container) else None
        counts = _Counts()
        begins_at = (container.start_time or 0) / av.time_base if name in _TIMED else None
        writer = PcmWriter(write, max_seconds, begins_at)
        rate = channels = 0
        for frame in _frames(container, stream, counts):
            rate, channels = rate or frame.sample_rate, channels or frame.layout.nb_channels
            writer.push(frame)
        writer.finish()
        if not rate or not writer.seconds:
            raise _nothing_decoded(counts, is_cut_off=is_cut_off)
        is_short = stated is not None and writer.seconds < stated - _TRUNCATED_SECONDS
        return Facts(
            name,
            stream.codec_context.codec.canonical_name,
            rate,
            channels,
            is_truncated=is_cut_off or counts.is_cut_off or is_short,
            damaged_packets=counts.damaged,
        )


def _states_length(tail: structure.Tail, name: str, container: Any) -> bool:
    """Whether the duration of the container is stated by the file. Keeps the position of the file."""
    position = tail.tell()
    try:
        return structure.states_length(tail, name, len(container.streams))
    finally:
        tail.seek(position)


@contextlib.contextmanager
def _opened(file: structure.Tail, name: str, *, is_cut_off: bool) -> Iterator[Any]:
    demuxer = _DEMUXERS.get(name, name)
    options = {
        # A name that no protocol has: nothing but the given file is read, whatever it refers to.
        "protocol_whitelist": "none",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(sorted(_CODECS)),
        "max_streams": str(_MAX_STREAMS),
    }
    if name == "mp4":
        options |= {"enable_drefs": "0", "use_absolute_path": "0", "ignore_chapters": "1"}
    try:
        container = av.open(
            file, "r", format=demuxer, options=options, metadata_errors="replace", buffer_size=_BUFFER_BYTES
        )
    except av.error.MemoryError as error:
        raise MemoryError from error
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if name == "mp4" and all(box != b"moov" for box, _, _ in structure.boxes(file)):
            raise UndecodableMedia(Reason.DAMAGED, "the file is cut off before its index, or has none") from error
        raise _damaged(is_cut_off=is_cut_off) from error
    with container:
        yield container


def _chosen(container: Any) -> Any:
    """The stream to decode. The others are discarded by the demuxer."""
    audio = list(container.streams.audio)
    if not audio:
        raise UndecodableMedia(Reason.NO_AUDIO, "the file has no audio")
    supported = [stream for stream in audio if _codec_of(stream) in _CODECS]
    if not supported:
        names = ", ".join(sorted({_codec_of(stream) or "unknown" for stream in audio}))
        raise UndecodableMedia(Reason.UNSUPPORTED_CODEC, f"the codec of the audio is not supported: {names}")
    default = av.stream.Disposition.default
    chosen = next((stream for stream in supported if default & stream.disposition), supported[0])
    if _tag_of(chosen) in _PROTECTED_TAGS:
        raise _encrypted()
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = av.stream.Discard.all
    chosen.codec_context.thread_count = 1
    return chosen


def _codec_of(stream: Any) -> str | None:
    context = stream.codec_context
    return None if context is None else str(context.name)


def _tag_of(stream: Any) -> str:
    """The four characters by which the container names the codec; empty if they are not ASCII."""
    try:
        return str(stream.codec_context.codec_tag)
    except UnicodeDecodeError:
        return ""


def _stated_seconds(container: Any, stream: Any) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else float(container.duration / av.time_base)


def _frames(container: Any, stream: Any, counts: _Counts) -> Iterator[Any]:
    """The frames that can be decoded. Damaged packets are skipped."""
    interleaver = _Interleaver()
    for packet in _packets(container, stream, counts):
        if packet.has_sidedata("encryption_info"):
            raise _encrypted()
        try:
            frames = packet.decode()
        except av.error.MemoryError as error:
            raise MemoryError from error
        except av.error.FFmpegError:
            counts.damaged += packet.size > 0
            continue
        for frame in frames:
            yield from interleaver.frames(frame)


def _packets(container: Any, stream: Any, counts: _Counts) -> Iterator[Any]:
    """The packets of a stream, and last an empty one, with which the decoder returns what it holds back."""
    failures = 0
    while failures < _MAX_READ_ERRORS:
        try:
            for packet in container.demux(stream):
                yield packet
                failures = 0
            return
        except av.error.MemoryError as error:
            raise MemoryError from error
        except av.error.FFmpegError:
            failures += 1
    counts.is_cut_off = True


def _nothing_decoded(counts: _Counts, *, is_cut_off: bool) -> UndecodableMedia:
    if counts.damaged or counts.is_cut_off or is_cut_off:
        return _damaged(is_cut_off=is_cut_off)
    return UndecodableMedia(Reason.NO_AUDIO, "the audio of the file has a length of 0")


def _damaged(*, is_cut_off: bool) -> UndecodableMedia:
    if is_cut_off:
        return UndecodableMedia(Reason.DAMAGED, "the file is cut off before any audio that can be decoded")
    return UndecodableMedia(Reason.DAMAGED, "the file is damaged: nothing in it can be decoded")


def _encrypted() -> UndecodableMedia:
    return UndecodableMedia(Reason.ENCRYPTED, "the audio of the file is encrypted")
