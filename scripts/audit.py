"""Looks up everything in `lock/` in the database of known vulnerabilities (osv.dev): `python scripts/audit.py`.

Exits with 0 if there are none, 1 if there are some, 2 if the database cannot be reached.
"""

import subprocess
import sys
from pathlib import Path

from lockfile import LOCK

TOOL = "pip-audit@2.10.1"
LOCKS = ("dev", "cuda")
"""The first has all that `stack.txt` has."""


def main() -> int:
    uv = Path(sys.executable).with_name("uv")
    files = [word for name in LOCKS for word in ("-r", LOCK / f"{name}.txt")]
    # All versions are in the locks: there is nothing to resolve and nothing to install.
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--vulnerability-service=osv"]
    command = [uv, "tool", "run", "--quiet", TOOL, *options, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        print("none of the locked packages has a known vulnerability")
        return 0
    if "Found " in done.stderr:
        print(done.stdout)
        return 1
    messages = done.stderr.strip().splitlines() or ["no message"]
    print(f"known vulnerabilities could not be looked up, which needs api.osv.dev over HTTPS: {messages[-1][:200]}")
    return 2


if __name__ == "__main__":
    sys.exit(main())
