"""The same weights in the format of every engine."""

import shutil
from pathlib import Path

from ggml import write_ggml

from server.inference.config import InferenceSettings
from server.inference.weights import resolve
from server.inference.weights.sources import OFFLINE


class LeftOut(Exception):
    """An engine is left out; the message is the reason."""


class Weights:
    """Weights by their name in our settings; missing formats are written to `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    def hugging_face(self) -> Path:
        return resolve(self.name, InferenceSettings().cache_dir, lambda _: None)

    def ggml(self) -> Path:
        """The file for whisper.cpp."""
        file = self._folder / "ggml.bin"
        if not file.exists():
            write_ggml(self.hugging_face(), file)
        return file

    def ctranslate2(self) -> Path:
        """The directory for faster-whisper and engines that use it."""
        if (Path(self.name) / "model.bin").is_file():
            return Path(self.name)
        if self.name not in OFFLINE:
            raise LeftOut(f"it needs the weights in CTranslate2's format, and {self.name} is not")
        directory = self._folder / "ctranslate2"
        if not directory.exists():
            source = OFFLINE[self.name]()
            directory.mkdir()
            with (directory / "model.bin").open("wb") as joined:
                for part in source.parts:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, joined, 1 << 20)
            for file in (*source.config.parent.glob("*.json"), *source.config.parent.glob("vocabulary.txt")):
                shutil.copy(file, directory)
        return directory
