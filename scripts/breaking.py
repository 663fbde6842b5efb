"""Checks that `proto/` breaks no client of the main branch, with `buf breaking`, if there is one to compare with."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASES = ("origin/main", "main")


def base() -> str | None:
    """The newest main branch that has protos; None in an export, a first commit or a clone of one branch."""
    if shutil.which("git") is None:
        return None
    for name in BASES:
        tree = ["git", "cat-file", "-e", f"{name}:proto"]
        if subprocess.run(tree, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0:
            return name
    return None


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def main() -> int:
    name = base()
    if name is None:
        print("buf breaking: there is no main to compare with here")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        for path in git("ls-tree", "-r", "--name-only", name, "proto", "buf.yaml").decode().splitlines():
            target = Path(directory) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(git("show", f"{name}:{path}"))
        # git ignores what buf resolves imports from.
        shutil.copytree(ROOT / "third_party", Path(directory) / "third_party")
        buf = Path(sys.executable).parent / "buf"
        return subprocess.run([buf, "breaking", "--against", directory], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
