"""The decoder loop that keeps several ways to go on, and takes the best one in the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from server.inference.decoding.generation import TokenChooser
from server.inference.decoding.token_rules import Allowed, RowDecoding
from server.inference.whisper.decoder import Decoder, DecoderState


@dataclass(slots=True)
class Beam:
    """One way of writing a row, and how likely."""

    row: RowDecoding
    log_probability: float = 0.0
    """Of all that it wrote, stamps and end included."""
    steps: int = 0
    source: int = 0
    """Which of the beams before the last step it goes on from."""
    is_greedy: bool = True
    """Whether it has taken the likeliest token each time."""

    @property
    def came_to_an_end(self) -> bool:
        """By itself, that is, and not by being stopped."""
        return self.row.ending in ("end", "closed")

    @property
    def rank(self) -> tuple[bool, float]:
        """The mean over its steps, for the longer text is not to lose for its length alone."""
        return self.came_to_an_end, self.log_probability / max(1, self.steps)


class _Way(NamedTuple):
    """One token more for one beam."""

    log_probability: float
    """Of all with it."""
    source: int
    token: int
    chance: float
    is_greedy: bool


@dataclass(slots=True)
class Search:
    """The beams of one row."""

    width: int
    """Beams to go on with, and ends to choose from."""
    going: list[Beam]
    finished: list[Beam] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Not before the greedy beam is: texts that leave much out are the first to end."""
        if any(beam.is_greedy for beam in self.going):
            return False
        return not self.going or sum(beam.came_to_an_end for beam in self.finished) >= self.width

    @property
    def best(self) -> RowDecoding:
        """The likeliest text, and never fewer words than the greedy one has at a better probability of its words."""
        best = max(self.finished or self.going, key=lambda beam: beam.rank)
        greedy = next((beam for beam in self.finished if beam.is_greedy and beam.came_to_an_end), best)
        says_more = len(greedy.row.text) > len(best.row.text)
        return greedy.row if says_more and _mean(greedy.row) >= _mean(best.row) else best.row

    def advance(self, choices: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Takes the tokens that each beam may go on with and their log probabilities; keeps the likeliest ways.

        The greedy one is among them, however unlikely it is for now.
        """
        ways = [
            _Way(beam.log_probability + chance, source, token, chance, beam.is_greedy and not rank)
            for source, (beam, offered) in enumerate(zip(self.going, choices, strict=True))
            for rank, (token, chance) in enumerate(offered)
        ]
        before, self.going = self.going, []
        greedy = next((way for way in ways if way.is_greedy), None)
        for way in sorted(ways, key=lambda way: -way.log_probability):
            # The last place is the greedy one's as long as it has none.
            if way is not greedy and greedy is not None and len(self.going) == self.width - 1:
                continue
            row = before[way.source].row.branch()
            row.accept(way.token, way.chance)
            beam = Beam(row, way.log_probability, before[way.source].steps + 1, way.source, way.is_greedy)
            (self.finished if row.ending else self.going).append(beam)
            if way is greedy:
                greedy = None
            if len(self.going) == self.width:
                return


_KEPT = 0.75
"""Once no more of the rows go on than this share, the others are dropped: a CPU takes less time for fewer, but some for
copying those that stay."""
_IDLE = Allowed(text=True, opens_text=False, end=True, stamps=range(0))
"""For the places of a search that has fewer beams than it may have."""


def search(
    decoder: Decoder,
    state: DecoderState,
    choose: TokenChooser,
    logits: torch.Tensor,
    rows: Sequence[RowDecoding],
    width: int,
) -> list[RowDecoding]:
    """Decodes with `width` beams a row until every row is done, and gives the best one of each.

    Args:
        logits: of each row's last prompt token, [rows, vocabulary].
        rows: each with nothing written yet.
    """
    searches = going = [Search(width, [Beam(row)]) for row in rows]
    decoder.fan_out(state, width)
    logits = logits.repeat_interleave(width, dim=0)
    while True:
        beams = [beam for each in going for beam in _places(each)]
        allowed = [beam.row.allowed() if beam else _IDLE for beam in beams]
        choices = choose.several(logits, allowed, width)
        for first, each in zip(range(0, len(beams), width), going, strict=True):
            if not each.done:
                each.advance(choices[first : first + len(each.going)])
        left = [number for number, each in enumerate(going) if not each.done]
        if not left:
            return [each.best for each in searches]
        if state.tokens.device.type == "cpu" and len(left) <= _KEPT * len(going):
            decoder.keep(state, left)
            going = [going[number] for number in left]
        logits = _step(decoder, state, going, width)


def _step(decoder: Decoder, state: DecoderState, searches: Sequence[Search], width: int) -> torch.Tensor:
    """Has every beam read what it wrote last; the logits of what comes next."""
    sources, tokens = [], []
    for number, each in enumerate(searches):
        for beam in _places(each):
            sources.append(number * width + (beam.source if beam else 0))
            tokens.append(beam.row.tokens[-1] if beam else 0)
    device = state.tokens.device
    decoder.follow(state, torch.tensor(sources, device=device))
    hidden = decoder.step(state, torch.tensor(tokens, device=device)[:, None])
    return decoder.logits(hidden[:, -1])


def _mean(row: RowDecoding) -> float:
    return sum(row.log_probabilities) / max(1, len(row.log_probabilities))


def _places(search: Search) -> list[Beam | None]:
    going = [] if search.done else search.going
    return [*going, *[None] * (search.width - len(going))]
