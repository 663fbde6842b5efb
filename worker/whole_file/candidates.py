"""The choice between hypotheses for the same audio. Pure."""

from collections.abc import Sequence
from typing import Final

from server.inference.decoding.hypothesis import Hypothesis

LEAST_SHARE: Final = 0.8
MOST_SHARE: Final = 1.25
"""The least and the most tokens of a text that was decoded after another one, as shares of those of the first attempt:
after a text the model tends to repeat a sentence, or to leave one out, and either may be more probable."""


def best(hypotheses: Sequence[Hypothesis]) -> Hypothesis:
    """The best of at least one hypothesis; of equal ones the first.

    One without a defect is better than one with a defect, then an accepted text is better than a suppressed or empty
    one, then the more probable one.
    """
    return max(hypotheses, key=_rank)


def better_after(first: Hypothesis, after: Hypothesis) -> Hypothesis:
    """The better of a hypothesis and one that was decoded after the preceding text; see `best`.

    The first one is kept if their lengths differ much.
    """
    tokens = len(first.tokens)
    is_similar = LEAST_SHARE * tokens <= len(after.tokens) <= MOST_SHARE * tokens
    return best([first, after]) if is_similar else first


def _rank(hypothesis: Hypothesis) -> tuple[bool, bool, float]:
    accepted = bool(hypothesis.text) and hypothesis.invented is None
    return hypothesis.failing is None, accepted, hypothesis.mean_log_probability
