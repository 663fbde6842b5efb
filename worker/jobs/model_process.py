"""The process of the models as jobs call it, and recordings as it reads them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeVar

from domain.job import JobRequest
from domain.transcript import Utterance
from server.audio.decoder import MODEL_RATE, Samples
from telemetry.logs import get_logger
from worker.jobs import metrics
from worker.jobs.interruption import Interruption, Stopped
from worker.model import messages
from worker.model.hanging import LOOK_SECONDS, Hanging
from worker.model.messages import Disconnected, Message, NotAMessage
from worker.model.process import Child, Start

log = get_logger(__name__)

T = TypeVar("T")

Phase = Literal["loading", "idle", "call"]
"""What the process does."""

_LONGEST_READ: Final = 600 * MODEL_RATE
"""Samples of one answer."""


class ModelUnavailable(Exception):
    """The process could not be started, or could not load the models: nothing of a job is to blame."""


class ModelDied(Exception):
    """The process ended during the call."""


class RecognitionFailed(Exception):
    """The call ended with an error in the process. Its traceback is a note of the exception."""


class JobAudio:
    """A recording that the process of the models reads in ranges."""

    def __init__(self, length: int, read: Callable[[int, int], Awaitable[Samples]], interruption: Interruption) -> None:
        """
        Args:
            length: samples at 16 kHz.
            read: reads the samples from one to another; its errors end the call.
            interruption: the end of the worker.
        """
        self.length = length
        self._read = read
        self._interruption = interruption

    async def read(self, first: int, last: int) -> Samples:
        """The samples from `first` to the one before `last`; shape [n].

        Raises:
            Stopped: the worker stops.
            ValueError: the range is none, or too long.
        """
        if not 0 <= last - first <= _LONGEST_READ:
            raise ValueError(f"{last - first} samples were asked for at once")
        return await _unless_stopped(self._interruption, self._read(first, last))


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """A plan of the recognizer in the process."""

    json: Any
    """Of `Plan.to_json`."""
    language: str
    ends: tuple[float, ...]

    def to_json(self) -> Any:
        """The plan as JSON, from which `ModelProcess.plan_of` makes it again."""
        return self.json


@dataclass(frozen=True, slots=True)
class RemoteJudgement:
    """A judgement of the recognizer in the process."""

    outcome: Literal["accepted", "doubtful", "no_speech"]
    reason: str
    defect: str | None


class ModelProcess:
    """The recognizer in a child process: one call at a time, in the order in which they were made. Jobs take turns.

    The process starts with the first call, so that a worker without jobs needs little memory, and again with the next
    call after it has died. It is also replaced after an error in it, because nobody knows what state that left. The
    methods raise:

        ModelUnavailable: there is no process that has loaded the models.
        ModelDied: it ended during the call.
        RecognitionFailed: the call ended with an error in it.
        Stopped: the worker stops.

    A call that is cancelled ends the process.
    """

    def __init__(self, start: Start, interruption: Interruption) -> None:
        """
        Args:
            start: starts a process.
            interruption: the end of the worker.
        """
        self._start = start
        self._interruption = interruption
        self._turn = asyncio.Lock()
        self._conversation: _Conversation | None = None
        self._is_failing = False

    @property
    def is_failing(self) -> bool:
        """Whether the process has died, or could not load the models, and no call has succeeded since."""
        return self._is_failing

    async def models(self) -> frozenset[str]:
        """The names that a job may request."""
        async with self._turn:
            with self._noting_failures():
                return (await self._ready()).models

    async def supports(self, model: str, language: str) -> bool:
        """Whether the model exists and transcribes the language, ISO 639-1 or `auto`."""
        return bool(await self._call({"type": "supports", "model": model, "language": language}))

    async def plan_of(self, json: Any) -> RemotePlan:
        """The plan of `RemotePlan.to_json`.

        Raises:
            ValueError: it is none, for example that of another release.
        """
        found = await self._call({"type": "plan_of", "plan": json})
        if found is None:
            raise ValueError("not a plan")
        return _plan(found)

    async def listen(self, request: JobRequest, audio: JobAudio) -> RemotePlan:
        """Processes the whole recording once. Errors of reading are passed on."""
        call = {"type": "listen", "request": messages.request_to_json(request), "length": audio.length}
        return _plan(await self._call(call, audio))

    async def recognize(self, request: JobRequest, plan: RemotePlan, number: int, audio: JobAudio) -> list[Utterance]:
        """The utterances of a window of the plan; times in seconds from the start of the recording.

        Errors of reading are passed on.
        """
        call = {
            "type": "recognize",
            "request": messages.request_to_json(request),
            "plan": plan.json,
            "number": number,
            "length": audio.length,
        }
        return messages.utterances_from_json(await self._call(call, audio))

    async def judge(
        self, plan: RemotePlan, new: Sequence[Utterance], live: Sequence[Utterance], session_language: str
    ) -> RemoteJudgement:
        """Whether a transcript may become the current one. `live` is empty if there is no live transcript."""
        call = {
            "type": "judge",
            "plan": plan.json,
            "new": messages.utterances_to_json(new),
            "live": messages.utterances_to_json(live),
            "session_language": session_language,
        }
        return RemoteJudgement(**await self._call(call))

    async def close(self) -> None:
        """Ends the process, with the call in progress. No other is to follow."""
        if self._conversation is not None:
            await self._conversation.end()

    async def _call(self, call: dict[str, Any], audio: JobAudio | None = None) -> Any:
        async with self._turn:
            with self._noting_failures():
                return await self._call_in_turn(call, audio)

    async def _call_in_turn(self, call: dict[str, Any], audio: JobAudio | None) -> Any:
        conversation = await self._ready()
        try:
            return await conversation.call(call, audio)
        except _Unread as unread:
            raise unread.error from None
        except (Disconnected, NotAMessage) as error:
            raise ModelDied(f"the process of the model ended: {await conversation.died()}") from error
        except BaseException:
            await conversation.end()
            raise

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            yield
        except (ModelDied, ModelUnavailable):
            self._is_failing = True
            raise
        self._is_failing = False

    async def _ready(self) -> "_Conversation":
        """The conversation with a process that has loaded the models."""
        if self._conversation is not None:
            if self._conversation.is_alive:
                return self._conversation
            await self._conversation.end()
        self._interruption.check()
        log.info("starting the process of the model")
        try:
            self._conversation = conversation = await _Conversation.begin(self._start())
        except OSError as error:
            raise ModelUnavailable(f"the process of the model cannot be started: {error.strerror}") from error
        try:
            await _unless_stopped(self._interruption, conversation.load())
        except (Disconnected, NotAMessage) as error:
            how = await conversation.died()
            raise ModelUnavailable(f"the process of the model ended while it loaded the models: {how}") from error
        except BaseException:
            await conversation.end()
            raise
        return conversation


class _Unread(Exception):
    """The recording could not be read. The call has ended, and the process is ready for the next one."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Conversation:
    """A process, and the messages to and from it."""

    def __init__(self, child: Child, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.models: frozenset[str] = frozenset()
        self._child = child
        self._reader = reader
        self._writer = writer
        self._phase: Phase = "loading"
        self._is_ending = False
        self._watching = asyncio.create_task(self._watch(), name="end of the process of the model")

    @classmethod
    async def begin(cls, child: Child) -> Self:
        """Takes over a process that was started."""
        try:
            reader, writer = await asyncio.open_unix_connection(sock=child.connection)
        except BaseException:
            child.kill()
            child.connection.close()
            await asyncio.shield(child.wait())
            raise
        return cls(child, reader, writer)

    @property
    def is_alive(self) -> bool:
        """Whether it may be called."""
        return not (self._is_ending or self._watching.done() or self._reader.at_eof())

    async def load(self) -> None:
        """Waits until the models are loaded. There is no deadline: the weights may be downloaded first.

        Raises:
            ModelUnavailable: they cannot be loaded.
            Disconnected, NotAMessage: the process has ended.
        """
        answer = await messages.receive(self._reader)
        if answer.type != "ready":
            raise ModelUnavailable(f"the models cannot be loaded: {answer.fields.get('error')}")
        self.models = frozenset(answer.fields["models"])
        self._phase = "idle"

    async def call(self, call: dict[str, Any], audio: JobAudio | None) -> Any:
        """Makes a call and answers its requests for samples. Returns its result.

        Raises:
            _Unread, ModelDied, RecognitionFailed, Stopped: see there.
            Disconnected, NotAMessage: the process has ended.
        """
        self._phase = "call"
        await self._send(Message(call))
        unread: Exception | None = None
        while (answer := await self._answer()).type == "read" and audio is not None:
            try:
                samples = await audio.read(answer.fields["first"], answer.fields["last"])
            except Stopped:
                raise
            except Exception as error:
                unread = error
                await self._send(Message({"type": "refused"}))
            else:
                await self._send(Message({"type": "samples"}, samples))
        if answer.type == "error":
            failed = RecognitionFailed(answer.fields.get("error"))
            failed.add_note(str(answer.fields.get("traceback")))
            raise failed
        self._phase = "idle"
        if unread is not None:
            raise _Unread(unread)
        if answer.type != "result":
            raise NotAMessage(f"a message {answer.type!r} instead of a result")
        return answer.fields["result"]

    async def died(self) -> str:
        """Waits for the end of a process that has closed the connection. Returns how it ended."""
        # It may live on without the connection.
        self._child.kill()
        self._writer.close()
        return await asyncio.shield(self._watching)

    async def end(self) -> None:
        """Kills the process, and waits until it is gone."""
        self._is_ending = True
        self._child.kill()
        self._writer.close()
        await asyncio.shield(self._watching)

    async def _send(self, message: Message) -> None:
        try:
            for part in message.encoded():
                self._writer.write(part)
            await self._writer.drain()
        except OSError as error:
            raise Disconnected from error

    async def _answer(self) -> Message:
        """The next message.

        Raises:
            ModelDied: the process hangs, and was killed.
        """
        hanging = Hanging(self._child.pid)
        receiving = asyncio.create_task(messages.receive(self._reader), name="answer of the model")
        try:
            while not (await asyncio.wait({receiving}, timeout=LOOK_SECONDS))[0]:
                if (how := hanging.look()) is not None:
                    log.error("the process of the model hangs", pid=self._child.pid, how=how)
                    receiving.cancel()
                    await self.died()
                    raise ModelDied(f"the process of the model {how}")
            return receiving.result()
        finally:
            receiving.cancel()

    async def _watch(self) -> str:
        how = await self._child.wait()
        if not self._is_ending:
            metrics.model_deaths.labels(self._phase).inc()
            log.error("the process of the model has died", pid=self._child.pid, how=how, phase=self._phase)
        return how


def _plan(found: Any) -> RemotePlan:
    return RemotePlan(found["json"], found["language"], tuple(found["ends"]))


async def _unless_stopped(interruption: Interruption, call: Awaitable[T]) -> T:
    """The result of a call, which is cancelled when the worker has to stop.

    Raises:
        Stopped: the worker has to stop.
    """
    calling = asyncio.ensure_future(call)
    stopping = asyncio.create_task(interruption.wait())
    try:
        await asyncio.wait({calling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        interruption.check()
        return calling.result()
    finally:
        stopping.cancel()
        if not calling.cancel() and not calling.cancelled():
            calling.exception()  # Otherwise asyncio logs that nobody has looked at it.
