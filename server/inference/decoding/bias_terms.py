"""Bias terms: the prompt that the model receives for them, and the detection of texts that only echo them. Pure."""

import re
from collections.abc import Callable, Sequence

Encode = Callable[[str], list[int]]
"""The tokens of a text."""

_HEADING = " Glossary:"
"""Marks the terms as a list: after a list that looks like speech the model produces lists, and stops early."""


def prompt_tokens(terms: Sequence[str], encode: Encode, room: int) -> list[int]:
    """The terms as preceding text, in at most `room` tokens; empty if no term fits.

    Terms are kept whole, in their order: the most important ones come first. A term that would not fit alone is
    skipped, and does not exclude those after it.
    """
    heading, end = encode(_HEADING), encode(".")
    most = room - len(heading) - len(end)
    listed: list[int] = []
    for term in terms:
        plain = " ".join(term.split())
        first = encode(f" {plain}") if plain else []
        if not first or len(first) > most:
            continue
        added = encode(f", {plain}") if listed else first
        if len(listed) + len(added) > most:
            break
        listed += added
    return [*heading, *listed, *end] if listed else []


def is_terms_only(text: str, terms: Sequence[str]) -> bool:
    """Whether `text` has words, and all of them are words of the terms.

    Over silence a model that was prompted with terms tends to repeat some of them, with a high probability.
    """
    known = {word for term in (_HEADING, *terms) for word in _words(term)}
    found = _words(text)
    return bool(found) and known.issuperset(found)


def is_within_one_term(text: str, terms: Sequence[str]) -> bool:
    """Whether the words of `text` occur consecutively, in this order, in one of the terms."""
    found = _words(text)
    return any(_contains(_words(term), found) for term in terms)


def _contains(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))
