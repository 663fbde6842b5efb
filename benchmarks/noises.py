"""Synthetic sounds without speech, generated from a seed: the same on every machine."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from speech import RATE, Samples, sample_clips

BABBLE = "babble"
"""The only kind that is made of speech."""
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 28.0
QUIETEST_DECIBEL, LOUDEST_DECIBEL = -60.0, -12.0
"""Root mean square of a sound, relative to full scale; silence is quieter."""
DTMF_LOW, DTMF_HIGH = (697, 770, 852, 941), (1209, 1336, 1477, 1633)

Wave = NDArray[np.float64]
Random = np.random.Generator
Make = Callable[[Random, int], Wave]
"""Generates so many samples, at any level."""


@dataclass(frozen=True)
class Sound:
    kind: str
    samples: Samples
    """Mono, 16 kHz."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def sounds(seed: int, each: int) -> list[Sound]:
    """`each` sounds of each kind, with lengths and levels that are uniform on a logarithmic scale."""
    return [_sound(kind, [seed, zlib.crc32(kind.encode()), number]) for kind in KINDS for number in range(each)]


def noisy(samples: Samples, decibel: float, seed: list[int]) -> Samples:
    """The recording with pink noise under it, `decibel` below its mean power."""
    speech = samples.astype(np.float64)
    noise = _coloured(np.random.default_rng(seed), len(speech), 0.5)
    scale = math.sqrt(float(np.mean(speech**2) / np.mean(noise**2))) * 10 ** (-decibel / 20)
    return np.round(np.clip(speech + scale * noise, -32768, 32767)).astype(np.int16)


def _sound(kind: str, seed: list[int]) -> Sound:
    random = np.random.default_rng(seed)
    seconds = math.exp(random.uniform(math.log(SHORTEST_SECONDS), math.log(LONGEST_SECONDS)))
    wave = KINDS[kind](random, int(seconds * RATE))
    if kind != "silence":
        decibel = random.uniform(QUIETEST_DECIBEL, LOUDEST_DECIBEL)
        wave = wave / (math.sqrt(float(np.mean(wave**2))) + 1e-12) * 10 ** (decibel / 20)
    return Sound(kind, np.round(np.clip(wave, -1.0, 32767 / 32768) * 32768).astype(np.int16))


def _silence(random: Random, count: int) -> Wave:
    """Digital silence, silence with a constant offset, and silence whose last bit flickers."""
    offset = random.choice([0.0, random.uniform(-0.05, 0.05)])
    flicker = random.choice([0.0, 1.0])
    return offset + flicker * random.integers(-1, 2, count) / 32768


def _coloured(random: Random, count: int, slope: float) -> Wave:
    """Noise whose amplitude falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    return np.fft.irfft(spectrum / np.maximum(frequencies, 20.0) ** slope, count)


def _band(random: Random, count: int, low: float, high: float) -> Wave:
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    return np.fft.irfft(spectrum, count)


def _slow(random: Random, count: int, hertz: float) -> Wave:
    """A curve that varies between 0 and 1, at about this frequency."""
    points = random.uniform(0, 1, max(2, int(count / RATE * hertz) + 2))
    return np.interp(np.linspace(0, len(points) - 1, count), np.arange(len(points)), points)


def _hum(random: Random, count: int) -> Wave:
    mains, time = random.choice([50.0, 60.0]), np.arange(count) / RATE
    wave = sum(
        random.uniform(0.2, 1) / number * np.sin(2 * np.pi * mains * number * time + random.uniform(0, 2 * np.pi))
        for number in range(1, 16)
    )
    return wave + random.uniform(0, 0.1) * random.standard_normal(count)


def _tone(random: Random, count: int) -> Wave:
    """One or two tones, steady or intermittent like a telephone's."""
    time, wave = np.arange(count) / RATE, np.zeros(count)
    for hertz in np.exp(random.uniform(math.log(80), math.log(6000), random.integers(1, 3))):
        wave += np.sin(2 * np.pi * hertz * time)
    period = random.choice([0.0, 0.5, 1.0, 4.0])
    return wave * (time % period < period / 2) if period else wave


def _chirp(random: Random, count: int) -> Wave:
    """Sweeps up and down, at the rate of a siren or slower."""
    low, high = sorted(np.exp(random.uniform(math.log(80), math.log(6000), 2)))
    place = (1 + np.sin(2 * np.pi * random.uniform(0.1, 4) * np.arange(count) / RATE)) / 2
    return np.sin(2 * np.pi * np.cumsum(low * (high / low) ** place) / RATE)


def _dtmf(random: Random, count: int) -> Wave:
    wave = np.zeros(count)
    length, gap = int(random.uniform(0.06, 0.3) * RATE), int(random.uniform(0.05, 0.6) * RATE)
    for start in range(0, count, length + gap):
        time = np.arange(min(length, count - start)) / RATE
        keys = random.choice(DTMF_LOW), random.choice(DTMF_HIGH)
        wave[start : start + len(time)] = sum(np.sin(2 * np.pi * hertz * time) for hertz in keys)
    return wave


def _struck(random: Random, count: int, starts: NDArray[np.int64], strike: Callable[[], Wave]) -> Wave:
    """A struck sound at each start, which decays beyond the next one."""
    wave = np.zeros(count)
    for start in starts[starts < count]:
        hit = strike()[: count - start]
        wave[start : start + len(hit)] += random.uniform(0.3, 1) * hit
    return wave


def _ring(random: Random, seconds: float, wave: Callable[[Wave], Wave]) -> Wave:
    """A sound that rises within milliseconds and decays."""
    time = np.arange(int(seconds * RATE)) / RATE
    return wave(time) * np.minimum(1, time / random.uniform(0.002, 0.05)) * np.exp(-5 * time / seconds)


def _clicks(random: Random, count: int) -> Wave:
    """Single wrong samples, and short bursts of noise."""
    starts = np.flatnonzero(random.uniform(0, 1, count) < random.uniform(0.5, 20) / RATE)
    length = random.choice([0.0005, 0.003, 0.01])
    return _struck(random, count, starts, lambda: _noise_hit(random, length)) + 1e-5 * random.standard_normal(count)


def _keyboard(random: Random, count: int) -> Wave:
    """Keys that are pressed and released in the rhythm of typing, with the noise of a room."""
    gaps = random.gamma(2.0, random.uniform(0.06, 0.2), int(count / RATE * 12) + 2)
    down = (np.cumsum(gaps) * RATE).astype(np.int64)
    starts = np.sort(np.concatenate([down, down + int(0.08 * RATE)]))
    keys = _struck(random, count, starts, lambda: _noise_hit(random, random.uniform(0.01, 0.04)))
    return keys + random.uniform(0, 0.01) * random.standard_normal(count)


def _noise_hit(random: Random, seconds: float) -> Wave:
    length = max(2, int(seconds * RATE))
    return random.standard_normal(length) * np.exp(-5 * np.arange(length) / length)


def _note(random: Random, hertz: float, seconds: float) -> Wave:
    fall, overtones = random.uniform(0.5, 2), range(1, random.integers(2, 9))
    return _ring(
        random,
        seconds,
        lambda time: sum((np.sin(2 * np.pi * hertz * n * time) / n**fall for n in overtones), np.zeros(len(time))),
    )


def _pitch(random: Random) -> float:
    """A note of a minor pentatonic scale, over four octaves."""
    return float(110 * 2 ** ((random.choice([0, 3, 5, 7, 10]) + 12 * random.integers(0, 4)) / 12))


def _chords(random: Random, count: int) -> Wave:
    beat = random.uniform(0.5, 2.0)

    def strike() -> Wave:
        root = _pitch(random)
        third = random.choice([3, 4])
        return sum(
            (_note(random, root * 2 ** (step / 12), 2 * beat) for step in (third, 7)), _note(random, root, 2 * beat)
        )

    return _struck(random, count, np.arange(0, count, int(beat * RATE)), strike)


def _arpeggio(random: Random, count: int) -> Wave:
    beat = random.uniform(0.08, 0.4)
    return _struck(
        random, count, np.arange(0, count, int(beat * RATE)), lambda: _note(random, _pitch(random), 4 * beat)
    )


def _drums(random: Random, count: int) -> Wave:
    """A bass drum, a snare and a hi-hat, each on its own beats."""
    beat = int(random.uniform(0.2, 0.5) * RATE)
    starts = np.arange(0, count, beat)
    low = _struck(random, count, starts[::2], lambda: _ring(random, 0.4, lambda t: np.sin(2 * np.pi * 60 * t)))
    snare = _band(random, RATE, 200, 5000)
    hat = _band(random, RATE, 5000, 7900)
    return (
        low
        + _struck(random, count, starts[1::2], lambda: snare[:3000] * np.exp(-np.arange(3000) / 600) * 20)
        + _struck(random, count, starts, lambda: hat[:1000] * np.exp(-np.arange(1000) / 200) * 5)
    )


def _music(random: Random, count: int) -> Wave:
    """Chords, arpeggio and drums together."""
    wave = np.zeros(count)
    for part in (_chords, _arpeggio, _drums):
        found = part(random, count)
        wave += random.uniform(0.2, 1) * found / (np.abs(found).max() + 1e-12)
    return wave


def _wind(random: Random, count: int) -> Wave:
    """Gusts: low-frequency noise of varying level, and a whistle."""
    gusts = _coloured(random, count, 1.0)
    low = random.uniform(200, 1000)
    whistle = _band(random, count, low, low * 1.3)
    return gusts / np.abs(gusts).max() * _slow(random, count, 1.0) + random.uniform(0, 0.5) * whistle * _slow(
        random, count, 2.0
    )


def _babble(random: Random, count: int) -> Wave:
    """Pieces of the sample recording, reversed and overlaid."""
    speech = np.concatenate([clip.samples for clip in sample_clips()]).astype(np.float64)[::-1]
    wave = np.zeros(count)
    for _ in range(int(random.integers(6, 20))):
        position = 0
        while position < count:
            length = int(random.uniform(0.1, 0.6) * RATE)
            start = int(random.integers(0, len(speech) - length))
            piece = speech[start : start + length][: count - position]
            wave[position : position + len(piece)] += piece * np.hanning(len(piece))
            position += length
    return wave


KINDS: dict[str, Make] = {
    "silence": _silence,
    "white noise": partial(_coloured, slope=0.0),
    "pink noise": partial(_coloured, slope=0.5),
    "brown noise": partial(_coloured, slope=1.0),
    "hum": _hum,
    "tone": _tone,
    "chirp": _chirp,
    "dtmf": _dtmf,
    "clicks": _clicks,
    "keyboard": _keyboard,
    "chords": _chords,
    "arpeggio": _arpeggio,
    "drums": _drums,
    "music": _music,
    "wind": _wind,
    BABBLE: _babble,
}
