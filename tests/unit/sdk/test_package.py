"""Importing the package is cheap, and every exported name exists."""

import subprocess
import sys
from pathlib import Path

import dalston
import pytest

LIGHT = (
    "import dalston, sys; {}; sys.exit(any(name in sys.modules for name in ('grpc', 'google', 'websockets', 'ssl')))"
)


@pytest.mark.parametrize("use", ["0", "dalston.NotFound", "dalston.Session, dalston.FinalResult", "dalston.Microphone"])
def test_grpc_is_imported_only_by_calls(use: str) -> None:
    environment = {"PYTHONPATH": str(Path(dalston.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", LIGHT.format(use)], env=environment, check=True)


def test_every_exported_name_exists_and_no_other() -> None:
    for name in dalston.__all__:
        assert getattr(dalston, name) is not None
    assert dalston.__all__ == sorted(dalston.__all__)
    assert set(dalston.__all__) <= set(dir(dalston))
    with pytest.raises(AttributeError):
        _ = dalston.NoSuchThing
