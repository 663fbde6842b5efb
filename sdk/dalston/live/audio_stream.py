"""Where the audio comes from."""

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
class Source:
    """Audio that comes piece by piece."""

    format: AudioFormat
    pieces: AsyncIterator[bytes]
    """In pieces of any size."""
    recording: Recording | None = None
    """Of a microphone, which does not wait for whoever listens."""
    cleanup: list[Callable[[], None]] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    """What is wrong with it; complete when `pieces` are at their end."""
    seconds: float | None = None
    """How long it is, as far as can be told before it is read."""

    @property
    def is_live(self) -> bool:
        """Whether audio is lost that is not taken in time."""
        return self.recording is not None

    async def close(self) -> None:
        """Stops it, even in the middle."""
        if isinstance(self.pieces, AsyncGenerator):
            with suppress(RuntimeError):  # It is in the middle of a step that was cancelled.
                await self.pieces.aclose()
        for each in reversed(self.cleanup):
            each()


async def open_audio_stream(audio: AudioSource, asked: Mapping[str, Any]) -> Source:
    """Opens what `transcribe` was given.

    Args:
        asked: the options, of which `encoding`, `sample_rate` and `channels` count.

    Raises:
        InvalidRequest: it is of a kind that nothing here can read.
        OSError: the file cannot be read.
        TypeError, ValueError: it is no source of audio, or the options cannot be.
    """
    given = {name: asked[name] for name in ("encoding", "sample_rate", "channels") if name in asked}
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
        return Source(format_, aiter(audio))
    if isinstance(audio, Iterable):
        return Source(format_, in_thread(iter(audio)))
    raise TypeError(f"audio cannot come from {type(audio).__name__}")


async def _microphone(microphone: Microphone, given: Mapping[str, Any]) -> Source:
    if given:
        raise ValueError("rate, channels and encoding of a microphone are given to Microphone()")
    recording = await asyncio.to_thread(microphone.record)
    format_ = AudioFormat("pcm_s16le", microphone.sample_rate, microphone.channels)
    return Source(format_, in_thread(iter(recording)), recording, [recording.close])


async def _file(file: BinaryIO, given: Mapping[str, Any], path: Path | None = None) -> Source:
    if "encoding" in given:
        audio = open_raw(file, AudioFormat(**given))
    elif given:
        raise ValueError(f"{next(iter(given))} is for raw audio; that of a file is read from it")
    else:
        audio = await _on_thread(lambda: open_file(file, path), _let_go)
    cleanup = [audio.interrupt] if audio.interrupt is not None else []
    pieces = in_thread(audio.pieces, closes=True)
    return Source(audio.format, pieces, cleanup=cleanup, warnings=audio.warnings, seconds=audio.seconds)


def _let_go(audio: FileAudio) -> None:
    if audio.interrupt is not None:
        audio.interrupt()


async def _on_thread(function: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Calls a function that may wait for input that never comes, on a thread that holds up nobody, as in `in_thread`.

    Args:
        discard: takes the result if nobody waits for it any more.
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
        except BaseException as error:  # For whoever waits.
            failure = error
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=call, name="dalston audio", daemon=True).start()
    return await future


async def in_thread(items: Iterator[bytes], *, closes: bool = False) -> AsyncGenerator[bytes, None]:
    """Runs a blocking iterator on a thread of its own, one step at a time.

    Args:
        closes: whether the iterator is a generator that is closed at the end. The caller's own may be read further.

    The thread is a daemon: one that waits for input that never comes holds up neither the caller nor the interpreter.
    """
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[tuple[bytes | None, BaseException | None]] = asyncio.Queue()
    may_step = threading.Semaphore(0)
    stopped = threading.Event()

    def step() -> None:
        while True:
            may_step.acquire()
            if stopped.is_set():
                # Here, and not where it is stopped: what it holds may be in use by the step that runs.
                if closes and isinstance(items, Generator):
                    with suppress(Exception):
                        items.close()
                return
            result: tuple[bytes | None, BaseException | None]
            try:
                result = (next(items, None), None)
            except BaseException as error:  # The caller's own, for the caller.
                result = (None, error)
            with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
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
