"""Settings of the engine that contradict each other."""

import pytest
from pydantic import ValidationError

from server.inference.config import InferenceSettings


def test_beams_of_an_unknown_model_are_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="DALSTON_BEAMS names acurate, which DALSTON_MODELS does not have"):
        InferenceSettings(beams={"acurate": 5})


def test_the_default_beams_require_no_model() -> None:
    assert InferenceSettings(models={"fast": "base"}).beams == {"accurate": 5}
