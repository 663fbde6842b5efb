"""Shows the text of a session as it is recognised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dalston.cli import documents, output
from dalston.cli.live_view import LiveView

if TYPE_CHECKING:
    from dalston.events import PartialResult
    from dalston.records import Utterance


def show(spoken: Iterator[Utterance | PartialResult]) -> None:
    """Writes a line for each utterance; below them, a terminal shows the one that is being spoken."""
    from dalston.records import Utterance

    with LiveView(None) as view:
        for each in spoken:
            if isinstance(each, Utterance):
                view.partial("")
                output.print_line(f"{each.start:9.2f} {each.end:9.2f}  {each.text}")
            else:
                view.partial(each.text)


def print_json(spoken: Iterator[Utterance | PartialResult]) -> None:
    """Writes a JSON object a line, as the REST API sends them."""
    from dalston.records import Utterance

    for each in spoken:
        kind = "utterance" if isinstance(each, Utterance) else "partial"
        output.print_json_line({"type": kind, kind: documents.document(each)})
