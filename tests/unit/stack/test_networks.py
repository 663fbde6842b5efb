from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from stack.settings import StackSettings


def settings(text: str) -> StackSettings:
    return StackSettings(home=Path("/nowhere"), trusted_proxies=text)


def test_addresses_and_networks_are_read() -> None:
    expected = (ip_network("10.0.3.7/32"), ip_network("10.0.4.0/24"), ip_network("fd00::/64"))
    assert settings("10.0.3.7, 10.0.4.0/24,fd00::/64,").proxies == expected
    assert settings("").proxies == ()


@pytest.mark.parametrize("text", ["lb.example.com", "10.0.4.1/24", "10.0.0.0/33", "10.0.0.1 10.0.0.2", "*"])
def test_text_that_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must be IP addresses or networks"):
        settings(text)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.1, ::/0"])
def test_a_network_of_all_addresses_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must not hold every address"):
        settings(text)
