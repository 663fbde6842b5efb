"""Settings of the engine, from `DALSTON_*` in the environment."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class InferenceSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    models: dict[str, str] = Field(default={"fast": "base", "accurate": "base"}, min_length=1)
    """Model name in a request -> weights, as JSON. Weights are a hub id (`openai/whisper-large-v3-turbo`), a directory
    in Hugging Face's or CTranslate2's Whisper format, or the name of an offline package (`base`, `tiny.en`)."""
    beams: dict[str, Annotated[int, Field(ge=1, le=10)]] = Field(default={"accurate": 5})
    """Model name in a request -> beam size, as JSON; 1 for models not named. Names must be among `models` when this is
    set."""
    spare_beams: int = Field(default=3, ge=1, le=10)
    """The high-beam size: the beam size that models with a smaller one use while the engine is idle; 1 for never."""
    cache_dir: Path = Path("~/.cache/dalston")
    """Where converted weights are stored. Processes may share it; it can be deleted while none runs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the models run; `auto` uses a CUDA device if there is one."""
    threads: int = Field(default=0, ge=0, le=256)
    """CPU threads of one forward pass; 0 chooses by the number of cores."""
    batch_limit: int = Field(default=0, ge=0, le=256)
    """Utterances in one batch; 0 chooses by device."""

    partial_share: float = Field(default=0.25, ge=0.01, le=1)
    """The share of the model's time that the partials of all sessions together may take."""

    @model_validator(mode="after")
    def _beams_are_of_models(self) -> Self:
        unknown = sorted(set(self.beams) - set(self.models)) if "beams" in self.model_fields_set else []
        if unknown:
            raise ValueError(f"DALSTON_BEAMS names {', '.join(unknown)}, which DALSTON_MODELS does not have")
        return self
