"""Weights from the Hugging Face hub."""

import re
from pathlib import Path

from server.inference.errors import WeightsError
from server.inference.weights.cache import Report
from server.inference.weights.digest import git_blob_of, sha256_of

_WANTED = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocabulary.*",
    # One file or numbered shards, but not the copies in other precisions that some repositories have.
    "model.safetensors",
    "model-[0-9]*.safetensors",
    "model.safetensors.index.json",
    "model.bin",
]
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
_DIGESTS = {64: sha256_of, 40: git_blob_of}
"""The hub's digest of a file, by the length of the blob's name."""


def download(model: str, cache_dir: Path, report: Report) -> Path:
    """The local directory of a hub repository, which is downloaded unless it is in the hub's cache.

    Args:
        model: `owner/name`, or `owner/name@revision`. Without a revision the first call takes the newest one and
            records it, and later calls take the recorded one: a restart never changes the weights.
        cache_dir: the hub's cache, and the records of revisions.
        report: receives a line about each step that takes a while.

    Raises:
        WeightsError: there is no such repository, no network and nothing cached, or no disk space; or a file does not
            match the hub's digest.
    """
    repository, _, named = model.partition("@")
    record = cache_dir / f"{repository.replace('/', '--')}.revision"
    revision = named or _recorded(record)
    report(f"fetching {repository} from the hub, unless it is here already")
    directory = _fetch(repository, revision, cache_dir)
    try:
        _check(directory)
        if not revision:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(f"{directory.name}\n", encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot read or record {repository} in {cache_dir}: {error.strerror}") from error
    report(f"{repository} is at revision {directory.name}")
    return directory


def _fetch(repository: str, revision: str | None, cache_dir: Path) -> Path:
    # Imported here: it takes a third of a second, and most deployments load from disk.
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_WANTED, cache_dir=cache_dir))
    except RepositoryNotFoundError as error:
        raise WeightsError(f"the hub has no model {repository}, or it needs a token (HF_TOKEN)") from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"the hub has no revision {revision} of {repository}") from error
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"cannot fetch {repository}: the hub cannot be reached and nothing of it is in {cache_dir}"
        ) from error
    except (httpx2.HTTPError, HFValidationError) as error:
        raise WeightsError(f"cannot fetch {repository} from the hub ({type(error).__name__})") from error
    except OSError as error:
        cause = f": {error.strerror}" if error.strerror else f" ({type(error).__name__})"
        raise WeightsError(f"cannot fetch {repository} from the hub{cause}") from error


def _recorded(record: Path) -> str | None:
    try:
        return record.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"cannot read {record}: {error.strerror}") from error


def _check(directory: Path) -> None:
    """Compares each file with the hub's digest, which is the name of the blob that a link in the cache points to."""
    for path in sorted(directory.iterdir()):
        blob = path.resolve()
        digest_of = _DIGESTS.get(len(blob.name)) if _HEXADECIMAL.fullmatch(blob.name) else None
        # On a file system without links there are copies, whose digests are unknown.
        if digest_of is not None and digest_of(blob) != blob.name:
            raise WeightsError(
                f"{path} is not the file that the hub has, or is damaged: it is not loaded; "
                f"delete {blob} to fetch it again"
            )
