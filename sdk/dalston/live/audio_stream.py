"""Audio sources of any type as asynchronous streams of bytes."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from dalston.events import Warned
from dalston.live.audio_format import AudioFormat
from dalston.live.files import FileAudio, open_file, open_raw
from dalston.microphone import Microphone, Recording
from dalston.options import AudioSource

T = TypeVar("T")


@dataclass(frozen=True)
class AudioStream:
    """An opened audio source."""

    format: AudioFormat
    pieces: AsyncIterator[bytes]
    """Pieces of any size."""
    recording: Recording | None = None
    """Set for a microphone, which does not wait for its reader."""
    cleanup: list[Callable[[], None]] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    """Defects of the audio; complete when `pieces` are exhausted."""
    seconds: float | None = None
    """Length in seconds if it is known before reading."""

    @property
    def is_live(self) -> bool:
        """Whether audio that is not read in time is lost."""
        return self.recording is not None

    async def close(self) -> None:
        """Stops the source, even in the middle."""
        if isinstance(self.pieces, AsyncGenerator):
            with suppress(RuntimeError):  # A step of it was cancelled while it ran.
                await self.pieces.aclose()
        for each in reversed(self.cleanup):
            each()


async def open_audio_stream(audio: AudioSource, requested: Mapping[str, Any]) -> AudioStream:
    """Opens the audio argument of `transcribe`.

    Args:
        requested: the options; `encoding`, `sample_rate` and `channels` are used.

    Raises:
        InvalidRequest: no installed decoder can read the audio.
        OSError: the file cannot be read.
        TypeError, ValueError: the argument is not an audio source, or the options are invalid.
    """
    given = {name: requested[name] for name in ("encoding", "sample_rate", "channels") if name in requested}
    if isinstance(audio, Microphone):
        return await _microphone(audio, given)
    if isinstance(audio, bytes | bytearray | memoryview):
        return await _file(io.BytesIO(audio), given)
    if isinstance(audio, str | os.PathLike):
        path = Path(audio)
        file = await asyncio.to_thread(path.open, "rb")
        try:
            source = await _file(file, given, path if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None)
        except BaseException:
            file.close()
            raise
        source.cleanup.append(file.close)
        return source
    if hasattr(audio, "read"):
        return await _file(cast(BinaryIO, audio), given)
    format_ = AudioFormat(**given)
    if isinstance(audio, AsyncIterable):
        return AudioStream(format_, aiter(audio))
    if isinstance(audio, Iterable):
        return AudioStream(format_, iterate_in_thread(iter(audio)))
    raise TypeError(f"{type(audio).__name__} is not an audio source")


async def _microphone(microphone: Microphone, given: Mapping[str, Any]) -> AudioStream:
    if given:
        raise ValueError("set the sample rate and channels of a microphone in Microphone()")
    recording = await asyncio.to_thread(microphone.record)
    format_ = AudioFormat("pcm_s16le", microphone.sample_rate, microphone.channels)
    return AudioStream(format_, iterate_in_thread(iter(recording)), recording, [recording.close])


async def _file(file: BinaryIO, given: Mapping[str, Any], path: Path | None = None) -> AudioStream:
    if "encoding" in given:
        audio = open_raw(file, AudioFormat(**given))
    elif given:
        raise ValueError(
            f"{next(iter(given))} is for raw audio, together with encoding; that of a file is read from the file"
        )
    else:
        audio = await _on_thread(lambda: open_file(file, path), _interrupt)
    cleanup = [audio.interrupt] if audio.interrupt is not None else []
    pieces = iterate_in_thread(audio.pieces, closes=True)
    return AudioStream(audio.format, pieces, cleanup=cleanup, warnings=audio.warnings, seconds=audio.seconds)


def _interrupt(audio: FileAudio) -> None:
    if audio.interrupt is not None:
        audio.interrupt()


async def _on_thread(function: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Calls a function that may block forever on input, on a daemon thread, as in `iterate_in_thread`.

    Args:
        discard: receives the result if the caller no longer waits for it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if error is not None and not future.cancelled():
            future.set_exception(error)
        elif error is None and future.cancelled():
            discard(cast(T, result))
        elif error is None:
            future.set_result(cast(T, result))

    def call() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:  # For the caller.
            failure = error
        with suppress(RuntimeError):  # The loop is closed, so the caller no longer waits.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=call, name="dalston audio", daemon=True).start()
    return await future


async def iterate_in_thread(items: Iterator[bytes], *, closes: bool = False) -> AsyncGenerator[bytes, None]:
    """Runs a blocking iterator on its own thread, one step at a time.

    Args:
        closes: whether to close the iterator, a generator, at the end. The caller may still read its own iterators.

    The thread is a daemon: while it blocks on input, it delays neither the caller nor the exit of the interpreter.
    """
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[tuple[bytes | None, BaseException | None]] = asyncio.Queue()
    may_step = threading.Semaphore(0)
    stopped = threading.Event()

    def step() -> None:
        while True:
            may_step.acquire()
            if stopped.is_set():
                # Closed on this thread, because a running step may still use the resources of the iterator.
                if closes and isinstance(items, Generator):
                    with suppress(Exception):
                        items.close()
                return
            result: tuple[bytes | None, BaseException | None]
            try:
                result = (next(items, None), None)
            except BaseException as error:  # An error of the caller's iterator is raised in the caller.
                result = (None, error)
            with suppress(RuntimeError):  # The loop is closed, so the caller no longer waits.
                loop.call_soon_threadsafe(results.put_nowait, result)

    threading.Thread(target=step, name="dalston audio", daemon=True).start()
    try:
        while True:
            may_step.release()
            item, error = await results.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        may_step.release()
