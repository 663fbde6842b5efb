"""The process of the models: `python -m worker.model.child JOB`, which the worker starts.

It does one call of the worker after the other, asks the worker for the samples that a call needs, and ends with the
worker. `JOB` is the JSON of `Job`.
"""

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from server.audio.decoder import Samples
from telemetry.logs import LogFormat, configure_logging, get_logger
from worker.media.sandbox import die_with_parent
from worker.model import messages
from worker.model.messages import Channel, Disconnected, Message
from worker.model.recognizer import Recognizer
from worker.priority import lower_process, lower_thread, prefer_for_out_of_memory

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """How the worker wants this process to be."""

    parent: int
    """Process id: this process ends when it is not that of its parent."""
    connection: int
    """The open socket of the conversation."""
    program: str
    """`module:function`, which loads the models and returns the recognizer."""
    priority: Literal["idle", "normal"]
    log_level: str
    log_format: LogFormat


class Refused(Exception):
    """The worker does not answer a request for samples: the call is to end."""


class PipedAudio:
    """A recording whose samples the worker sends."""

    def __init__(self, channel: Channel, length: int) -> None:
        self._channel = channel
        self.length = length
        """Samples at 16 kHz."""

    def read(self, first: int, last: int) -> Samples:
        """The samples from `first` to the one before `last`; shape [n].

        Raises:
            Refused: the worker ends the call.
        """
        self._channel.send(Message({"type": "read", "first": int(first), "last": int(last)}))
        answer = self._channel.receive()
        if answer.type != "samples":
            raise Refused
        return answer.samples


def serve(connection: socket.socket, load: Callable[[], Recognizer]) -> None:
    """Loads the models, and does what the worker asks for until it closes the connection."""
    channel = Channel(connection)
    try:
        try:
            recognizer = load()
        except Exception as error:
            channel.send(_error(error))
            return
        channel.send(Message({"type": "ready", "models": sorted(recognizer.models)}))
        while True:
            channel.send(_answer(recognizer, channel, channel.receive().fields))
    except Disconnected:
        return


def _answer(recognizer: Recognizer, channel: Channel, call: dict[str, Any]) -> Message:
    try:
        result = _OPERATIONS[call["type"]](recognizer, channel, call)
    except Refused:
        return Message({"type": "refused"})
    except Disconnected:
        raise
    except Exception as error:
        return _error(error)
    return Message({"type": "result", "result": result})


def _error(error: Exception) -> Message:
    """The message of an exception may have text of a transcript: it goes to the log as exceptions do anyway."""
    return Message({"type": "error", "error": repr(error), "traceback": "".join(traceback.format_exception(error))})


def _supports(recognizer: Recognizer, _channel: Channel, call: dict[str, Any]) -> bool:
    return recognizer.supports(call["model"], call["language"])


def _plan_of(recognizer: Recognizer, _channel: Channel, call: dict[str, Any]) -> Any:
    try:
        return _plan(recognizer.plan_of(call["plan"]))
    except ValueError:
        return None


def _listen(recognizer: Recognizer, channel: Channel, call: dict[str, Any]) -> Any:
    request = messages.request_from_json(call["request"])
    return _plan(recognizer.listen(request, PipedAudio(channel, call["length"])))


def _recognize(recognizer: Recognizer, channel: Channel, call: dict[str, Any]) -> Any:
    plan = recognizer.plan_of(call["plan"])
    request = messages.request_from_json(call["request"])
    audio = PipedAudio(channel, call["length"])
    return messages.utterances_to_json(recognizer.recognize(request, plan, call["number"], audio))


def _judge(recognizer: Recognizer, _channel: Channel, call: dict[str, Any]) -> Any:
    new, live = (messages.utterances_from_json(call[name]) for name in ("new", "live"))
    judgement = recognizer.judge(recognizer.plan_of(call["plan"]), new, live, call["session_language"])
    return {"outcome": judgement.outcome, "reason": judgement.reason, "defect": judgement.defect}


def _plan(plan: Any) -> Any:
    return {"json": plan.to_json(), "language": plan.language, "ends": list(plan.ends)}


_OPERATIONS: dict[str, Callable[[Recognizer, Channel, dict[str, Any]], Any]] = {
    "supports": _supports,
    "plan_of": _plan_of,
    "listen": _listen,
    "recognize": _recognize,
    "judge": _judge,
}


def _loading(program: str) -> Callable[[], Recognizer]:
    """Imports the models' libraries not before it is called."""

    def load() -> Recognizer:
        began = time.monotonic()
        module, function = program.split(":")
        recognizer = cast(Recognizer, getattr(importlib.import_module(module), function)())
        log.info("models loaded", models=sorted(recognizer.models), seconds=round(time.monotonic() - began, 1))
        return recognizer

    return load


def main(argument: str) -> int:
    """Serves the worker. Returns the exit code."""
    job = Job(**json.loads(argument))
    die_with_parent(job.parent)
    # A service manager may signal all processes of the worker, which decides alone when this one ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    configure_logging(job.log_level, job.log_format)
    prefer_for_out_of_memory()
    if job.priority == "idle":
        lower_process()
        lower_thread()
    with socket.socket(fileno=job.connection) as connection:
        serve(connection, _loading(job.program))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    # Libraries of the models may hang or crash while the interpreter ends.
    os._exit(code)
