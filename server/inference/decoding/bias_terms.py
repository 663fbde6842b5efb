"""Terms to listen for: what the model is told of them, and how to tell when it only says them back. Pure."""

import re
from collections.abc import Callable, Sequence

Encode = Callable[[str], list[int]]
"""The tokens of a text."""

_HEADING = " Glossary:"
"""Says that what follows is a list: after a list that seems to be speech the model writes lists, and stops early."""


def prompt_tokens(terms: Sequence[str], encode: Encode, room: int) -> list[int]:
    """The terms as a text that went before, in at most `room` tokens; none if no term fits.

    Terms are kept whole, and from the first one on: who gives more than fit puts first what matters most. One that
    would not fit alone is passed over, and keeps out none of those after it.
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


def terms_alone(text: str, terms: Sequence[str]) -> bool:
    """Whether `text` has words, and none that is not a term's.

    Over silence a model that was given terms is apt to say some of them, and is sure of itself.
    """
    known = {word for term in (_HEADING, *terms) for word in _words(term)}
    said = _words(text)
    return bool(said) and known.issuperset(said)


def within_one(text: str, terms: Sequence[str]) -> bool:
    """Whether the words of `text` stand in this order in one of the terms, with none between them."""
    said = _words(text)
    return any(_contains(_words(term), said) for term in terms)


def _contains(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))
