"""The choice between hypotheses for the same audio. Pure."""

from collections.abc import Sequence

from server.inference.decoding.hypothesis import Hypothesis


def best(hypotheses: Sequence[Hypothesis]) -> Hypothesis:
    """The best of at least one hypothesis; of equal ones the first.

    One without a defect is better than one with a defect, then an accepted text is better than a suppressed or empty
    one, then the more probable one.
    """
    return max(hypotheses, key=_rank)


def _rank(hypothesis: Hypothesis) -> tuple[bool, bool, float]:
    accepted = bool(hypothesis.text) and hypothesis.invented is None
    return hypothesis.failing is None, accepted, hypothesis.mean_log_probability
