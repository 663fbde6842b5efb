import math

import pytest

from server.inference.decoding.beam import Beam, Search
from server.inference.decoding.repetition import STRICT
from server.inference.decoding.token_rules import RowDecoding
from server.inference.whisper.special_tokens import SpecialTokens

END, TIMESTAMP = 100, 110
SPECIAL_TOKENS = SpecialTokens(
    size=1611,
    end=END,
    start=101,
    transcribe=103,
    previous=107,
    no_speech=108,
    first_timestamp=TIMESTAMP,
    languages={"en": 102},
    suppressed=(),
    suppressed_first=(),
    last_initial_timestamp=TIMESTAMP + 50,
)


def started(width: int = 2, cap: int = 50) -> Search:
    """A search that has its opening timestamp."""
    search = Search(width, [Beam(RowDecoding(SPECIAL_TOKENS, 5.0, cap, STRICT))])
    search.advance([[(TIMESTAMP, 0.0)]])
    return search


def offers(**chances: float) -> list[tuple[int, float]]:
    """Tokens by their letters, with their probabilities; `end` is the end token."""
    return [(END if name == "end" else ord(name) - 96, math.log(log_chance)) for name, log_chance in chances.items()]


def texts(search: Search) -> list[str]:
    return ["".join(chr(token + 96) for token in beam.row.text) for beam in search.active]


def test_the_most_probable_extensions_are_kept_whatever_their_beam() -> None:
    search = started()
    search.advance([offers(a=0.6, b=0.4)])
    search.advance([offers(c=0.3, d=0.2), offers(c=0.9, d=0.1)])
    assert texts(search) == ["ac", "bc"]  # each in the place of the beam that it extends
    assert [beam.source for beam in search.active] == [0, 1]


def test_a_better_later_token_wins_over_the_likeliest_first_token() -> None:
    search = started()
    search.advance([offers(a=0.6, b=0.4)])
    search.advance([offers(c=0.3, d=0.2), offers(c=0.9, d=0.1)])
    search.advance([offers(end=0.9), offers(end=0.9)])
    assert search.done
    assert search.best.text == [2, 3]


def test_a_longer_text_does_not_rank_lower_for_its_length() -> None:
    search = started()
    search.advance([offers(a=0.5, b=0.5)])
    search.advance([offers(end=0.2), offers(c=1.0)])
    for _ in range(2):
        search.advance([offers(d=0.8)])
    search.advance([offers(end=0.9)])
    assert search.done
    assert search.best.text == [2, 3, 4, 4]


def test_a_stopped_text_ranks_below_a_complete_one() -> None:
    search = started()
    search.advance([offers(a=0.9, b=0.1)])
    for _ in range(2):
        search.advance([offers(a=1.0), offers(c=0.1)] if len(search.active) == 2 else [offers(c=0.1)])
    assert [beam.row.ending for beam in search.finished] == ["loop"]
    assert not search.done
    search.advance([offers(end=0.1)])
    assert search.best.text == [2, 3, 3]


def test_if_all_beams_were_stopped_the_best_one_is_returned() -> None:
    search = started(cap=2)
    search.advance([offers(a=0.4, b=0.6)])
    assert search.done
    assert (search.best.text, search.best.ending) == ([2], "cap")


def test_a_search_ends_with_as_many_finished_beams_as_its_width() -> None:
    search = started()
    search.advance([offers(a=0.5, b=0.4, end=0.1)])
    assert not search.done
    search.advance([offers(end=0.9, c=0.1), offers(end=0.9, c=0.1)])
    assert search.done


def test_each_branch_has_its_own_confidence() -> None:
    search = started()
    search.advance([offers(a=0.6, b=0.4)])
    first, second = (beam.row for beam in search.active)
    assert first.log_probabilities == pytest.approx([math.log(0.6)])
    assert second.log_probabilities == pytest.approx([math.log(0.4)])


def test_the_greedy_text_is_kept_over_a_shorter_less_probable_one() -> None:
    """Its beginning is less probable than that of other beams, which leave words out, and its end makes up for it."""
    search = started(width=2)
    search.advance([offers(a=0.4, b=0.35, c=0.25)])
    search.advance([offers(d=0.3, e=0.1), offers(f=0.5, g=0.5)])
    assert "ad" in texts(search)
    greedy = texts(search).index("ad")
    ends = [offers(h=0.99), offers(end=0.9, h=0.1)]
    search.advance(ends if greedy == 0 else ends[::-1])
    while not search.done:
        active = [offers(**{chr(104 + len(beam.row.text)): 0.99}) for beam in search.active]
        if max(len(beam.row.text) for beam in search.active) >= 8:
            active = [offers(end=0.99) for _ in search.active]
        search.advance(active)
    assert len(search.best.text) >= 8
    assert search.best.text[:2] == [1, 4]


def test_a_search_continues_until_the_greedy_beam_has_ended() -> None:
    search = started(width=2)
    search.advance([offers(a=0.6, b=0.4)])
    search.advance([offers(c=0.6, d=0.4), offers(end=1.0)])
    search.advance([offers(e=0.6, end=0.4)] if len(search.active) == 1 else [offers(e=0.6, end=0.4), offers(end=1.0)])
    assert sum(beam.is_complete for beam in search.finished) >= 2
    assert not search.done
    search.advance([offers(end=1.0) for _ in search.active])
    assert search.done


def test_a_longer_greedy_text_with_less_probable_words_does_not_win() -> None:
    search = started(width=2)
    search.advance([offers(a=0.5, b=0.49)])
    search.advance([offers(c=0.3), offers(end=1.0)])
    search.advance([offers(end=1.0) for _ in search.active])
    assert search.done
    assert search.best.text == [2]
