"""Session ids are parsed where a call arrives."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from dalston.v1 import session_pb2 as pb

from domain.errors import InvalidResumption, InvalidSessionId
from domain.session_id import new_session_id, parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID, Caller, current_caller
from server.rpc.sessions import SessionServicer
from server.rpc.transcription import _parse_earlier

WRONG = "1; DROP TABLE realtime_sessions"
REQUESTS = [
    pb.GetSessionRequest(session_id=WRONG),
    pb.DeleteSessionRequest(session_id=WRONG),
    pb.EndSessionRequest(session_id=WRONG),
    pb.ListUtterancesRequest(session_id=WRONG),
    pb.GetAudioRequest(session_id=WRONG),
    pb.GetWaveformRequest(session_id=WRONG),
    pb.WatchUtterancesRequest(session_id=WRONG),
    pb.GetTranscriptRequest(session_id=WRONG),
    pb.ExportTranscriptRequest(session_id=WRONG, format="txt"),
]


@pytest.fixture
def servicer() -> Iterator[SessionServicer]:
    token = current_caller.set(Caller(DEFAULT_TENANT_ID))
    yield SessionServicer(MagicMock(), MagicMock(), MagicMock(), MagicMock())
    current_caller.reset(token)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_text_that_is_not_a_session_id_is_refused(servicer: SessionServicer, request_: Any) -> None:
    method = type(request_).__name__.removesuffix("Request")
    context = MagicMock()
    context.invocation_metadata.return_value = ()
    with pytest.raises(InvalidSessionId):
        await getattr(servicer, method)(request_, context)


def test_the_refusal_of_an_earlier_session_id_names_the_parameter() -> None:
    session_id = new_session_id()
    assert _parse_earlier(session_id) == parse_session_id(session_id)
    with pytest.raises(InvalidResumption) as refusal:
        _parse_earlier("sess_1")
    assert refusal.value.parameter == "resume_session_id"
