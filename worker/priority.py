"""The priority of the process of the models, so that live sessions on the same machine do not notice it.

A nice value and a scheduling class are relative to the other threads of a task group (sched(7)): where the kernel has
autogroups, that is a session (setsid), and the weight of its autogroup is what counts (docs/adr/0102). The worker
itself keeps the default, because a lease must be renewed in time on a busy machine, too (docs/adr/0109). Nothing of it
needs a privilege.
"""

import errno
import os
import time
from pathlib import Path
from typing import Final

from telemetry.logs import get_logger

log = get_logger(__name__)

_LOWEST: Final = 19
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_OUT_OF_MEMORY: Final = Path("/proc/self/oom_score_adj")
_OUT_OF_MEMORY_SCORE: Final = 500
"""Half of the machine's memory is added to what the kernel compares, so that it ends this process before others."""
_REPEAT_SECONDS: Final = 0.2
"""The kernel refuses the weight of an autogroup within 0.1 s of another change by any process."""


def lower_process() -> None:
    """Lowers the CPU weight of the autogroup, if the process is alone in it or can have one of its own.

    A failure is logged, and changes nothing.
    """
    if os.getpgrp() != os.getpid():
        os.setsid()
    if not _AUTOGROUP.exists():
        return
    if os.getsid(0) != os.getpid():
        log.warning("the CPU weight is not lowered: this process shares its session with others")
        return
    try:
        _set_weight()
    except OSError as error:
        log.warning("the CPU weight is not lowered", reason=str(error))


def _set_weight() -> None:
    try:
        _AUTOGROUP.write_text(str(_LOWEST))
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        time.sleep(_REPEAT_SECONDS)
        _AUTOGROUP.write_text(str(_LOWEST))


def lower_thread() -> None:
    """Makes the calling thread run when nothing else of its group needs the CPU; the threads that it starts, too."""
    try:
        os.nice(_LOWEST)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError) as error:
        log.warning("the scheduling class of the model is not lowered", reason=str(error))


def prefer_for_out_of_memory() -> None:
    """Has the kernel end this process first when the machine has no memory left: its job is repeated, a live session
    is not.

    A failure is logged, and changes nothing.
    """
    try:
        if int(_OUT_OF_MEMORY.read_text()) < _OUT_OF_MEMORY_SCORE:
            _OUT_OF_MEMORY.write_text(str(_OUT_OF_MEMORY_SCORE))
    except (OSError, ValueError) as error:
        log.warning("the process of the model is not the first to end when memory is short", reason=str(error))
