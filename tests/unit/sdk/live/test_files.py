"""Audio in common formats: encoded by ffmpeg or libsndfile, read by any installed decoder."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dalston import InvalidRequest
from dalston.live.files import FileAudio, open_file

from tests.unit.sdk.live.test_wav import chunk, fmt

FFMPEG = shutil.which("ffmpeg")
SECONDS = 2
RATE = 16_000
WAVE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * RATE) / RATE)

WAVS = {
    "8-bit": ("PCM_U8", RATE, 1),
    "24-bit": ("PCM_24", RATE, 1),
    "32-bit": ("PCM_32", RATE, 2),
    "double": ("DOUBLE", RATE, 1),
    "96 kHz": ("PCM_24", 96_000, 2),
    "5.1": ("PCM_16", 48_000, 6),
}
BY_FFMPEG = {
    "m4a": ["-c:a", "aac"],
    "webm": ["-c:a", "libopus"],
    "mka": ["-c:a", "pcm_s16be"],
    "wma": ["-c:a", "wmav2"],
    "wav": ["-c:a", "adpcm_ms"],
    "mp4": ["-c:a", "aac", "-movflags", "+faststart"],
}
BY_SNDFILE = {"flac": "PCM_16", "mp3": "MPEG_LAYER_III", "ogg": "VORBIS", "aiff": "PCM_24", "caf": "PCM_16"}


class Pipe:
    """A file that is not seekable and returns few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 999))


def read(audio: FileAudio) -> np.ndarray:
    content = b"".join(audio.pieces)
    if audio.format.encoding == "pcm_f32le":
        return np.frombuffer(content, "<f4").reshape(-1, audio.format.channels)
    return np.frombuffer(content, "<i2").reshape(-1, audio.format.channels) / 32768


def read_path(path: Path) -> tuple[FileAudio, np.ndarray]:
    with path.open("rb") as file:
        audio = open_file(file, path)
        return audio, read(audio)


def check_tone(audio: FileAudio, out: np.ndarray) -> None:
    assert len(out) / audio.format.sample_rate == pytest.approx(SECONDS, abs=0.15)
    middle = out[len(out) // 4 : len(out) // 4 * 3, 0]
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) * audio.format.sample_rate / len(middle) == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    soundfile.write(folder / "tone.wav", WAVE, RATE, "PCM_16")
    for kind, subtype in BY_SNDFILE.items():
        soundfile.write(folder / f"tone.{kind}", WAVE, RATE, subtype)
    return folder


@pytest.fixture
def without_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("av", "soundfile"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)


@pytest.fixture(params=["av", "soundfile", "ffmpeg"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only decoder that the test can use."""
    name = str(request.param)
    if name == "ffmpeg" and FFMPEG is None:
        pytest.skip("ffmpeg is not installed here")
    for other in {"av", "soundfile"} - {name}:
        monkeypatch.setitem(sys.modules, other, None)
    if name != "ffmpeg":
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    return name


def by_ffmpeg(folder: Path, kind: str) -> Path:
    if FFMPEG is None:
        pytest.skip("ffmpeg is not installed here")
    path = folder / f"made.{kind}"
    if not path.exists():
        command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(folder / "tone.wav"), *BY_FFMPEG[kind], str(path)]
        subprocess.run(command, check=True, timeout=30)
    return path


@pytest.mark.usefixtures("without_decoders")
@pytest.mark.parametrize("kind", WAVS)
def test_every_kind_of_wav_needs_no_decoder(kind: str, tmp_path: Path) -> None:
    subtype, rate, channels = WAVS[kind]
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * rate) / rate)
    file = io.BytesIO()
    soundfile.write(file, np.stack([wave] * channels, 1), rate, subtype, format="WAV")
    for opened in (io.BytesIO(file.getvalue()), Pipe(file.getvalue())):
        audio = open_file(opened, None)  # type: ignore[arg-type]
        assert audio.seconds == SECONDS
        check_tone(audio, read(audio))
        assert not audio.warnings


@pytest.mark.parametrize("kind", BY_SNDFILE)
def test_files_are_read_by_any_installed_decoder(kind: str, folder: Path, decoder: str) -> None:
    check_tone(*read_path(folder / f"tone.{kind}"))


@pytest.mark.parametrize("kind", BY_FFMPEG)
def test_containers_are_read_by_pyav_or_ffmpeg(kind: str, folder: Path, decoder: str) -> None:
    path = by_ffmpeg(folder, kind)
    if decoder == "soundfile" and kind != "wav":
        with pytest.raises(InvalidRequest, match="install ffmpeg, or the Python package PyAV: pip install av"):
            read_path(path)
    else:
        check_tone(*read_path(path))


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg"])
@pytest.mark.parametrize("only", ["av", "ffmpeg"])
def test_pipe_is_read_like_a_file(kind: str, only: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if only == "ffmpeg":
        if FFMPEG is None:
            pytest.skip("ffmpeg is not installed here")
        monkeypatch.setitem(sys.modules, "av", None)
    audio = open_file(Pipe((folder / f"tone.{kind}").read_bytes()), None)  # type: ignore[arg-type]
    check_tone(audio, read(audio))


@pytest.mark.parametrize("only", ["av", "ffmpeg"])
@pytest.mark.parametrize("kind", ["m4a", "mp4"])
def test_mp4_is_read_from_a_pipe_wherever_its_index_is(
    kind: str, only: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = by_ffmpeg(folder, kind).read_bytes()
    assert (content.index(b"moov") < content.index(b"mdat")) == (kind == "mp4")
    # Longer than libav's buffer for pipes, so that it cannot seek back.
    size = 200_000
    filler = (size + 8).to_bytes(4, "big") + b"free" + bytes(size)
    if kind == "m4a":
        position = content.index(b"moov") - 4
        content = content[:position] + filler + content[position:]
    if only == "ffmpeg":
        monkeypatch.setitem(sys.modules, "av", None)
    audio = open_file(Pipe(content), None)  # type: ignore[arg-type]
    check_tone(audio, read(audio))


def test_file_format_is_detected_by_content_not_by_name(folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "-i speech.wav"
    shutil.copyfile(folder / "tone.flac", renamed)
    check_tone(*read_path(renamed))


@pytest.mark.usefixtures("without_decoders")
def test_truncated_file_is_read_with_a_warning(folder: Path) -> None:
    whole = (folder / "tone.wav").read_bytes()
    audio = open_file(io.BytesIO(whole[: len(whole) // 2]), None)
    assert len(read(audio)) == pytest.approx(RATE, abs=50)
    (warned,) = audio.warnings
    assert warned.code == "truncated_audio"
    assert float(warned.details["missing_seconds"]) == pytest.approx(1.0, abs=0.01)
    assert "ends 1.0 s before" in warned.message


@pytest.mark.usefixtures("without_decoders")
def test_wav_file_without_audio_yields_none_despite_later_chunks() -> None:
    content = b"WAVE" + fmt(1, 1, RATE, 16) + chunk(b"data", b"") + chunk(b"LIST", b"INFO" + b"q" * 3000)
    audio = open_file(io.BytesIO(b"RIFF" + len(content).to_bytes(4, "little") + content), None)
    assert list(audio.pieces) == []
    assert [warned.code for warned in audio.warnings] == ["no_audio"]


@pytest.mark.parametrize("only", ["av", "ffmpeg"])
def test_damaged_file_is_read_as_far_as_possible_with_a_warning(
    only: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if only == "ffmpeg":
        if FFMPEG is None:
            pytest.skip("ffmpeg is not installed here")
        for name in ("av", "soundfile"):
            monkeypatch.setitem(sys.modules, name, None)
    content = (folder / "tone.flac").read_bytes()
    audio = open_file(Pipe(content[: len(content) * 2 // 3]), None)  # type: ignore[arg-type]
    assert 0.5 * RATE < len(read(audio)) < 1.5 * RATE
    assert [warned.code for warned in audio.warnings] == ["damaged_audio"]
    assert "\n" not in audio.warnings[0].message


@pytest.mark.parametrize("only", ["av", "ffmpeg"])
def test_gap_in_a_file_is_filled_with_silence(
    only: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if FFMPEG is None:
        pytest.skip("ffmpeg is not installed here")
    path = tmp_path / "gap.mka"
    gap = ["-af", "aselect=lt(t\\,0.8)+gt(t\\,1.3)", "-c:a", "pcm_s16le"]
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(folder / "tone.wav"), *gap, str(path)]
    subprocess.run(command, check=True, timeout=30)
    if only == "ffmpeg":
        for name in ("av", "soundfile"):
            monkeypatch.setitem(sys.modules, name, None)
    audio, out = read_path(path)
    assert len(out) == pytest.approx(SECONDS * RATE, abs=200)
    assert np.abs(out[RATE : round(1.2 * RATE)]).max() < 0.01
    assert np.abs(out[round(1.5 * RATE) :]).max() == pytest.approx(0.5, abs=0.01)
    assert [warned.code for warned in audio.warnings] == (["damaged_audio"] if only == "av" else [])


def test_noise_and_text_are_rejected(decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "noise.mp3"
    noise = np.random.default_rng(7).integers(0, 256, 50_000, "u1").tobytes()
    for content in (noise, b"# Notes\n" * 1000, b"RIFF" + noise, b"x"):
        path.write_bytes(content)
        with pytest.raises(InvalidRequest) as refused, path.open("rb") as file:
            open_file(file, path)
        assert refused.value.reason == "INVALID_AUDIO"


def test_playlist_reads_no_other_file(folder: Path, decoder: str, tmp_path: Path) -> None:
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nfile://{folder}/tone.mp3\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{folder}/tone.wav'\n",
    }
    for name, content in lists.items():
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(InvalidRequest):
            read_path(path)


@pytest.mark.usefixtures("without_decoders")
def test_missing_decoder_error_names_what_to_install(folder: Path) -> None:
    expected = "transcribe_file takes it as it is; to stream it, install ffmpeg, or the Python package PyAV"
    with pytest.raises(InvalidRequest, match=expected):
        read_path(folder / "tone.flac")


def test_interrupted_decoding_leaves_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if FFMPEG is None:
        pytest.skip("ffmpeg is not installed here")
    for name in ("av", "soundfile"):
        monkeypatch.setitem(sys.modules, name, None)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def recording(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recording)
    with (folder / "tone.mp3").open("rb") as file:
        audio = open_file(file, folder / "tone.mp3")
        next(iter(audio.pieces))
        assert audio.interrupt is not None
        audio.interrupt()
    assert [process.returncode is not None for process in started] == [True]
