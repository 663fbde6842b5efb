"""The import, with fake torchaudio packages that load, or fail like the wheel that is linked against CUDA."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.inference.torchaudio_compat import import_torchaudio


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that shadows torchaudio; afterwards its modules are removed and the real ones restored."""
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchaudio"}
    for name in real:
        del sys.modules[name]
    directory = tmp_path / "torchaudio"
    directory.mkdir()
    (directory / "__init__.py").write_text(
        "from torchaudio import _extension\nWITH = _extension._IS_TORCHAUDIO_EXT_AVAILABLE"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield directory
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]
    sys.modules.update(real)


def test_the_native_extension_is_used_where_it_loads(package: Path) -> None:
    (package / "_extension.py").write_text("_IS_TORCHAUDIO_EXT_AVAILABLE = True")
    assert import_torchaudio().WITH is True


def test_torchaudio_is_imported_without_an_extension_that_does_not_load(package: Path) -> None:
    (package / "_extension.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')")
    module = import_torchaudio()
    assert module.WITH is False
    with pytest.raises(RuntimeError, match="native extension"):
        module._extension.fail_if_no_align(print)()


def test_any_other_failure_is_not_hidden(package: Path) -> None:
    (package / "_extension.py").write_text("raise RuntimeError('something else')")
    with pytest.raises(RuntimeError, match="something else"):
        import_torchaudio()


def test_the_real_one_has_the_transform_the_features_need() -> None:
    assert import_torchaudio().transforms.MelSpectrogram
