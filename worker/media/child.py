"""The process that decodes one file: `python -m worker.media.child JOB`.

Standard input is the file, standard output receives mono signed 16-bit PCM at 16 kHz, and `JOB` is the JSON of `Job`.
The process reports with one line of JSON (`Report`) and exits with 0, whatever the file is.
"""

import io
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from worker.media import sandbox

_OUT = 1


@dataclass(frozen=True, slots=True)
class Job:
    """What the parent asks for."""

    parent: int
    """Process id: the child ends when it is not that of its parent."""
    report: int
    """The open file to which the report is written."""
    max_seconds: float
    memory_bytes: int
    file_bytes: int
    cpu_seconds: int
    max_cpu_seconds: int


@dataclass(frozen=True, slots=True)
class Report:
    """How it went. Of `facts`, `refused`, `is_too_long` and `errno` one is set."""

    isolation: list[str]
    facts: dict[str, Any] | None = None
    refused: tuple[str, str] | None = None
    """The reason and the message of an `UndecodableMedia`."""
    is_too_long: bool = False
    errno: int | None = None
    """The number of the error with which the output could not be written."""


def main(arguments: list[str]) -> int:
    """Decodes, reports, and returns 0."""
    job = Job(**json.loads(arguments[0]))
    sandbox.die_with_parent(job.parent)
    sandbox.limit(sandbox.ProcessLimits(job.memory_bytes, job.file_bytes, job.cpu_seconds, job.max_cpu_seconds))
    report = json.dumps(asdict(_run(job)))
    os.write(job.report, report.encode())
    return 0


def _run(job: Job) -> Report:
    # The libraries are loaded under the limits, and before the rights to load anything are given up.
    from worker.media import demuxing
    from worker.media.errors import Reason, UndecodableMedia
    from worker.media.pcm import TooMuchAudio

    demuxing.warm_up()
    file = io.FileIO(0, closefd=False)
    isolation = sandbox.isolate()
    try:
        facts = demuxing.decode(file, _write, job.max_seconds)
    except UndecodableMedia as error:
        return Report(isolation, refused=(error.reason, str(error)))
    except TooMuchAudio:
        return Report(isolation, is_too_long=True)
    except MemoryError:
        return Report(isolation, refused=(Reason.TOO_COSTLY, "decoding the file needs too much memory"))
    except _WriteFailed as error:
        return Report(isolation, errno=error.number)
    except Exception as error:
        # What a library raises on a file that it does not understand: another attempt would raise it again.
        detail = f"the file is damaged ({type(error).__name__})"
        return Report(isolation, refused=(Reason.DAMAGED, detail))
    return Report(isolation, facts=asdict(facts))


class _WriteFailed(Exception):
    """The output cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


def _write(pcm: bytes) -> None:
    rest = memoryview(pcm)
    while rest:
        try:
            rest = rest[os.write(_OUT, rest) :]
        except OSError as error:
            raise _WriteFailed(error.errno or 0) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
