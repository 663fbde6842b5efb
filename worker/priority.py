"""The priority of the worker, so that live sessions on the same machine do not notice it.

The process is nice 19, and the thread of the model has the scheduling policy SCHED_IDLE (sched(7)): it runs when
nothing else needs the CPU. The other threads keep the ordinary policy, because a lease must be renewed in time on a
busy machine, too.
"""

import os

from telemetry.logs import get_logger

log = get_logger(__name__)

_NICEST = 19


def lower_process() -> None:
    """Makes the process nice 19. Its later threads and children inherit that."""
    os.nice(_NICEST)


def lower_thread() -> None:
    """Makes the calling thread run when nothing else needs the CPU, where the kernel supports it."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError) as error:
        log.warning("the kernel does not lower the model's thread further", reason=str(error))
