"""The cache of converted weights: each entry appears whole or not at all, also if two processes build it."""

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from server.inference.errors import WeightsError
from server.inference.weights.conversion import CONVERSION_VERSION, Ct2Source, convert, fsync_tree
from server.inference.weights.digest import sha256_of

Report = Callable[[str], None]
"""Receives one line for the operator about a step that takes a while."""

_MANIFEST = "manifest.json"


def converted(source: Ct2Source, cache_dir: Path, report: Report) -> Path:
    """The Hugging Face directory made of `source`, which is converted unless the cache has it.

    An entry is built in a temporary directory and renamed into place under a lock, so a process that dies half-way
    leaves nothing that looks like an entry; the next one removes its files. An entry whose files have changed since
    they were written is rebuilt.

    Raises:
        WeightsError: the source is damaged or does not match its digests, or the disk is full or not writable.
    """
    entry = cache_dir / "weights" / f"{source.label}-{_fingerprint(source)}"
    if _is_whole(entry):
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _lock(entry, report):
            if not _is_whole(entry):
                report(f"converting {source.label} (once)")
                _build(source, entry)
                report(f"converted {source.label}")
    except OSError as error:
        cause = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise WeightsError(f"cannot convert {source.label} into {entry.parent}: {cause}") from error
    return entry


def _fingerprint(source: Ct2Source) -> str:
    return hashlib.sha256(f"{CONVERSION_VERSION}\0{source.identity}".encode()).hexdigest()[:12]


def _is_whole(entry: Path) -> bool:
    try:
        digests = json.loads((entry / _MANIFEST).read_bytes())
        return bool(digests) and all(sha256_of(entry / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _lock(entry: Path, report: Report) -> FileLock:
    """A lock on the entry across processes; the kernel releases it when its holder dies."""
    lock = FileLock(f"{entry}.lock")
    try:
        with lock.acquire(blocking=False):
            pass
    except Timeout:
        report(f"waiting for another process that converts {entry.name}")
    return lock


def _check_source(source: Ct2Source) -> None:
    for file, digest in zip(source.files, source.digests, strict=bool(source.digests)):
        if sha256_of(file) != digest:
            raise WeightsError(
                f"{file} is not the file that the model {source.label} is known to have (its SHA-256 differs): "
                "it is not loaded; install its package again"
            )


def _build(source: Ct2Source, entry: Path) -> None:
    """Converts into a temporary directory and renames it to `entry`. The entry's lock must be held."""
    prefix = f".{entry.name}-"
    for leftover in entry.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    _check_source(source)
    size = sum(part.stat().st_size for part in source.parts)
    needed = size * (2 if len(source.parts) > 1 else 1) + (16 << 20)
    free = shutil.disk_usage(entry.parent).free
    if free < needed:
        raise WeightsError(
            f"cannot convert {source.label} into {entry.parent}: it takes {needed >> 20} MiB, {free >> 20} are free"
        )
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=entry.parent))
    try:
        convert(source, work)
        digests = {path.name: sha256_of(path) for path in work.iterdir()}
        (work / _MANIFEST).write_text(json.dumps(digests), encoding="utf-8")
        fsync_tree(work)
        if entry.exists():
            shutil.rmtree(entry)
        work.rename(entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)
