"""On start: finishes the sessions that dead processes left in the spool."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Counter

from domain.transcript import majority_language
from persistence.postgres.ownership import Ownership
from persistence.resume_point import ResumePoint
from persistence.session_values import INTERRUPTED, Conclusion, Progress
from persistence.spool.budget import SpoolBudget
from persistence.spool.session_spool import SessionSpool, delete_directory
from persistence.spool.spool_home import SpoolHome
from persistence.storing.finisher import Finisher
from telemetry.logs import get_logger

log = get_logger(__name__)

_recovered = Counter("dalston_sessions_recovered_total", "Sessions of an earlier process that were taken over")


async def recover(homes: Sequence[SpoolHome], finisher: Finisher, ownership: Ownership) -> None:
    """Takes over the sessions of dead processes: every row has its status when this returns, in one statement.

    The spooled sessions follow in the background, a few at a time, also those that another server has ended meanwhile.
    The reaper ends sessions without a spool.

    Raises:
        StorageUnavailable: Postgres is unavailable.
        OSError: the spool's disk is broken.
    """
    spools = await asyncio.to_thread(_open_all, homes)
    ids = [spool.manifest.start.id for spool in spools]
    taken = await ownership.adopt([home.worker_id for home in homes], ids, INTERRUPTED, datetime.now(UTC))
    finisher.take_over(spools, conclusion_of)
    _recovered.inc(len(taken))
    if taken or spools:
        log.info("sessions of an earlier process recovered", rows=len(taken), spooled=len(spools))


def _open_all(homes: Sequence[SpoolHome]) -> list[SessionSpool]:
    found = [_open(directory, home.budget) for home in homes for directory in home.session_directories()]
    return [spool for spool in found if spool is not None]


def _open(directory: Path, budget: SpoolBudget) -> SessionSpool | None:
    try:
        spool = SessionSpool.open(directory, budget)
    except ValueError:
        log.exception("a damaged session stays in the spool", directory=directory.name)
        return None
    if spool is None:
        delete_directory(directory)
    return spool


def conclusion_of(spool: SessionSpool) -> Conclusion:
    """The end of a session whose process is dead, from its spool. Its row may have more, and keeps it.

    Raises:
        OSError: the disk is broken.
    """
    if spool.manifest.conclusion is not None:
        return spool.manifest.conclusion
    start = spool.manifest.start
    utterances = spool.utterances()
    seconds = spool.wav.seconds(spool.audio_bytes())
    resume_point = ResumePoint()
    for each in utterances:
        resume_point.note_utterance(each.start, each.end)
    progress = Progress(
        audio_seconds=seconds if start.store_audio else max((each.end for each in utterances), default=0.0),
        utterances=len(utterances),
        words=sum(each.word_count for each in utterances),
        language=majority_language(start.language, utterances),
        processed_seconds=resume_point.seconds(seconds),
    )
    return Conclusion(INTERRUPTED, spool.last_change(), progress)
