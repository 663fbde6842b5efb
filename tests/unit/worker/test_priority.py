"""The priority of a worker, in a process of its own: it cannot be raised again."""

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import os, threading
from worker.priority import lower_process, lower_thread
lower_process()
found = []
def model():
    lower_thread()
    found.append(os.sched_getscheduler(0) == os.SCHED_IDLE)
thread = threading.Thread(target=model)
thread.start()
thread.join()
print(os.nice(0), found[0], os.sched_getscheduler(0) == os.SCHED_OTHER)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="of Linux")
def test_the_process_is_nice_and_only_the_thread_of_the_model_is_idle() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["19", "True", "True"]
