"""The whole local stack for benchmarks."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speech import ROOT
from usage import Meter

from stack.ports import free_port
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack

PARTS = {
    "server": ("server",),
    "bridge": ("bridge",),
    "envoy": ("envoy",),
    "storage": ("postgres", "seaweedfs"),
}
MODELS = ("fast", "accurate")
UNREFUSED = {"max_sessions": "1000", "max_queue_delay_seconds": "1000"}
"""Benchmarks exceed the capacity of the machine on purpose: no stream may be refused."""


@contextmanager
def own_stack(weights: str, **settings: str) -> Iterator[Stack]:
    """A stack in its own directory, with the same weights for all models. `settings` are `DALSTON_*` without the
    prefix.

    Converted weights are in the cache of the checkout, or in `DALSTON_CACHE_DIR`.
    """
    models = json.dumps(dict.fromkeys(MODELS, weights))
    environment = {
        f"DALSTON_{name.upper()}": value for name, value in {"models": models, **UNREFUSED, **settings}.items()
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)  # the parts inherit it
    cache = Path(os.environ.get("DALSTON_CACHE_DIR") or ROOT / ".dalston" / "cache")
    try:
        with (
            tempfile.TemporaryDirectory() as home,
            running_stack(StackSettings(home=Path(home), port=free_port(), cache_dir=cache)) as stack,
        ):
            yield stack
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def meter(stack: Stack) -> Meter:
    """A meter of its parts."""
    found = {process.name: process.popen.pid for process in stack.processes}
    return Meter({part: [found[name] for name in names] for part, names in PARTS.items()})


def pids(stack: Stack) -> list[int]:
    """The ids of all its processes."""
    return [process.popen.pid for process in stack.processes]
