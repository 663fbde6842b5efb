import errno
from pathlib import Path

import pytest

from stack import public_address
from stack.errors import CannotStart
from stack.settings import StackSettings
from tests.integration.envoy.certificates import make_certificate


def settings(**values: object) -> StackSettings:
    return StackSettings(home=Path("/nowhere"), **values)  # type: ignore[arg-type]


def with_problems(monkeypatch: pytest.MonkeyPatch, problems: dict[str, int]) -> None:
    monkeypatch.setattr(public_address, "_problem", lambda host, _: problems.get(host))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_localhost_means_both_of_its_addresses(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with_problems(monkeypatch, {})
    assert public_address.addresses(settings(host=host)) == ["127.0.0.1", "::1"]


def test_a_machine_without_ipv6_is_served_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with_problems(monkeypatch, {"::1": errno.EADDRNOTAVAIL})
    assert public_address.addresses(settings()) == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_on_either_address_is_refused_with_an_alternative(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with_problems(monkeypatch, {host: errno.EADDRINUSE})
    with pytest.raises(CannotStart, match=f"port 8000 on {host} is in use.*DALSTON_PORT=8001"):
        public_address.addresses(settings(port=8000))


def test_a_low_port_is_refused_to_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with_problems(monkeypatch, {"127.0.0.1": errno.EACCES})
    with pytest.raises(CannotStart, match="above 1023"):
        public_address.addresses(settings(port=80))


def test_nothing_is_served_to_the_network_without_authentication_unless_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_problems(monkeypatch, {})
    with pytest.raises(CannotStart, match="refusing to listen"):
        public_address.addresses(settings(host="192.0.2.1"))
    allowed = settings(host="192.0.2.1", allow_unauthenticated=True)
    assert public_address.addresses(allowed) == ["192.0.2.1"]


def test_keys_in_plain_text_are_refused_beyond_loopback_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_problems(monkeypatch, {})
    with pytest.raises(CannotStart, match=r"without TLS.*DALSTON_ALLOW_PLAINTEXT"):
        public_address.addresses(settings(host="192.0.2.1", auth="keys"))
    encrypted = {"tls_cert": Path("chain.pem"), "tls_key": Path("key.pem")}
    for more in (encrypted, {"allow_plaintext": True}):
        assert public_address.addresses(settings(host="192.0.2.1", auth="keys", **more)) == ["192.0.2.1"]
    assert "127.0.0.1" in public_address.addresses(settings(auth="keys"))


def test_a_name_is_no_address() -> None:
    with pytest.raises(CannotStart, match="must be an IP address"):
        public_address.addresses(settings(host="example.com", allow_unauthenticated=True))


def test_without_authentication_only_local_host_names_are_answered() -> None:
    assert "*" not in public_address.names(settings())
    assert public_address.names(settings(allow_unauthenticated=True)) == ("*",)


def test_files_that_are_no_certificate_and_its_key_are_refused(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, 1)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", 2)
    text = tmp_path / "notes.txt"
    text.write_text("no certificate")
    for chain, key in (
        (text, text),
        (made.chain, text),
        (made.chain, other.private_key),
        (made.private_key, made.chain),
    ):
        with pytest.raises(CannotStart, match="are not a certificate and its key"):
            public_address.certificate(settings(tls_cert=chain, tls_key=key))
    assert public_address.certificate(settings(tls_cert=made.chain, tls_key=made.private_key)) == made
