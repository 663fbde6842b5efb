"""torchaudio, importable whether or not its native extension loads.

The wheel on PyPI is linked against CUDA: beside a CPU build of torch, `import torchaudio` raises OSError, and so does
every import of transformers' Whisper classes, which pull it in. The parts of torchaudio that this project uses are
plain torch, so when the native extension will not load, torchaudio is imported in its own "built without extension"
mode. Import torchaudio, or anything that imports it, only after this module.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_EXTENSION = "torchaudio._extension"


def _without_extension() -> ModuleType:
    """A substitute for `torchaudio._extension`, as in a build without native code."""

    def fail_if_no_align(_: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*_: object, **__: object) -> Any:
            raise RuntimeError("forced alignment needs torchaudio's native extension, which did not load")

        return refuse

    stub = ModuleType(_EXTENSION)
    stub.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=fail_if_no_align,
    )
    return stub


def import_torchaudio() -> ModuleType:
    """Imports torchaudio, with its native extension if that loads and without it otherwise."""
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules[_EXTENSION] = _without_extension()
        return importlib.import_module("torchaudio")


torchaudio = import_torchaudio()
