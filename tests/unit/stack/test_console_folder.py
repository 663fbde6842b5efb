"""The files of the console: what Envoy and the content security policy expect of them."""

import gzip
import re
from itertools import chain
from pathlib import Path

import pytest

from stack.settings import ROOT

FOLDER = ROOT / "console"
FILES = sorted(path for path in FOLDER.rglob("*") if not path.is_dir())
MOST_BYTES = 48 * 1024
MOST_LINES = 400
MARKUP = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|eval)\b|new Function"
)
HANDLER = re.compile(r"""<[^>]*\son\w+\s*=|javascript:""")
STYLE = re.compile(r"""<[^>]*\sstyle\s*=|<style|setAttribute\("style"|\bstyle: *["'`]""")
ELSEWHERE = re.compile(r"""(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9-]+\.[a-z]""")


def test_the_folder_has_no_symbolic_links() -> None:
    # Envoy would follow them out of the folder.
    assert [path for path in chain([FOLDER], FOLDER.rglob("*")) if path.is_symlink()] == []


def loaded_by(page: Path) -> set[Path]:
    """A page, and every file of the folder that it names or that such a file names."""
    found: set[Path] = set()
    waiting = [page]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            names = (
                r'(?:src|href)="([\w./-]+\.(?:js|css|svg))"'
                if path.suffix == ".html"
                else r'(?:from|import\(?) ?"(\.[^"]+)"'
            )
            waiting += [path.parent.joinpath(name).resolve() for name in re.findall(names, path.read_text())]
    return found


@pytest.mark.parametrize("page", [path for path in FILES if path.suffix == ".html"], ids=lambda path: path.name)
def test_a_page_with_all_that_it_loads_is_small(page: Path) -> None:
    # As Envoy sends it: comments and long names cost a reader of the code nothing.
    assert sum(len(gzip.compress(path.read_bytes())) for path in loaded_by(page)) <= MOST_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_file_is_short_and_keeps_to_the_policy(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    code = re.sub(r"^\s*(//|\*|/\*).*$", "", text, flags=re.M)
    for pattern in (MARKUP, HANDLER, STYLE):
        assert pattern.search(code) is None, pattern.pattern
    assert ELSEWHERE.search(code) is None


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".html"], ids=lambda path: path.name)
def test_a_page_loads_a_module_of_its_name_and_no_script_within(path: Path) -> None:
    text = path.read_text()
    assert f'<script type="module" src="{path.stem}.js"></script>' in text
    assert re.search(r"<script(?![^>]*\ssrc=)", text) is None
    for name in re.findall(r'(?:src|href)="([^"/][^"]*)"', text):
        assert (FOLDER / name).is_file(), name


def test_modules_import_files_that_are_there() -> None:
    for path in FILES:
        if path.suffix == ".js":
            for name in re.findall(r'(?:from|import) "(\.[^"]+)"', path.read_text()):
                assert (path.parent / name).is_file(), f"{path.name}: {name}"
