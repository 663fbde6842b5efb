"""How far what was heard is from what was said, in the tests' own terms."""

import jiwer

_WORDS = jiwer.Compose(
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
    """Words wrong, missing or added, of those of the reference; case and punctuation do not count."""
    return jiwer.wer(reference, hypothesis, reference_transform=_WORDS, hypothesis_transform=_WORDS)
