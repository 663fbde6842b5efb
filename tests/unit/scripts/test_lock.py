"""`make` installs what `lock/` lists: every package in one version, with the hashes of its files."""

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import install
import pytest
import relock
from lockfile import ENVIRONMENTS, LOCK, Pin, read_lock, read_pins
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ("stack", "dev", "cuda", "torch-cpu")


def pins_in(name: str, environment: dict[str, str]) -> dict[str, Pin]:
    return {pin.name: pin for pin in read_lock(name) if pin.holds_in(environment)}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_no_index(name: str) -> None:
    pins = read_lock(name)
    assert pins
    assert [pin.name for pin in pins if not pin.hashes] == []
    assert not re.search(r"https?:|--(extra-)?index|--find-links", (LOCK / f"{name}.txt").read_text())


@pytest.mark.parametrize("name", ["stack", "dev"])
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: f"{e['python_version']}-{e['platform_machine']}")
def test_the_lock_satisfies_pyproject(name: str, environment: dict[str, str]) -> None:
    pins = pins_in(name, environment)
    for line in relock.requirements(name):
        wanted = Requirement(line)
        pin = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(pin.version), f"{wanted} is required, {pin.version} is locked: `make lock`"


def test_both_locks_have_the_same_versions() -> None:
    dev = {(pin.name, pin.version) for pin in read_lock("dev")}
    assert {(pin.name, pin.version) for pin in read_lock("stack")} <= dev


def test_cpu_builds_of_torch_have_the_version_of_the_other_builds() -> None:
    relock.check_cpu_builds(read_lock("dev"))
    (cpu,) = read_lock("torch-cpu")
    assert len(cpu.hashes) == len(ENVIRONMENTS)


def needed(environment: dict[str, str]) -> Iterator[tuple[str, Requirement]]:
    """All requirements with their owners, from `pyproject.toml` to the last dependency, from installed metadata."""
    pending = [("pyproject.toml", Requirement(line)) for line in relock.requirements("dev")]
    seen = set()
    while pending:
        owner, requirement = pending.pop()
        yield owner, requirement
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for line in distribution(requirement.name).requires or []:
            further = Requirement(line)
            extras = [*requirement.extras, ""]
            marker = further.marker
            if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in extras):
                pending.append((requirement.name, further))


def test_the_lock_has_every_transitive_dependency() -> None:
    version = f"3.{sys.version_info.minor}"
    environment = next(each for each in ENVIRONMENTS if each["python_version"] == version)
    pins = pins_in("dev", environment) | pins_in("cuda", environment)
    lacking = [
        f"{requirement} for {owner}"
        for owner, requirement in needed(environment)
        if not requirement.specifier.contains(pins[canonicalize_name(requirement.name)].version, prereleases=True)
    ]
    assert lacking == []


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    """The name of a package that only a local folder has."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    name = "dalston_test_of_a_lock"
    with ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return name


def test_a_file_that_is_not_the_locked_one_is_not_installed(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    for constant in ("LOCK", "LOG", "PYTHON"):
        monkeypatch.setattr(
            install, constant, {"LOCK": tmp_path, "LOG": tmp_path / "log"}.get(constant, sys.executable)
        )
    (tmp_path / "torch-cpu.txt").write_text((LOCK / "torch-cpu.txt").read_text())
    (tmp_path / "stack.txt").write_text(f"{wheel}==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(install.CannotInstall, match="a downloaded file is not the one that was locked"):
        install.install("stack")


def test_npm_packages_of_the_tests_have_hashes_and_no_index() -> None:
    packages = json.loads((relock.ROOT / "tests/e2e/node/package-lock.json").read_text())["packages"]
    assert len(packages) > 1
    assert [
        name for name, package in packages.items() if name and not package.get("integrity", "").startswith("sha512-")
    ] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []


def test_a_line_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"six>=1 is not pinned"):
        list(read_pins("six>=1 --hash=sha256:00\n"))


def test_pins_of_other_systems_are_dropped_and_those_of_versions_kept() -> None:
    pins = read_pins(
        "colorama==1 ; sys_platform == 'win32' \\\n    --hash=sha256:0\n"
        "backport==1 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n"
        "plain==1 ; platform_python_implementation != 'PyPy' \\\n    --hash=sha256:0\n"
    )
    assert [(pin.name, pin.marker is None) for pin in relock.narrowed(pins)] == [("backport", False), ("plain", True)]
