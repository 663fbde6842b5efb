"""The priority of the worker, so that live sessions on the same machine do not notice it.

A nice value and a scheduling class are relative to the other threads of a task group (sched(7)): where the kernel has
autogroups, that is a session (setsid), and the weight of its autogroup is what counts. Within the group the thread of
the model has the lowest class, and the other threads keep theirs, because a lease must be renewed in time on a busy
machine, too (docs/adr/0102). Nothing of it needs a privilege.
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
        log.warning("the scheduling class of the model's thread is not lowered", reason=str(error))
