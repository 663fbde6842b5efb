"""Beam search: decodes each row with several beams, and returns the best one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from server.inference.decoding.generation import TokenChooser
from server.inference.decoding.token_rules import Allowed, RowDecoding
from server.inference.whisper.decoder import Decoder, DecoderState


@dataclass(slots=True)
class Beam:
    """One candidate for a row, and its probability."""

    row: RowDecoding
    log_probability: float = 0.0
    """Of all its tokens, timestamps and end included."""
    steps: int = 0
    source: int = 0
    """The beam before the last step that it extends."""
    is_greedy: bool = True
    """Whether all its tokens are those of greedy decoding."""

    @property
    def is_complete(self) -> bool:
        """Whether it has ended by itself instead of being stopped."""
        return self.row.ending in ("end", "closed")

    @property
    def rank(self) -> tuple[bool, float]:
        """The mean over its steps: a longer text must not rank lower for its length alone."""
        return self.is_complete, self.log_probability / max(1, self.steps)


class _Extension(NamedTuple):
    """One more token for one beam."""

    log_probability: float
    """Of the beam with this token."""
    source: int
    token: int
    log_chance: float
    is_greedy: bool


@dataclass(slots=True)
class Search:
    """The beams of one row."""

    width: int
    """The number of active beams, and of finished ones to choose from."""
    active: list[Beam]
    finished: list[Beam] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the search has ended. Not before the greedy beam has: texts that leave much out are the first to
        end."""
        if any(beam.is_greedy for beam in self.active):
            return False
        return not self.active or sum(beam.is_complete for beam in self.finished) >= self.width

    @property
    def best(self) -> RowDecoding:
        """The most probable text; the greedy one if that is longer and its words are at least as probable."""
        best = max(self.finished or self.active, key=lambda beam: beam.rank)
        greedy = next((beam for beam in self.finished if beam.is_greedy and beam.is_complete), best)
        is_longer = len(greedy.row.text) > len(best.row.text)
        return greedy.row if is_longer and _mean(greedy.row) >= _mean(best.row) else best.row

    def advance(self, choices: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Extends the beams by their possible tokens, given with log probabilities, and keeps the most probable ones.

        The greedy beam is kept, however improbable it is at the moment.
        """
        extensions = [
            _Extension(beam.log_probability + log_chance, source, token, log_chance, beam.is_greedy and not rank)
            for source, (beam, offered) in enumerate(zip(self.active, choices, strict=True))
            for rank, (token, log_chance) in enumerate(offered)
        ]
        before, self.active = self.active, []
        greedy = next((extension for extension in extensions if extension.is_greedy), None)
        for extension in sorted(extensions, key=lambda extension: -extension.log_probability):
            # The last place is reserved for the greedy beam until it has one.
            if extension is not greedy and greedy is not None and len(self.active) == self.width - 1:
                continue
            row = before[extension.source].row.branch()
            row.accept(extension.token, extension.log_chance)
            beam = Beam(
                row,
                extension.log_probability,
                before[extension.source].steps + 1,
                extension.source,
                extension.is_greedy,
            )
            (self.finished if row.ending else self.active).append(beam)
            if extension is greedy:
                greedy = None
            if len(self.active) == self.width:
                break
        self.active = _in_place(self.active)


_KEPT = 0.75
"""Once no more than this share of the rows is active, the others are dropped: fewer rows take less time on a CPU, but
copying the rest takes some."""
_UNUSED = Allowed(text=True, opens_text=False, end=True, timestamps=range(0))
"""For the places of a search that has fewer active beams than its width."""


def search(
    decoder: Decoder,
    state: DecoderState,
    choose: TokenChooser,
    logits: torch.Tensor,
    rows: Sequence[RowDecoding],
    width: int,
) -> list[RowDecoding]:
    """Decodes with `width` beams per row until every row is done, and returns the best one of each.

    Args:
        logits: of each row's last prompt token, [rows, vocabulary].
        rows: without any tokens yet.
    """
    searches = active = [Search(width, [Beam(row)]) for row in rows]
    decoder.fan_out(state, width)
    logits = logits.repeat_interleave(width, dim=0)
    while True:
        beams = [beam for each in active for beam in _places(each)]
        allowed = [beam.row.allowed() if beam else _UNUSED for beam in beams]
        choices = choose.several(logits, allowed, width)
        for first, each in zip(range(0, len(beams), width), active, strict=True):
            if not each.done:
                each.advance(choices[first : first + len(each.active)])
        left = [number for number, each in enumerate(active) if not each.done]
        if not left:
            return [each.best for each in searches]
        if state.tokens.device.type == "cpu" and len(left) <= _KEPT * len(active):
            decoder.keep(state, left)
            active = [active[number] for number in left]
        logits = _step(decoder, state, active, width)


def _step(decoder: Decoder, state: DecoderState, searches: Sequence[Search], width: int) -> torch.Tensor:
    """Feeds each beam its last token. Returns the logits of the next one."""
    sources: list[int] = []
    tokens: list[int] = []
    for number, each in enumerate(searches):
        for beam in _places(each):
            # A place without a beam keeps its state: copying it would take time.
            sources.append(number * width + beam.source if beam else len(sources))
            tokens.append(beam.row.tokens[-1] if beam else 0)
    device = state.tokens.device
    decoder.follow(state, torch.tensor(sources, device=device))
    hidden = decoder.step(state, torch.tensor(tokens, device=device)[:, None])
    return decoder.logits(hidden[:, -1])


def _in_place(beams: Sequence[Beam]) -> list[Beam]:
    """The beams, in the places of those that they extend where possible: their state need not be copied then."""
    placed: list[Beam | None] = [None] * len(beams)
    rest = []
    for beam in beams:
        if beam.source < len(placed) and placed[beam.source] is None:
            placed[beam.source] = beam
        else:
            rest.append(beam)
    others = iter(rest)
    return [beam or next(others) for beam in placed]


def _mean(row: RowDecoding) -> float:
    return sum(row.log_probabilities) / max(1, len(row.log_probabilities))


def _places(search: Search) -> list[Beam | None]:
    active = [] if search.done else search.active
    return [*active, *[None] * (search.width - len(active))]
