"""Which of the waiting utterances the model does next. Pure."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from server.inference.batch_limits import BatchLimits

FRAMES_PER_SECOND = 50
_BUCKET = 32
_MARGIN_SECONDS = 1.5
_LENGTH_WAITS = 0.5
"""By how much later than it is a partial's turn counts for each second of its speech: who has just begun has nothing to
read yet, and is soon served."""


def window(seconds: float, full: int) -> int:
    """Encoder frames for an utterance: its length and a second and a half of silence, in steps, `full` at most.

    The silence tells the model that the utterance is over; the steps make lengths alike enough to share a batch.
    """
    return min(full, _BUCKET * math.ceil((seconds + _MARGIN_SECONDS) * FRAMES_PER_SECOND / _BUCKET))


Kind = Literal["live", "ahead", "partial"]
"""A final that somebody waits for; one of a recording that is sent faster than it was spoken; a partial."""

FINALS_FIRST: Final[tuple[Kind, ...]] = ("live", "ahead", "partial")
BULK_LAST: Final[tuple[Kind, ...]] = ("live", "partial", "ahead")
PARTIALS_FIRST: Final[tuple[Kind, ...]] = ("partial", "live", "ahead")
BULK_FIRST: Final[tuple[Kind, ...]] = ("ahead", "live", "partial")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A waiting utterance, as far as batching is concerned."""

    model: str
    frames: int
    session: Hashable = None
    turn: float = 0.0
    """Since when it waits for others: its arrival, or the end of its session's last batch if that is later."""
    kind: Kind = "live"
    tenant: Hashable = None
    tenant_served: float = float("-inf")
    """When a batch with something of its tenant in it was through the last time."""

    @property
    def tenant_turn(self) -> float:
        """Since when its tenant has waited for others with it."""
        return max(self.turn, self.tenant_served)


def next_batch(queue: Sequence[Candidate], limits: BatchLimits, precedence: Sequence[Kind] = FINALS_FIRST) -> list[int]:
    """Indices into `queue`, which is in the order of arrival, of the next batch; empty if there is none of its kinds.

    The first kind of `precedence` that waits goes. Partials never share a batch with finals: it takes as long as its
    longest row. Of each kind the tenants take turns, and of each tenant its sessions. The batch begins with the tenant
    whose turn has waited longest, and of that with the session, whatever its model, so nothing of its kind starves; a
    long partial counts as one that came later. Others of its model join it while the batch stays within its limits: the
    next of every tenant before the second of any, of a tenant the next of every session before the second of any, and
    finals of the other kind at last.
    """
    kinds = [kind for kind in precedence if any(candidate.kind == kind for candidate in queue)]
    if not kinds:
        return []
    if kinds[0] == "partial":
        order = _in_turn(queue, "partial")
        limits = limits.for_partials()
    else:
        order = [index for kind in kinds if kind != "partial" for index in _in_turn(queue, kind)]
    head = queue[order[0]]
    chosen, longest, used = [order[0]], head.frames, head.frames
    for index in order[1:]:
        candidate = queue[index]
        if len(chosen) >= limits.rows:
            break
        if candidate.model != head.model:
            continue
        longest_then = max(longest, candidate.frames)
        total = longest_then * (len(chosen) + 1)
        if total > limits.frames or total - used - candidate.frames > limits.waste * total:
            continue
        chosen.append(index)
        longest, used = longest_then, used + candidate.frames
    return chosen


def _in_turn(queue: Sequence[Candidate], kind: Kind) -> list[int]:
    """Indices of one kind: first the next of every tenant, by turn, then the second of each, and so on."""
    places: Counter[Hashable] = Counter()
    keys: list[tuple[int, float, int, int]] = []
    for index in _by_session(queue, kind):
        candidate = queue[index]
        keys.append((places[candidate.tenant], candidate.tenant_turn, len(keys), index))
        places[candidate.tenant] += 1
    return [index for *_, index in sorted(keys)]


def _by_session(queue: Sequence[Candidate], kind: Kind) -> list[int]:
    """Indices of one kind: first the next of every session, by turn, then the second of each, whatever its tenant."""
    before: Counter[Hashable] = Counter()
    keys = []
    for index, candidate in enumerate(queue):
        if candidate.kind == kind:
            longer = _LENGTH_WAITS * candidate.frames / FRAMES_PER_SECOND if kind == "partial" else 0.0
            keys.append((before[candidate.session], candidate.turn + longer, index))
            before[candidate.session] += 1
    return [index for _, _, index in sorted(keys)]
