"""Every supported format, encoded from speech, decodes to that speech."""

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.audio.media import MEDIA_TYPES, sniff
from tests.media_files import (
    SPEECH_RATE,
    EncoderMissing,
    Samples,
    chunk,
    encoded,
    id3,
    opus_of_channels,
    pcm16,
    resampled,
    speech,
    streams_file,
    wav,
)
from worker.media.decode import Decoded, decode
from worker.media.scratch import Scratch


async def decoded(data: bytes, folder: Path) -> tuple[Decoded, Samples]:
    source = folder / "source"
    source.write_bytes(data)
    scratch = Scratch(folder, 1 << 30, min_free_bytes=0)
    result = await decode(source, folder / "out.pcm", scratch)
    pcm = np.fromfile(folder / "out.pcm", "<i2")
    assert result.byte_count == len(pcm) * 2 == scratch.reserved_bytes
    assert result.seconds == pytest.approx(len(pcm) / SPEECH_RATE)
    assert result.format == sniff(data[:16_384])
    assert result.media_type == MEDIA_TYPES[result.format]
    return result, pcm.astype(np.float32) / 32768


def similarity(one: Samples, other: Samples, most_delay: float = 0.08) -> float:
    """The correlation of two recordings at the delay where it is greatest."""
    length = min(len(one), len(other))
    size = 1 << (2 * length - 1).bit_length()
    spectrum = np.fft.rfft(one[:length], size) * np.conj(np.fft.rfft(other[:length], size))
    correlation = np.fft.irfft(spectrum, size)
    most = int(most_delay * SPEECH_RATE)
    best = max(correlation[: most + 1].max(), correlation[-most:].max())
    return float(best / np.sqrt(np.square(one[:length]).sum() * np.square(other[:length]).sum()))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def loudness(samples: Samples) -> Samples:
    """The logarithm of the power of every 0.1 s of the first 7.9 s."""
    blocks = samples[: 79 * SPEECH_RATE // 10].reshape(79, -1)
    return np.asarray(np.log(np.square(blocks).mean(axis=1) + 1e-6), np.float32)


def snr(one: Samples, reference: Samples) -> float:
    """In decibels, without a delay."""
    length = min(len(one), len(reference))
    noise = np.square(one[:length] - reference[:length]).sum()
    return float(10 * np.log10(np.square(reference[:length]).sum() / max(noise, 1e-20)))


EXPERIMENTAL = {"strict": "experimental"}


@pytest.mark.parametrize(
    ("container", "codec", "rate", "options", "expected", "most_off"),
    [
        ("flac", "flac", 16_000, {}, "flac", 0.0),
        ("flac", "flac", 44_100, {}, "flac", 0.001),
        ("ogg", "flac", 44_100, {}, "ogg", 0.001),
        ("mp3", "libmp3lame", 44_100, {}, "mp3", 0.05),
        ("mp3", "libmp3lame", 16_000, {}, "mp3", 0.05),
        ("mp4", "aac", 44_100, {}, "mp4", 0.05),
        ("ipod", "aac", 16_000, {}, "mp4", 0.08),
        ("ipod", "alac", 44_100, {}, "mp4", 0.001),
        ("mp4", "libopus", 48_000, {}, "mp4", 0.05),
        ("mov", "pcm_s16le", 48_000, {}, "mp4", 0.001),
        ("ogg", "vorbis", 44_100, EXPERIMENTAL, "ogg", 0.05),
        ("ogg", "libopus", 48_000, {}, "ogg", 0.05),
        ("opus", "libopus", 16_000, {}, "ogg", 0.05),
        ("webm", "libopus", 48_000, {}, "webm", 0.05),
        ("webm", "vorbis", 48_000, EXPERIMENTAL, "webm", 0.05),
        ("matroska", "aac", 48_000, {}, "webm", 0.05),
        ("adts", "aac", 44_100, {}, "aac", 0.08),
        ("aiff", "pcm_s16be", 44_100, {}, "aiff", 0.001),
        ("caf", "pcm_s16le", 44_100, {}, "caf", 0.001),
        ("caf", "alac", 44_100, {}, "caf", 0.05),
        ("amr", "libopencore_amrnb", 8_000, {"b": "12200"}, "amr", 0.05),
        ("wav", "adpcm_ms", 16_000, {}, "wav", 0.06),
        ("wav", "adpcm_ima_wav", 16_000, {}, "wav", 0.06),
        ("rf64", "pcm_s24le", 48_000, {}, "wav", 0.001),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
async def test_a_format_decodes_to_its_speech(
    tmp_path: Path,
    container: str,
    codec: str,
    rate: int,
    options: dict[str, str],
    expected: str,
    most_off: float,
    channels: int,
) -> None:
    if (codec == "vorbis" and channels == 1) or (codec == "libopencore_amrnb" and channels == 2):
        pytest.skip("the encoder has no such number of channels")
    if channels == 2 and container in ("mov", "caf", "aiff", "matroska", "ipod", "opus", "adts"):
        pytest.skip("its codec is in another format with two channels")
    samples = resampled(speech(), rate)
    try:
        data = encoded(
            "wav" if container == "rf64" else container,
            codec,
            samples if channels == 1 else np.stack([samples, samples * 0.5], axis=1),
            rate,
            codec_options=options,
            options={"rf64": "always"} if container == "rf64" else {},
        )
    except EncoderMissing:
        pytest.skip(f"PyAV has no encoder {codec}")
    result, pcm = await decoded(data, tmp_path)
    assert (result.format, result.channels) == (expected, channels)
    assert result.sample_rate == (48_000 if codec == "libopus" else rate)
    assert not result.is_truncated
    assert not result.damaged_packets
    assert abs(result.seconds - 8.0) <= most_off + 1 / SPEECH_RATE
    if codec == "libopencore_amrnb":  # It keeps the spectrum and not the phase.
        assert np.corrcoef(loudness(pcm), loudness(speech()))[0, 1] > 0.95
    else:
        assert similarity(pcm, speech()) > 0.98
    if codec.startswith("pcm") or codec in ("flac", "alac"):
        assert snr(pcm / (1 if channels == 1 else 0.75), speech()) > 30


FORMS: dict[str, Callable[[], tuple[bytes, dict[str, int]]]] = {
    "8 bits": lambda: (np.rint(speech() * 127 + 128).astype(np.uint8).tobytes(), {"bits": 8}),
    "16 bits": lambda: (pcm16(speech()), {}),
    "24 bits": lambda: (
        np.rint(speech() * 8388607).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
        {"bits": 24},
    ),
    "32 bits": lambda: (np.rint(speech() * 2147483000.0).astype("<i4").tobytes(), {"bits": 32}),
    "32-bit floats": lambda: (speech().astype("<f4").tobytes(), {"bits": 32, "tag": 3}),
    "64-bit floats": lambda: (speech().astype("<f8").tobytes(), {"bits": 64, "tag": 3}),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_wav_of_any_sample_format_decodes_to_its_speech(tmp_path: Path, form: str) -> None:
    data, header = FORMS[form]()
    result, pcm = await decoded(wav(data, **header), tmp_path)
    assert result.seconds == 8.0
    assert snr(pcm, speech()) > (20 if form == "8 bits" else 60)


@pytest.mark.parametrize(("codec", "tag"), [("pcm_mulaw", 7), ("pcm_alaw", 6)])
async def test_a_wav_of_a_telephone_decodes_to_its_speech(tmp_path: Path, codec: str, tag: int) -> None:
    data = encoded("wav", codec, resampled(speech(), 8_000), 8_000)
    assert struct.unpack_from("<H", data, 20) == (tag,)
    result, pcm = await decoded(data, tmp_path)
    assert result.seconds == pytest.approx(8.0, abs=0.001)
    assert similarity(pcm, speech()) > 0.9


EXTENSION = struct.pack("<HHIH14s", 22, 16, 0, 1, bytes.fromhex("000000001000800000aa00389b71"))

LONG_SIZES = chunk(b"ds64", struct.pack("<QQQI", 256_072, 256_000, 128_000, 0))


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"data_size": 0}, id="no length"),
        pytest.param({"data_size": 0, "riff_size": 0}, id="no length anywhere"),
        pytest.param({"data_size": 0xFFFFFFFF, "riff_size": 0xFFFFFFFF}, id="length of a pipe, 32 bits"),
        pytest.param({"data_size": 0x7FFFFFFF, "riff_size": 0x7FFFFFFF + 36}, id="length of a pipe, 31 bits"),
        pytest.param(
            {"before": chunk(b"JUNK", bytes(27)) + chunk(b"LIST", b"INFOISFT\5\0\0\0abcd\0\0")}, id="odd chunks"
        ),
        pytest.param({"after": chunk(b"LIST", b"INFO" + bytes(2_000))}, id="chunks after the audio"),
        pytest.param({"tag": 0xFFFE, "extension": EXTENSION}, id="extensible"),
        pytest.param(
            {
                "form": b"RF64",
                "riff_size": 0xFFFFFFFF,
                "data_size": 0xFFFFFFFF,
                "before": LONG_SIZES,
            },
            id="RF64",
        ),
        pytest.param({"form": b"BW64", "before": LONG_SIZES}, id="BW64"),
    ],
)
async def test_a_wav_at_16_khz_decodes_to_its_own_bytes(tmp_path: Path, header: dict[str, object]) -> None:
    audio = pcm16(speech())
    result, _ = await decoded(wav(audio, **header), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "out.pcm").read_bytes() == audio
    assert not result.is_truncated or "pipe" in str(header)


async def test_decoding_twice_returns_the_same_bytes(tmp_path: Path) -> None:
    data = encoded("mp3", "libmp3lame", resampled(speech(), 44_100), 44_100)
    outputs = []
    for run in ("one", "two"):
        (folder := tmp_path / run).mkdir()
        await decoded(data, folder)
        outputs.append((folder / "out.pcm").read_bytes())
    assert outputs[0] == outputs[1]


async def test_chunks_of_any_size_decode_as_the_file_does(tmp_path: Path) -> None:
    data = encoded("mp4", "aac", resampled(speech(), 44_100), 44_100)
    _, whole = await decoded(data, tmp_path)

    async def chunks():
        for at in range(0, len(data), 777):
            yield data[at : at + 777]

    scratch = Scratch(tmp_path, 1 << 30, min_free_bytes=0)
    result = await decode(chunks(), tmp_path / "chunks.pcm", scratch)
    assert (tmp_path / "chunks.pcm").read_bytes() == pcm16(whole)
    assert scratch.reserved_bytes == result.byte_count
    assert names(tmp_path) == ["chunks.pcm", "out.pcm", "source"]


async def test_an_inverted_channel_does_not_cancel_the_speech(tmp_path: Path) -> None:
    samples = resampled(speech(), 44_100)
    result, pcm = await decoded(encoded("flac", "flac", np.stack([samples, -samples], axis=1), 44_100), tmp_path)
    assert result.channels == 2
    assert similarity(pcm, speech()) > 0.97


@pytest.mark.parametrize("channel", range(6))
async def test_speech_on_any_of_six_channels_is_kept(tmp_path: Path, channel: int) -> None:
    samples = np.zeros((len(speech()), 6), np.float32)
    samples[:, channel] = speech()
    _, pcm = await decoded(encoded("flac", "flac", samples, SPEECH_RATE), tmp_path)
    assert similarity(pcm, speech()) > 0.99


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("ogg", "libopus"), ("flac", "flac")])
@pytest.mark.parametrize("channel", [0, 7])
async def test_eight_channels_are_mixed(tmp_path: Path, container: str, codec: str, channel: int) -> None:
    samples = np.zeros((48_000 * 8, 8), np.float32)
    samples[:, channel] = resampled(speech(), 48_000)
    result, pcm = await decoded(encoded(container, codec, samples, 48_000), tmp_path)
    assert result.channels == 8
    assert similarity(pcm, speech()) > 0.97


@pytest.mark.parametrize("channels", [7, 8, 9, 14, 64])
async def test_channels_without_a_meaning_are_mixed(tmp_path: Path, channels: int) -> None:
    result, _ = await decoded(opus_of_channels(channels, 20), tmp_path)
    assert (result.codec, result.channels) == ("opus", channels)
    assert result.seconds == pytest.approx(1.2, abs=0.01)


async def test_tags_and_a_cover_do_not_disturb(tmp_path: Path) -> None:
    cover = b"\0image/jpeg\0\3\0" + b"\xff\xd8\xff\xe0" + bytes(3_000_000)
    size = len(cover)
    frame = b"APIC" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\0\0" + cover
    data = id3(20_000_000, frame) + encoded("mp3", "libmp3lame", speech(), SPEECH_RATE)
    result, pcm = await decoded(data, tmp_path)
    assert result.format == "mp3"
    assert similarity(pcm, speech()) > 0.98


async def test_a_flac_after_an_id3_tag_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(id3(70_000) + encoded("flac", "flac", speech(), SPEECH_RATE))
    result = await decode(tmp_path / "source", tmp_path / "out.pcm", Scratch(tmp_path, 1 << 30, 0))
    assert (result.format, result.seconds) == ("flac", 8.0)


async def test_an_mp3_that_was_cut_out_of_a_stream_is_decoded(tmp_path: Path) -> None:
    whole = encoded(
        "mp3", "libmp3lame", resampled(speech(), 44_100), 44_100, options={"write_xing": "0", "id3v2_version": "0"}
    )
    result, pcm = await decoded(whole[1_000:], tmp_path)
    assert result.seconds == pytest.approx(8.0, abs=0.2)
    assert np.square(pcm).mean() > 1e-4


async def test_the_audio_of_a_video_is_decoded_from_its_place_on_the_time_axis(tmp_path: Path) -> None:
    data = streams_file("matroska", [("libopus", resampled(speech(), 48_000), 48_000)], video=True, at=1.5)
    result, pcm = await decoded(data, tmp_path)
    assert result.seconds == pytest.approx(9.5, abs=0.05)
    assert not pcm[: int(1.4 * SPEECH_RATE)].any()
    assert similarity(pcm[int(1.5 * SPEECH_RATE) :], speech()) > 0.98


async def test_a_file_whose_only_stream_begins_late_does_not_begin_with_silence(tmp_path: Path) -> None:
    data = streams_file("matroska", [("libopus", resampled(speech(), 48_000), 48_000)], at=30.0)
    result, pcm = await decoded(data, tmp_path)
    assert result.seconds == pytest.approx(8.0, abs=0.05)
    assert similarity(pcm, speech()) > 0.98


async def test_files_are_decoded_at_the_same_time(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1 << 30, min_free_bytes=0)
    kinds = [("flac", "flac"), ("wav", "pcm_s16le"), ("ipod", "alac")]
    for container, codec in kinds:
        (tmp_path / container).write_bytes(encoded(container, codec, speech(), SPEECH_RATE))
    results = await asyncio.gather(
        *(decode(tmp_path / container, tmp_path / f"{container}.pcm", scratch) for container, _ in kinds)
    )
    assert {(tmp_path / f"{container}.pcm").read_bytes() for container, _ in kinds} == {pcm16(speech())}
    assert scratch.reserved_bytes == sum(result.byte_count for result in results)


async def test_of_several_streams_the_first_default_one_is_decoded(tmp_path: Path) -> None:
    tone = (0.3 * np.sin(np.arange(48_000 * 8) / 20)).astype(np.float32)
    data = streams_file("mp4", [("aac", resampled(speech(), 48_000), 48_000), ("aac", tone, 48_000)])
    _, pcm = await decoded(data, tmp_path)
    assert similarity(pcm, speech()) > 0.98


async def test_an_mp4_with_its_index_first_or_in_fragments_is_decoded(tmp_path: Path) -> None:
    for flags in ("faststart", "frag_keyframe+empty_moov+default_base_moof"):
        (folder := tmp_path / flags).mkdir()
        data = encoded("mp4", "aac", resampled(speech(), 44_100), 44_100, options={"movflags": flags})
        result, pcm = await decoded(data, folder)
        assert not result.is_truncated
        assert result.seconds == pytest.approx(8.0, abs=0.06)
        assert similarity(pcm, speech()) > 0.98
