"""What docs/sdk.md shows runs as it stands there."""

import re
import subprocess
import sys

import pytest

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.integration.sdk.conftest import Speech, wav_of

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "sdk.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_guide_has_examples() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
@pytest.mark.timeout(120)
def test_an_example_of_the_guide_runs(
    block: str, stack: Stack, speech: Speech, tmp_path_factory: pytest.TempPathFactory
) -> None:
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
    if "dalston.errors.Unsupported" in done.stderr:
        pytest.skip(done.stderr.strip().rpartition("\n")[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr
