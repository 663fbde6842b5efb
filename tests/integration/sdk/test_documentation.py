"""The examples of docs/sdk.md run unchanged."""

import re
import subprocess
import sys

import pytest

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.integration.sdk.conftest import Speech, wav_of

GUIDE = (ROOT / "docs" / "sdk.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
ABOUT_KEYS = [block for block in BLOCKS if "client.keys" in block]
"""They run in test_access.py, whose stack requires keys."""
OTHERS = [block for block in BLOCKS if block not in ABOUT_KEYS]


def test_the_guide_has_examples() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", OTHERS, ids=range(len(OTHERS)))
@pytest.mark.timeout(120)
def test_guide_examples_run(block: str, stack: Stack, speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("example")
    (folder / "speech.wav").write_bytes(wav_of(speech.pcm[: 20 * 32_000]))
    path = ":".join(each for each in sys.path if each)
    environment = {"DALSTON_URL": stack.base_url, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr
