"""The scripts import each other by name, as they do when they are run."""

import sys

from stack.settings import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
