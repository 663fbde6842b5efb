"""Fails on words that this project has retired in favour of the field's own term: `python scripts/check_words.py`.

The words are looked for in prose (Markdown, docstrings, comments and the messages in string literals) and in the
identifiers of Python code. docs/glossary.md defines the terms to use. `--count` prints how often each word occurs.
"""

import argparse
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

PROSE: Final = {
    r"tells?|told|telling": "report, send, emit, show; of a language: request",
    r"gives|gave|given back": "return, produce, provide",
    r"said|says|saying": "transcribed, spoken, finals, transcript; a document states",
    r"goes on|go on|going on|went on": "continue, be in progress",
    r"for ever": "forever",
    r"lets? go|let go of": "drop, discard, release",
    r"lets? in|letting in|seen off": "admit, reject",
    r"stands": "be, apply, be stored",
    r"whoever|whosoever": "a client that, the caller, operators",
    r"who(?= (?:resumes|has|is|asks|knows|reads|calls|holds|sends|runs|waits|writes|opens)\b[^?]*[.:;])": "name the subject",
    r"hears?|hearing": "receive, process, recognise",
    r"tries(?! (?:to|again)\b)": "attempts; of partials: passes or hypotheses",
    r"doors?": "endpoint, listener, interface, protocol",
    r"crowds?|crowded|crowding": "bucket",
    r"bell|bells": "change notifier",
    r"bury|buried|buries": "soft-delete; delete_expired",
    r"mend|mends|mended|mending": "repair",
    r"surplus": "spool reconciliation",
    r"salvage[ds]?|salvaging": "remote recovery",
    r"troubles?": "degradation",
    r"hasten(?:s|ed)?|hast[ey]": "flush soon; pacing",
    r"ledger": "part batcher",
    r"seasoned": "established",
    r"unhurried": "idle",
    r"careful": "high-beam",
    r"lateness": "queue delay",
    r"(?:does|do|did) not do (?:its|their) part": "is unavailable",
    r"taken for dead": "considered dead",
    r"not believed|believed": "suppressed; trusted",
    r"house|parrot|victim": "harness, fake transcriber, killable server",
    r"of late": "recent; a moving average of",
    r"rubbish": "incomplete or unneeded files",
}
"""Retired words as whole words, each with the terms to choose from."""

IDENTIFIERS: Final = frozenset(
    "tell tells told said says saying heard hear hears door doors crowd crowds crowding bell bury buried mend mended"
    " mender surplus salvage salvaged troubles hasten haste hasty ledger seasoned unhurried careful lateness lates"
    " believed house parrot victim world whoever nobody somebody nobodys rubbish reach remains patience patient".split()
)
"""Retired parts of identifiers: `_was_told` has the part `told`."""

ALLOWED: Final = frozenset({"as_nobody", "tell"})
"""Identifiers that keep a retired part: `nobody` is a user of the operating system, `tell` a method of files."""

SELF: Final = ("scripts/check_words.py", "docs/glossary.md")
GENERATED: Final = re.compile(r"_pb2|^lock/|^third_party/")


@dataclass(frozen=True)
class Finding:
    """A retired word in a file."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r} is retired: {self.instead}"


_PROSE = [
    (re.compile(rf"(?<![\w./`-])(?:{word})(?![\w/`])", re.IGNORECASE), instead) for word, instead in PROSE.items()
]
_PART = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def in_prose(path: str, text: str, first_line: int = 1) -> Iterator[Finding]:
    """The retired words of a text; what stands between backticks is code."""
    plain = _CODE.sub(lambda match: re.sub(r"[^\n]", "`", match[0]), text)
    for pattern, instead in _PROSE:
        for match in pattern.finditer(plain):
            yield Finding(path, first_line + plain.count("\n", 0, match.start()), match[0], instead)


def in_python(path: str, source: str) -> Iterator[Finding]:
    """The retired words of a module: in its identifiers, its comments and its literals."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            if token.string not in ALLOWED:
                for part in _PART.findall(token.string):
                    if part.lower() in IDENTIFIERS:
                        yield Finding(path, token.start[0], token.string, "an identifier; see docs/glossary.md")
        elif token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from in_prose(path, token.string, token.start[0])


def findings(paths: list[str]) -> Iterator[Finding]:
    """The retired words of files under version control."""
    for path in paths:
        if path in SELF or GENERATED.search(path) or not (ROOT / path).is_file():
            continue
        if path.endswith(".py"):
            yield from in_python(path, (ROOT / path).read_text())
        elif path.endswith((".md", ".proto")):
            yield from in_prose(path, (ROOT / path).read_text())


def main() -> int:
    """Prints the findings; 1 if there is one."""
    parser = argparse.ArgumentParser(description="Find retired words.")
    parser.add_argument("--count", action="store_true", help="print how often each word occurs")
    parser.add_argument("paths", nargs="*", help="files or folders; all of them by default")
    options = parser.parse_args()
    listed = subprocess.run(
        ["git", "ls-files", "--", *options.paths], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = list(findings(listed.stdout.split()))
    if options.count:
        for word, count in Counter(each.word.lower() for each in found).most_common():
            print(f"{count:5} {word}")
    else:
        for each in found:
            print(each)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
