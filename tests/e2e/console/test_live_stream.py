"""How the microphone page continues after what a server may answer, with a WebSocket that the test plays itself."""

from typing import Any

import pytest
from playwright.sync_api import Page

# A server that plays a script: for each connection its messages and its close code, or null to end as requested.
_STREAM = """async ([script, before]) => {
  const { Keeper } = await import("/console/lib/keeper.js");
  const { LiveStream } = await import("/console/lib/live.js");
  const asked = [];
  globalThis.WebSocket = class {
    static OPEN = 1;
    readyState = 1;
    bufferedAmount = 0;
    constructor(url) {
      const query = Object.fromEntries(url.searchParams);
      asked.push([query.resume_session_id ?? null, query.resume_from_seconds ?? null]);
      const [messages, code] = script.shift();
      queueMicrotask(() => setTimeout(() => {
        for (const message of messages) this.onmessage?.({ data: JSON.stringify(message) });
        if (code) this.onclose?.({ code });
      }));
    }
    send(data) {
      if (typeof data === "string") this.onmessage?.({ data: JSON.stringify({ type: "session.end" }) });
      if (typeof data === "string") this.onclose?.({ code: 1000 });
    }
    close() {}
  };
  const take = await (await Keeper.open()).create(16000, { store_audio: true, store_transcript: true });
  take.append(new Uint8Array(320000));
  Object.assign(take, before ?? {});
  const shown = [];
  const nothing = () => {};
  const stream = new LiveStream(take, async () => null, {
    state: ({ name, loss }) => {
      if (name === "lost" && loss) queueMicrotask(() => stream.retry());
      if (name === "live" && !script.length) stream.complete();
    },
    session: nothing, partial: nothing, acknowledged: nothing, warning: nothing,
    final: ({ text, start }, replaced) => shown.push([text, start, replaced.map(({ text }) => text)]),
    withdrawn: (finals) => shown.push(["withdrawn", finals.map(({ text }) => text)]),
  });
  const lost = await stream.run();
  const sessions = take.sessions.map(({ id, base }) => [id, base / 32000]);
  const linked = take.sessions.map(({ isLinked }) => isLinked);
  const finals = take.finals.map(({ text }) => text);
  await take.remove();
  return { asked, shown, sessions, linked, finals, lost: lost?.reason ?? null };
}"""


def begin(session_id: str, resumed: float | None = None) -> dict[str, Any]:
    return {"type": "session.begin", "session_id": session_id} | (
        {} if resumed is None else {"resumed_from": "x", "resume_from_seconds": resumed}
    )


def final(text: str, start: float, end: float) -> dict[str, Any]:
    return {"type": "transcript.final", "text": text, "start": start, "end": end}


def ack(received: float, processed: float, stored: float) -> dict[str, Any]:
    return {
        "type": "audio.ack",
        "received_seconds": received,
        "processed_seconds": processed,
        "stored_seconds": stored,
    }


def error(code: str, **more: str) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": code, "recoverable": False, **more}


def run(page: Page, *script: tuple[list[dict[str, Any]], int | None], **before: Any) -> Any:
    page.goto("live.html")
    return page.evaluate(_STREAM, [[list(each) for each in script], before])


def test_the_next_session_begins_at_the_end_of_the_last_final_that_was_shown(page: Page) -> None:
    found = run(
        page,
        ([begin("a"), final("one", 0, 2), final("two", 3, 4), ack(8, 8, 6)], 1006),
        ([begin("b", 4.0), final("three", 1, 2), ack(3, 3, 3)], 1012),
        ([begin("c", 2.0)], None),
    )
    assert found["asked"] == [[None, None], ["a", "4.000000"], ["b", "2.000000"]]
    assert found["sessions"] == [["a", 0], ["b", 4], ["c", 6]]
    assert found["linked"] == [False, True, True]
    assert found["shown"] == [["one", 0, []], ["two", 3, []], ["three", 5, []]]


def test_finals_that_a_session_sends_again_replace_those_that_are_shown(page: Page) -> None:
    found = run(
        page,
        # Only the first final is stored.
        ([begin("a"), final("one", 0, 2), final("two", 3, 4), final("noise", 5, 6), ack(8, 8, 2.5)], 1006),
        ([begin("b", 2.0), final("too", 1, 2), ack(6, 6, 6)], 1006),
        ([begin("c", 2.0)], None),
    )
    assert found["asked"][1] == ["a", "2.000000"]
    assert found["shown"][3:] == [["too", 3, ["two"]], ["withdrawn", ["noise"]]]
    assert found["finals"] == ["one", "too"]


@pytest.mark.parametrize("code", ["session_not_found", "invalid_parameters"])
def test_a_session_that_cannot_be_continued_is_replaced_by_a_new_one(page: Page, code: str) -> None:
    found = run(
        page,
        ([begin("a"), final("one", 0, 2), ack(8, 8, 8)], 1006),
        ([error(code)], 4404),
        ([begin("b")], None),
    )
    assert found["asked"] == [[None, None], ["a", "2.000000"], [None, None]]
    assert found["sessions"] == [["a", 0], ["b", 2]]
    assert found["linked"] == [False, False]
    assert found["lost"] is None


def test_a_session_that_began_without_the_page_knowing_is_continued(page: Page) -> None:
    """The page was closed after a session had begun, and before the browser had stored its id."""
    found = run(
        page,
        ([error("session_resumed", resumed_by="b")], 4409),
        ([begin("c", 0.0)], None),
        sessions=[{"id": "a", "base": 0}],
        asked=64_000,
    )
    assert found["asked"] == [["a", "0.000000"], ["b", "0.000000"]]
    assert found["sessions"] == [["a", 0], ["b", 2], ["c", 2]]


@pytest.mark.parametrize("passing", ["session_active", "too_many_sessions", "no_capacity", "internal"])
def test_a_refusal_that_passes_is_tried_again(page: Page, passing: str) -> None:
    found = run(page, ([error(passing)], 4429), ([begin("a")], None))
    assert (found["lost"], found["sessions"]) == (None, [["a", 0]])


@pytest.mark.parametrize(
    "reason", ["session_ended", "session_resumed", "storage_quota_exceeded", "permission_denied", "invalid_model"]
)
def test_a_refusal_that_lasts_ends_the_recording_and_keeps_its_audio(page: Page, reason: str) -> None:
    never: tuple[list[dict[str, Any]], None] = ([], None)
    found = run(page, ([begin("a"), ack(1, 1, 1), error(reason)], 4400), never)
    assert found["lost"] == reason
