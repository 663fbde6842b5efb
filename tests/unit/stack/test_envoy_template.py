"""The filled-in configuration. What it does is tested on Envoy itself."""

from pathlib import Path

from stack.envoy import Doors, render


def test_every_placeholder_is_filled() -> None:
    text = render(Doors(["127.0.0.1", "::1"], 8000, 50051, 8081, names=("localhost",)), Path("/logs/access.log"))
    assert "${" not in text
    assert 'socket_address: {address: "127.0.0.1", port_value: 8000}' in text
    assert '[{"address": {"socket_address": {"address": "::1", "port_value": 8000}}}]' in text
    assert 'domains: ["localhost"]' in text


def test_paths_with_odd_characters_stay_paths() -> None:
    text = render(Doors(["127.0.0.1"], 8000, 1, 2), Path('/a "quoted" \\ folder: #1/access.log'))
    assert r'path: "/a \"quoted\" \\ folder: #1/access.log"' in text
