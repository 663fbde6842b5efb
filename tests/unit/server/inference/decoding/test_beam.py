import math

import pytest

from server.inference.decoding.beam import Beam, Search
from server.inference.decoding.repetition import EAGER
from server.inference.decoding.token_rules import RowDecoding
from server.inference.whisper.special_tokens import SpecialTokens

END, STAMP = 100, 110
VOCABULARY = SpecialTokens(
    size=1611,
    end=END,
    start=101,
    transcribe=103,
    previous=107,
    no_speech=108,
    first_stamp=STAMP,
    languages={"en": 102},
    suppressed=(),
    suppressed_first=(),
    last_initial_stamp=STAMP + 50,
)


def started(width: int = 2, cap: int = 50) -> Search:
    """A search whose opening stamp is written."""
    search = Search(width, [Beam(RowDecoding(VOCABULARY, 5.0, cap, EAGER))])
    search.advance([[(STAMP, 0.0)]])
    return search


def offers(**chances: float) -> list[tuple[int, float]]:
    """Tokens by their letters, with their probabilities; `end` is the end."""
    return [(END if name == "end" else ord(name) - 96, math.log(chance)) for name, chance in chances.items()]


def texts(search: Search) -> list[str]:
    return ["".join(chr(token + 96) for token in beam.row.text) for beam in search.going]


def test_the_likeliest_ways_go_on_whatever_beam_they_come_from() -> None:
    search = started()
    search.advance([offers(a=0.6, b=0.4)])
    search.advance([offers(c=0.3, d=0.2), offers(c=0.9, d=0.1)])
    assert texts(search) == ["bc", "ac"]
    assert [beam.source for beam in search.going] == [1, 0]


def test_a_way_that_pays_late_wins_over_the_likeliest_first_token() -> None:
    search = started()
    search.advance([offers(a=0.6, b=0.4)])
    search.advance([offers(c=0.3, d=0.2), offers(c=0.9, d=0.1)])
    search.advance([offers(end=0.9), offers(end=0.9)])
    assert search.done
    assert search.best.text == [2, 3]


def test_a_longer_text_does_not_lose_for_its_length() -> None:
    search = started()
    search.advance([offers(a=0.5, b=0.5)])
    search.advance([offers(end=0.2), offers(c=1.0)])
    for _ in range(2):
        search.advance([offers(d=0.8)])
    search.advance([offers(end=0.9)])
    assert search.done
    assert search.best.text == [2, 3, 4, 4]


def test_a_text_that_was_stopped_loses_to_one_that_came_to_an_end() -> None:
    search = started()
    search.advance([offers(a=0.9, b=0.1)])
    for _ in range(2):
        search.advance([offers(a=1.0), offers(c=0.1)] if len(search.going) == 2 else [offers(c=0.1)])
    assert [beam.row.ending for beam in search.finished] == ["loop"]
    assert not search.done
    search.advance([offers(end=0.1)])
    assert search.best.text == [2, 3, 3]


def test_a_search_whose_beams_were_all_stopped_gives_the_best_of_them() -> None:
    search = started(cap=2)
    search.advance([offers(a=0.4, b=0.6)])
    assert search.done
    assert (search.best.text, search.best.ending) == ([2], "cap")


def test_as_many_ends_as_beams_are_enough() -> None:
    search = started()
    search.advance([offers(a=0.5, b=0.4, end=0.1)])
    assert not search.done
    search.advance([offers(end=0.9, c=0.1), offers(end=0.9, c=0.1)])
    assert search.done


def test_the_confidence_of_a_branch_is_its_own() -> None:
    search = started()
    search.advance([offers(a=0.6, b=0.4)])
    first, second = (beam.row for beam in search.going)
    assert first.log_probabilities == pytest.approx([math.log(0.6)])
    assert second.log_probabilities == pytest.approx([math.log(0.4)])


def test_the_greedy_text_is_never_dropped_for_a_shorter_one_that_is_less_likely() -> None:
    """Its beginning is less likely than other ways, its end makes up for it; the others leave words out."""
    search = started(width=2)
    search.advance([offers(a=0.4, b=0.35, c=0.25)])
    search.advance([offers(d=0.3, e=0.1), offers(f=0.5, g=0.5)])
    assert "ad" in texts(search)
    greedy = texts(search).index("ad")
    ends = [offers(h=0.99), offers(end=0.9, h=0.1)]
    search.advance(ends if greedy == 0 else ends[::-1])
    while not search.done:
        going = [offers(**{chr(104 + len(beam.row.text)): 0.99}) for beam in search.going]
        if max(len(beam.row.text) for beam in search.going) >= 8:
            going = [offers(end=0.99) for _ in search.going]
        search.advance(going)
    assert len(search.best.text) >= 8
    assert search.best.text[:2] == [1, 4]


def test_a_search_goes_on_until_the_greedy_text_has_ended() -> None:
    search = started(width=2)
    search.advance([offers(a=0.6, b=0.4)])
    search.advance([offers(c=0.6, d=0.4), offers(end=1.0)])
    search.advance([offers(e=0.6, end=0.4)] if len(search.going) == 1 else [offers(e=0.6, end=0.4), offers(end=1.0)])
    assert sum(beam.came_to_an_end for beam in search.finished) >= 2
    assert not search.done
    search.advance([offers(end=1.0) for _ in search.going])
    assert search.done


def test_a_longer_greedy_text_at_a_worse_probability_of_its_words_does_not_win() -> None:
    search = started(width=2)
    search.advance([offers(a=0.5, b=0.49)])
    search.advance([offers(c=0.3), offers(end=1.0)])
    search.advance([offers(end=1.0) for _ in search.going])
    assert search.done
    assert search.best.text == [2]
