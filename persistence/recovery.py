"""On start: finishes the sessions that processes which are gone left in the spool."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from persistence.finisher import Finisher, Finishing
from persistence.records import Conclusion, Ending, Progress
from persistence.rows import SessionRows
from persistence.spool import SessionSpool, remove_rubbish
from persistence.spool_home import SpoolHome
from persistence.transcript import majority_language
from telemetry.logs import get_logger

log = get_logger(__name__)

INTERRUPTED: Final = Ending("interrupted", "the server stopped unexpectedly")

_recovered = Counter("dalston_sessions_recovered_total", "Sessions of an earlier process that were taken over")


async def recover(home: SpoolHome, finisher: Finisher, rows: SessionRows) -> list[Finishing]:
    """Hands the sessions of a dead process to the finisher and ends those that left no trace but their row.

    Returns when every row has its final status; the objects follow in the background.

    Raises:
        StorageUnavailable: Postgres is away.
        OSError: the spool's disk is broken.
    """
    taken = []
    for directory in await asyncio.to_thread(home.session_directories):
        spool = await asyncio.to_thread(_open, directory)
        if spool is not None:
            conclusion = spool.manifest.conclusion
            if conclusion is None:
                conclusion = await asyncio.to_thread(_conclude, spool)
            taken.append(finisher.finish(spool.manifest.start, conclusion, spool))
    for finishing in taken:
        await finishing.wait_for_row(seconds=30.0)
    lost = await rows.end_active(home.worker_id, INTERRUPTED.status, str(INTERRUPTED.error), datetime.now(UTC))
    _recovered.inc(len(taken) + lost)
    if taken or lost:
        log.info("sessions of an earlier process recovered", spooled=len(taken), rows_only=lost)
    return taken


def _open(directory: Path) -> SessionSpool | None:
    try:
        spool = SessionSpool.open(directory)
    except ValueError:
        log.exception("a damaged session stays in the spool", directory=directory.name)
        return None
    if spool is None:
        remove_rubbish(directory)
    return spool


def _conclude(spool: SessionSpool) -> Conclusion:
    """The end of a session whose process died: what the spool knows; the row may know more, and keeps it."""
    start = spool.manifest.start
    utterances = spool.utterances()
    seconds = spool.wav.seconds(spool.audio_bytes())
    progress = Progress(
        audio_seconds=seconds if start.store_audio else max((each.end for each in utterances), default=0.0),
        utterances=len(utterances),
        words=sum(each.word_count for each in utterances),
        language=majority_language(start.language, utterances),
    )
    return Conclusion(INTERRUPTED, spool.last_change(), progress)
