"""The files in `lock/`: what `make` installs, each package with its version and the hashes of its files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "lock"

ENVIRONMENTS = [
    {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    for minor in (11, 12, 13, 14)
    for machine in ("x86_64", "aarch64")
]
"""The environments of the locks: the machines and versions of Python that the service supports."""

_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of one package, for the environments that the marker names."""

    name: str
    """Canonical, as `canonicalize_name` returns it."""
    version: str
    marker: Marker | None
    hashes: tuple[str, ...]
    """`sha256:` and 64 hexadecimal digits, of every file that may be installed."""

    def __str__(self) -> str:
        marker = f" ; {self.marker}" if self.marker else ""
        return " \\\n    --hash=".join([f"{self.name}=={self.version}{marker}", *self.hashes])

    def holds_in(self, environment: dict[str, str]) -> bool:
        """Whether it is installed there."""
        return self.marker is None or self.marker.evaluate(environment)


def read_pins(text: str) -> Iterator[Pin]:
    """The pins of a requirements file with hashes.

    Raises:
        ValueError: a line is not pinned.
    """
    without_comments = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in without_comments.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        requirement = Requirement(line.split("--hash", 1)[0].strip())
        versions = list(requirement.specifier)
        if len(versions) != 1 or versions[0].operator != "==":
            raise ValueError(f"{requirement} is not pinned")
        yield Pin(
            canonicalize_name(requirement.name), versions[0].version, requirement.marker, tuple(_HASH.findall(line))
        )


def read_lock(name: str) -> list[Pin]:
    """The pins of `lock/NAME.txt`."""
    return list(read_pins((LOCK / f"{name}.txt").read_text(encoding="utf-8")))
