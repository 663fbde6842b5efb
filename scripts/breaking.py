"""Checks that `proto/` breaks no client of what main has: `buf breaking`, where there is a main to compare with."""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASES = ("origin/main", "main")


def base() -> str | None:
    """The newest main there is that has protos; None in an export, a first commit or a clone of one branch."""
    if shutil.which("git") is None:
        return None
    for name in BASES:
        tree = ["git", "cat-file", "-e", f"{name}:proto"]
        if subprocess.run(tree, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0:
            return name
    return None


def main() -> int:
    name = base()
    if name is None:
        print("buf breaking: there is no main to compare with here")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        archive = subprocess.run(["git", "archive", name, "proto", "buf.yaml"], cwd=ROOT, check=True, stdout=-1).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(directory, filter="data")
        # git ignores what buf resolves imports from.
        shutil.copytree(ROOT / "third_party", Path(directory) / "third_party")
        buf = Path(sys.executable).parent / "buf"
        return subprocess.run([buf, "breaking", "--against", directory], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
