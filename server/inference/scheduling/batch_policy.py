"""Selects the next batch from the waiting utterances. Pure."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from server.inference.batch_limits import BatchLimits
from server.inference.decoding.encoder_window import ENCODER_FRAMES_PER_SECOND

_LENGTH_PENALTY = 0.5
"""Seconds by which each second of its speech delays a partial's turn: at the start of an utterance the client has no
text yet, and is served soon."""


Kind = Literal["live", "bulk", "partial"]
"""A final that a client waits for; a final of a recording that is sent faster than real time; a partial."""

FINALS_FIRST: Final[tuple[Kind, ...]] = ("live", "bulk", "partial")
BULK_LAST: Final[tuple[Kind, ...]] = ("live", "partial", "bulk")
PARTIALS_FIRST: Final[tuple[Kind, ...]] = ("partial", "live", "bulk")
BULK_FIRST: Final[tuple[Kind, ...]] = ("bulk", "live", "partial")


@dataclass(frozen=True, slots=True)
class Candidate:
    """The properties of a waiting utterance that determine its batch."""

    model: str
    encoder_frames: int
    session: Hashable = None
    turn: float = 0.0
    """Since when it has waited for others: its arrival, or the end of its session's last batch if that is later."""
    kind: Kind = "live"
    tenant: Hashable = None
    tenant_served: float = float("-inf")
    """When the last batch with an utterance of its tenant ended."""

    @property
    def tenant_turn(self) -> float:
        """Since when its tenant has waited for others with it."""
        return max(self.turn, self.tenant_served)


def next_batch(queue: Sequence[Candidate], limits: BatchLimits, precedence: Sequence[Kind] = FINALS_FIRST) -> list[int]:
    """The indices of the next batch in `queue`, which is in order of arrival; empty if no kind of `precedence` waits.

    The batch is of the first kind of `precedence` that waits. Partials never share a batch with finals, because a batch
    takes as long as its longest row. Within a kind tenants take turns, and within a tenant its sessions. The batch
    begins with the tenant that has waited longest for its turn, and with that tenant's session that has, whatever the
    model, so that nothing starves; a long partial counts as one that arrived later. Utterances for the same model join
    while the batch stays within its limits: the next of every tenant before the second of any, within a tenant the next
    of every session before the second of any, and finals of the other kind last.
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
    chosen, longest, used = [order[0]], head.encoder_frames, head.encoder_frames
    for index in order[1:]:
        candidate = queue[index]
        if len(chosen) >= limits.rows:
            break
        if candidate.model != head.model:
            continue
        longest_then = max(longest, candidate.encoder_frames)
        total = longest_then * (len(chosen) + 1)
        if total > limits.encoder_frames or total - used - candidate.encoder_frames > limits.waste * total:
            continue
        chosen.append(index)
        longest, used = longest_then, used + candidate.encoder_frames
    return chosen


def _in_turn(queue: Sequence[Candidate], kind: Kind) -> list[int]:
    """The indices of one kind: first the next utterance of every tenant, by turn, then the second of each, and so
    on."""
    places: Counter[Hashable] = Counter()
    keys: list[tuple[int, float, int, int]] = []
    for index in _by_session(queue, kind):
        candidate = queue[index]
        keys.append((places[candidate.tenant], candidate.tenant_turn, len(keys), index))
        places[candidate.tenant] += 1
    return [index for *_, index in sorted(keys)]


def _by_session(queue: Sequence[Candidate], kind: Kind) -> list[int]:
    """The indices of one kind: first the next utterance of every session, by turn, then the second of each."""
    before: Counter[Hashable] = Counter()
    keys = []
    for index, candidate in enumerate(queue):
        if candidate.kind == kind:
            penalty = (
                _LENGTH_PENALTY * candidate.encoder_frames / ENCODER_FRAMES_PER_SECOND if kind == "partial" else 0.0
            )
            keys.append((before[candidate.session], candidate.turn + penalty, index))
            before[candidate.session] += 1
    return [index for _, _, index in sorted(keys)]
