"""Measures how much CPU time decoding of media files costs, in the child process that does it.

    python benchmarks/media.py --minutes 60

Every format is encoded from the sample recording, repeated. The time for starting the child is measured with a file of
a tenth of a second, and is not part of the other figures.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.provenance import commit, load, machine
from tests.media_files import SPEECH_RATE, EncoderMissing, Samples, encoded, pcm16, resampled, speech, wav
from worker.media.decode import decode
from worker.media.scratch import Scratch

FORMATS = [
    ("wav, 16 kHz mono", "wav", "", 16_000, 1),
    ("wav, 48 kHz stereo", "wav", "pcm_s16le", 48_000, 2),
    ("flac, 44.1 kHz stereo", "flac", "flac", 44_100, 2),
    ("flac, 192 kHz stereo", "flac", "flac", 192_000, 2),
    ("m4a, alac, 44.1 kHz stereo", "ipod", "alac", 44_100, 2),
    ("m4a, aac, 44.1 kHz stereo", "ipod", "aac", 44_100, 2),
    ("m4a, aac, 44.1 kHz mono", "ipod", "aac", 44_100, 1),
    ("mp3, 44.1 kHz stereo", "mp3", "libmp3lame", 44_100, 2),
    ("mp3, 44.1 kHz mono", "mp3", "libmp3lame", 44_100, 1),
    ("ogg, vorbis, 44.1 kHz stereo", "ogg", "vorbis", 44_100, 2),
    ("ogg, opus, 48 kHz stereo", "ogg", "libopus", 48_000, 2),
    ("webm, opus, 48 kHz mono", "webm", "libopus", 48_000, 1),
    ("amr, 8 kHz mono", "amr", "libopencore_amrnb", 8_000, 1),
]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="of audio in each file")
    options = parser.parse_args()
    print(f"{machine()}, {load()}; commit {commit()}\n")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), options.minutes * 60))


async def _measure(folder: Path, seconds: float) -> None:
    short = wav(pcm16(speech(0.1)))
    starts = sorted([await _cost(folder, short) for _ in range(9)])
    started, _ = starts[len(starts) // 2]
    wall = min([await _wall(folder, short) for _ in range(9)])
    print(f"start: {started:.2f} CPU s, {wall:.2f} s\n")
    print("| file | CPU s per hour of audio | audio s per CPU s |\n|---|---|---|")
    recording = np.tile(speech(29.0), int(seconds / 29) + 1)[: int(seconds * SPEECH_RATE)]
    for name, container, codec, rate, channels in FORMATS:
        try:
            data = _file(recording, container, codec, rate, channels)
        except EncoderMissing:
            continue
        cpu, audio = await _cost(folder, data)
        cpu -= started
        print(f"| {name} | {cpu / audio * 3600:.1f} | {audio / cpu:.0f} |", flush=True)


def _file(recording: Samples, container: str, codec: str, rate: int, channels: int) -> bytes:
    samples = resampled(recording, rate)
    if channels == 2:
        samples = np.stack([samples, samples * 0.5], axis=1)
    if not codec:
        return wav(pcm16(samples))
    return encoded(container, codec, samples, rate, codec_options={"strict": "experimental"})


async def _cost(folder: Path, data: bytes) -> tuple[float, float]:
    """CPU seconds of the child, and seconds of audio."""
    source, output = folder / "source", folder / "output"
    source.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    decoded = await decode(source, output, Scratch(folder, 1 << 40, 0))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    output.unlink()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, decoded.seconds


async def _wall(folder: Path, data: bytes) -> float:
    began = time.monotonic()
    await _cost(folder, data)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
