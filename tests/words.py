"""The word error rate that the tests use."""

from functools import cache
from typing import Any


@cache
def _words() -> Any:
    # Every process of `pytest -n` collects the modules that import this one, and jiwer takes half a second.
    import jiwer

    return jiwer.Compose(
        [
            jiwer.ToLowerCase(),
            jiwer.SubstituteRegexes({"-": " "}),
            jiwer.RemovePunctuation(),
            jiwer.SubstituteWords({"mr": "mister"}),
            jiwer.SubstituteRegexes({r"\s+": " "}),
            jiwer.Strip(),
            jiwer.ReduceToListOfListOfWords(),
        ]
    )


def word_error_rate(reference: str, hypothesis: str) -> float:
    """The share of wrong, missing or added words in the reference; case and punctuation do not count."""
    import jiwer

    return jiwer.wer(reference, hypothesis, reference_transform=_words(), hypothesis_transform=_words())
