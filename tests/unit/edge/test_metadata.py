import pytest
from websockets.datastructures import Headers

from edge.metadata import authorization, call_metadata
from edge.refusal import Refused


def test_key_address_and_user_agent_of_the_client_are_passed_on():
    headers = Headers(
        {"Authorization": "Bearer k", "X-Forwarded-For": "10.1.2.3", "User-Agent": "curl/8", "Cookie": "c"}
    )
    assert dict(call_metadata(headers.get_all, "127.0.0.1", "Bearer k")) == {
        "authorization": "Bearer k",
        "x-forwarded-for": "10.1.2.3",
        "x-user-agent": "curl/8",
    }


def test_without_a_proxy_the_peer_is_the_client():
    assert dict(call_metadata(Headers().get_all, "192.0.2.1", "")) == {"x-forwarded-for": "192.0.2.1"}


def test_several_proxies_make_one_list():
    headers = Headers([("X-Forwarded-For", "10.1.2.3"), ("X-Forwarded-For", "10.9.9.9")])
    assert dict(call_metadata(headers.get_all, "p", ""))["x-forwarded-for"] == "10.1.2.3, 10.9.9.9"


def test_a_key_of_the_query_becomes_a_bearer_token():
    assert authorization([], "k") == "Bearer k"


def test_the_same_key_twice_is_one_key():
    assert authorization(["Bearer k"], "k") == "Bearer k"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        (Headers({"Authorization": "Bearer a"}), "b"),
        (Headers([("Authorization", "Bearer a"), ("Authorization", "Bearer b")]), None),
        (Headers(), "schlüssel"),
        (Headers(), "line\nbreak"),
        (Headers(), "k" * 5000),
        (Headers({"Authorization": "Bearer \xe9"}), None),
    ],
)
def test_an_invalid_key_is_refused(headers: Headers, key: str | None):
    with pytest.raises(Refused) as caught:
        call_metadata(headers.get_all, "p", authorization(headers.get_all("Authorization"), key))
    assert caught.value.reason == "UNAUTHENTICATED"


def test_values_that_grpc_refuses_are_left_out():
    headers = Headers({"User-Agent": "\xe9", "X-Forwarded-For": "1" * 5000})
    assert dict(call_metadata(headers.get_all, "192.0.2.1", "")) == {"x-forwarded-for": "192.0.2.1"}
