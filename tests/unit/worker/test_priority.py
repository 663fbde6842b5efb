"""The priority of a worker, in a process of its own: it cannot be raised again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import os, threading
from pathlib import Path
from worker.priority import lower_process, lower_thread
lower_process()
found = []
def model():
    lower_thread()
    found.extend([os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) == os.SCHED_IDLE])
thread = threading.Thread(target=model)
thread.start()
thread.join()
group = Path("/proc/self/autogroup")
weight = (group.read_text().split() or ["none"])[-1] if group.exists() else "19"
print(*found, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) == os.SCHED_OTHER, weight)
"""


def lowered(**options: bool) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout).split()


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="of Linux")
@pytest.mark.parametrize("leads_a_session", [True, False])
def test_the_group_has_the_lowest_weight_and_only_the_thread_of_the_model_the_lowest_class(
    leads_a_session: bool,
) -> None:
    assert lowered(start_new_session=leads_a_session) == ["19", "True", "0", "True", "19"]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="of kernels with autogroups")
def test_a_process_in_the_session_of_others_leaves_its_weight_as_it_is() -> None:
    script = "import os; os.setpgid(0, 0)\n" + _SCRIPT
    # It is empty where nobody has started a session since the machine began.
    before = (Path("/proc/self/autogroup").read_text().split() or ["none"])[-1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == before
    assert "shares its session" in done.stdout + done.stderr
