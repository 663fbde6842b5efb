"""Weights from the Hugging Face hub."""

from pathlib import Path

from server.inference.errors import WeightsError
from server.inference.weights.cache import Report

_WANTED = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocabulary.*",
    # One file or numbered shards, but not the copies in other precisions that some repositories keep beside them.
    "model.safetensors",
    "model-[0-9]*.safetensors",
    "model.safetensors.index.json",
    "model.bin",
]


def download(repository: str, cache_dir: Path, report: Report) -> Path:
    """The local directory of a hub repository, fetched unless it is in the hub's cache already.

    Raises:
        WeightsError: there is no such repository, no network and nothing cached, or no room.
    """
    # Imported here: it costs a third of a second and most deployments load from disk.
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    report(f"fetching {repository} from the hub, unless it is here already")
    try:
        return Path(snapshot_download(repository, allow_patterns=_WANTED, cache_dir=cache_dir))
    except RepositoryNotFoundError as error:
        raise WeightsError(f"the hub has no model {repository}, or it needs a token (HF_TOKEN)") from error
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"cannot fetch {repository}: the hub cannot be reached and nothing of it is in {cache_dir}"
        ) from error
    except (httpx.HTTPError, HFValidationError) as error:
        raise WeightsError(f"cannot fetch {repository} from the hub ({type(error).__name__})") from error
    except OSError as error:
        cause = f": {error.strerror}" if error.strerror else f" ({type(error).__name__})"
        raise WeightsError(f"cannot fetch {repository} from the hub{cause}") from error
