"""The programs in the wheels of the stack."""

import sys
from importlib.util import find_spec
from pathlib import Path

from stack.errors import CannotStart


def package_folder(package: str) -> Path:
    """The folder of an installed package. The package is not imported, because some do unwanted work on import.

    Raises:
        CannotStart: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise CannotStart(f"the package {package} is not installed: run `make demo`, which installs it")
    return Path(spec.origin).parent


def script(name: str) -> Path:
    """A program that a wheel installed beside the interpreter.

    Raises:
        CannotStart: it is not installed.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise CannotStart(f"the program {name} is not installed: run `make demo`, which installs it")
    return path
