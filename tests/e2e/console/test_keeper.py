"""What the microphone page keeps in the browser, as modules without a microphone: bounds, letting go, resume points."""

from typing import Any

import pytest
from playwright.sync_api import Page

_KEEPER = """async (bound) => {
  const { Keeper } = await import("/console/lib/keeper.js");
  const keeper = await Keeper.open();
  const take = await keeper.create(16000, { store_audio: true });
  take.bound = bound ?? take.bound;
  const second = (value) => new Uint8Array(32000).fill(value);
  const settled = async (condition) => {
    while (!(await condition())) await new Promise((done) => setTimeout(done, 10));
  };
"""


@pytest.fixture
def keeper_page(page: Page) -> Page:
    page.goto("live.html")
    return page


def run(page: Page, body: str, argument: Any = None) -> Any:
    return page.evaluate(_KEEPER + body + "}", argument)


def test_audio_is_kept_until_it_is_stored_and_processed_and_thirty_seconds_longer(keeper_page: Page) -> None:
    found = run(
        keeper_page,
        """
        for (let index = 0; index < 100; index += 1) take.append(second(index));
        const starts = [];
        for (const [stored, processed] of [[20, 40], [80, 45], [80, 90]]) {
          take.timeline.acknowledge({ received_seconds: 95, stored_seconds: stored, processed_seconds: processed });
          take.letGo();
          starts.push(take.start / 32000);
        }
        await settled(async () => (await records(take)) <= 51);
        return { starts, first: take.read(take.start)[0], unsent: take.unsent };
        async function records(take) {
          const store = keeper.database.transaction("audio").objectStore("audio");
          return new Promise((done) => { const r = store.count(); r.onsuccess = () => done(r.result); });
        }
        """,
    )
    assert found == {"starts": [0, 15, 50], "first": 50, "unsent": 5}


def test_a_take_without_room_drops_its_oldest_audio_and_counts_what_the_server_has_not(keeper_page: Page) -> None:
    found = run(
        keeper_page,
        """
        for (let index = 0; index < 4; index += 1) take.append(second(index));
        take.timeline.acknowledge({ received_seconds: 3, stored_seconds: 0, processed_seconds: 0 });
        for (let index = 4; index < 9; index += 1) take.append(second(index));
        return { start: take.start / 32000, end: take.end / 32000, dropped: take.dropped / 32000 };
        """,
        160_000,
    )
    # The first three seconds had reached the server.
    assert found == {"start": 4, "end": 9, "dropped": 1}


def test_a_take_of_a_closed_page_is_found_complete_and_by_one_page_only(keeper_page: Page) -> None:
    found = run(
        keeper_page,
        """
        for (let index = 0; index < 5; index += 1) take.append(second(index));
        take.addFinal({ text: "one", start: 0.5, end: 1.5 });
        take.sessions.push({ id: "sess_1", base: 0 });
        take.save();
        const others = await keeper.found();
        take.release();
        await settled(async () => (await keeper.found())[0]?.end === 160000);
        const again = await keeper.resume(take.id);
        const second_ = await keeper.resume(take.id);
        const wav = new DataView(await again.wav().arrayBuffer());
        const result = {
          others: others.length, finals: again.finals.map(({ text }) => text), sessions: again.sessions, end: again.end,
          bytes: [0, 32000, 159999].map((position) => again.read(position)[0]),
          taken: second_ === null, wav: [wav.byteLength, wav.getUint32(40, true), wav.getUint32(24, true)],
        };
        await again.remove();
        return { ...result, left: (await keeper.found()).length };
        """,
    )
    assert found == {
        "others": 0,
        "finals": ["one"],
        "sessions": [{"id": "sess_1", "base": 0}],
        "end": 160_000,
        "bytes": [0, 1, 4],
        "taken": True,
        "wav": [160_044, 160_000, 16_000],
        "left": 0,
    }


@pytest.mark.parametrize(
    ("stored", "kept_from", "stores_audio", "point"),
    [
        (100, 0, True, 9.0),  # the end of the last final
        (5, 0, True, 4.5),  # the last end that is stored
        (0, 0, True, 2.0),  # none is: the session is replaced
        (0, 0, False, 9.0),
        (5, 6, True, 6.0),  # never before the audio that is kept
    ],
)
def test_the_resume_point_is_the_end_of_the_last_final_that_was_shown_and_stored(
    keeper_page: Page, stored: float, kept_from: float, stores_audio: bool, point: float
) -> None:
    found = keeper_page.evaluate(
        """async ([stored, keptFrom, storesAudio]) => {
          const { Timeline } = await import("/console/lib/timeline.js");
          const timeline = new Timeline(16000);
          timeline.begin(timeline.position(2));
          for (const end of [1, 2.5, 7]) timeline.final({ text: "", start: end - 0.5, end });
          timeline.acknowledge({ received_seconds: 8, processed_seconds: 8, stored_seconds: Math.max(0, stored - 2) });
          return timeline.resumePoint(timeline.position(keptFrom), storesAudio) / 32000;
        }""",
        [stored, kept_from, stores_audio],
    )
    assert found == point
