"""Locks what `make` installs: `lock/*.txt`, from what pyproject.toml and sdk/pyproject.toml ask for.

python scripts/relock.py                 keep the versions that still fit, and resolve the others
python scripts/relock.py --upgrade       take the newest versions that the two files allow
python scripts/relock.py --outdated      change nothing, and list what has a newer version

It uses the package index that uv is configured with. The files name no index: pip uses the one that it is configured
with, and the hashes prove that the packages are the same.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lockfile import ENVIRONMENTS, LOCK, ROOT, Pin, read_lock, read_pins
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HEAD = "# Made by `make lock`. What `pip install --require-hashes --no-deps` installs.\n"
OWN = ("dalston", "dalston-service")
CUDA = re.compile(r"nvidia-|cuda-|triton$")
"""Packages that only torch's CUDA builds need, and that its metadata requires there."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true")
    parser.add_argument("--outdated", action="store_true")
    arguments = parser.parse_args()
    if arguments.outdated:
        return outdated()
    dev = resolve("dev", locked() if not arguments.upgrade else [])
    check_cpu_builds(dev)
    stack = resolve("stack", dev)
    write("cuda", [pin for pin in dev if CUDA.match(pin.name)])
    write("dev", [pin for pin in dev if not CUDA.match(pin.name)])
    write("stack", [pin for pin in stack if not CUDA.match(pin.name)])
    return 0


def locked() -> list[Pin]:
    """The current pins; none if there is no lock yet."""
    return [*read_lock("dev"), *read_lock("cuda")] if (LOCK / "dev.txt").exists() else []


def requirements(extra: str) -> list[str]:
    """The requirements of both distributions with that extra, and of their builds."""
    service, sdk = (tomllib.loads((ROOT / path).read_text()) for path in ("pyproject.toml", "sdk/pyproject.toml"))
    extras = service["project"]["optional-dependencies"]
    wanted = [*service["project"]["dependencies"], *sdk["project"]["dependencies"]]
    wanted += [*service["build-system"]["requires"], *sdk["build-system"]["requires"]]
    pending, done = [extra], set()
    while pending:
        name = pending.pop()
        done.add(name)
        for each in extras[name]:
            requirement = Requirement(each)
            if canonicalize_name(requirement.name) in OWN:
                pending += sorted(requirement.extras - done)
            else:
                wanted.append(each)
    return [each for each in wanted if canonicalize_name(Requirement(each).name) not in OWN]


def resolve(extra: str, preferred: Iterable[Pin]) -> list[Pin]:
    """The pins for all supported environments; `preferred` versions are kept if they fit."""
    options = ["--universal", "--python-version", "3.11", "--generate-hashes"]
    return narrowed(compiled(requirements(extra), *options, preferred=preferred))


def compiled(wanted: Iterable[str], *options: str, preferred: Iterable[Pin] = ()) -> list[Pin]:
    """The pins that uv resolves requirements to."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "wanted.in"), Path(scratch, "locked.txt")
        source.write_text("\n".join(wanted))
        # uv keeps the versions of an existing output file.
        target.write_text("\n".join(map(str, preferred)))
        command = [Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", "--no-annotate", "--no-header"]
        subprocess.run([*command, *options, "--output-file", target, source], check=True, stdout=subprocess.DEVNULL)
        return list(read_pins(target.read_text()))


def narrowed(pins: Iterable[Pin]) -> list[Pin]:
    """Drops the pins of other systems, and markers that are always true."""
    result = []
    for pin in pins:
        holds = [pin.holds_in(environment) for environment in ENVIRONMENTS]
        if any(holds):
            result.append(replace(pin, marker=None) if all(holds) else pin)
    return result


def check_cpu_builds(pins: Iterable[Pin]) -> None:
    """Exits if the hashes of torch's CPU builds, which are maintained by hand, are of another version than torch."""
    torch = next(pin for pin in pins if pin.name == "torch")
    (cpu,) = read_lock("torch-cpu")
    if cpu.version != f"{torch.version}+cpu":
        raise SystemExit(
            f"lock/torch-cpu.txt has {cpu.version}: give it {torch.version}+cpu, and the hashes of its wheels"
        )


def write(name: str, pins: Iterable[Pin]) -> None:
    path = LOCK / f"{name}.txt"
    path.write_text(HEAD + "\n".join(map(str, pins)) + "\n", encoding="utf-8")


def outdated() -> int:
    """Compares the lock with the newest versions, whatever pyproject.toml pins."""
    pins = {pin.name: pin for pin in locked()}
    # Each package alone: a person must find out which requirement excludes the newer version.
    newest = {pin.name: pin.version for pin in compiled(pins, "--no-deps", "--python-version", "3.11")}
    newer = {name: (pin.version, newest[name]) for name, pin in pins.items() if is_newer(newest[name], pin.version)}
    for name, (now, then) in sorted(newer.items()):
        print(f"{name:32} {now:20} {then}")
    print(f"{len(newer)} of {len(pins)} locked packages have a newer version")
    return 0


def is_newer(version: str, than: str) -> bool:
    return Version(version) > Version(than)


if __name__ == "__main__":
    sys.exit(main())
