import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.whole_file.plan import PASSAGE_SECONDS, SAMPLE_RATE, Plan, in_passages
from worker.whole_file.segmentation import SpokenSegment


def segments_of(lengths: list[tuple[int, int, int]]) -> list[SpokenSegment]:
    found, position = [], 0
    for gap, pad, spoken in lengths:
        start = position + gap
        first = start + pad
        found.append(
            SpokenSegment(
                start, first + 3 * spoken + pad, ((first, first + spoken), (first + 2 * spoken, first + 3 * spoken))
            )
        )
        position = found[-1].end
    return found


lengths = st.lists(
    st.tuples(st.integers(0, 100_000), st.integers(0, 3200), st.one_of(st.integers(1, 50_000), st.just(512))),
    max_size=30,
)


@given(lengths, st.booleans())
def test_a_plan_that_was_stored_is_the_same(gaps: list[tuple[int, int, int]], is_certain: bool) -> None:
    plan = Plan(10**7, "fr", 0.25, is_certain, in_passages(segments_of(gaps)))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(lengths)
def test_passages_hold_every_segment_once_and_are_short(gaps: list[tuple[int, int, int]]) -> None:
    found = segments_of(gaps)
    passages = in_passages(found)
    assert [segment for passage in passages for segment in passage.segments] == found
    for passage in passages:
        assert len(passage.segments) == 1 or passage.end - passage.start <= PASSAGE_SECONDS * SAMPLE_RATE


def test_an_hour_of_utterances_takes_a_few_kilobytes() -> None:
    each = [(8000, 3200, 16_384)] * 900
    plan = Plan(10**8, "en", 1.0, True, in_passages(segments_of(each)))
    assert plan.passages[-1].end > 0.9 * 3600 * SAMPLE_RATE
    assert len(json.dumps(plan.to_json(), separators=(",", ":"))) < 40_000


def test_the_ends_of_passages_are_seconds_of_the_recording() -> None:
    plan = Plan(160_000, "en", 1.0, True, in_passages([SpokenSegment(0, 16_000, ((0, 16_000),))]))
    assert plan.ends == [1.0]
    assert plan.seconds == 10
    assert plan.speech == [(0.0, 1.0)]


@pytest.mark.parametrize("shape", [None, [], {}, {"format": 0}, {"format": 1, "samples": 1}, "plan"])
def test_anything_else_is_refused(shape: object) -> None:
    with pytest.raises(ValueError, match="plan"):
        Plan.from_json(shape)
