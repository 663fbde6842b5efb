"""The command line with a fake client."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import dalston
import pytest
from dalston import errors
from dalston.cli import connection, operator_commands, output
from dalston.cli.exits import ExitCode, exit_code_of
from dalston.cli.main import main
from dalston.events import PartialResult, Reconnecting
from dalston.records import ChangeType, Session, SessionChange, SessionPage, SessionStatus, Utterance

ID = "sess_" + "a" * 32
RUSSIAN = "\u041f\u0440\u0438\u0432\u0435\u0442"
BASE = Session(
    ID, SessionStatus.ACTIVE, "en", "fast", "pcm_s16le", 16_000, 1, True, True, False, 12.5, 3, 20,
    datetime(2026, 5, 1, tzinfo=UTC), None, error="[bold]no\x1b[2J\tworse",
)  # fmt: skip


class FakeClient:
    """A client whose `sessions` is itself."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sessions = self
        self._error = error
        self.deleted: list[str] = []
        self.total = 250
        self.total_is_exact = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def get(self, session_id: str) -> Session:
        if self._error:
            raise self._error
        return replace(BASE, id=session_id)

    def page(self, *, limit: int, cursor: str | None, **filters: Any) -> SessionPage:
        first = int(cursor or 0)
        ids = range(first, min(first + limit, self.total))
        return SessionPage(
            tuple(replace(BASE, id=f"sess_{each:032x}") for each in ids),
            self.total,
            str(ids.stop) if ids.stop < self.total else None,
            self.total_is_exact,
        )

    def export(self, session_id: str, format_: str, **options: Any) -> str:
        return f"{format_}: {RUSSIAN}"

    def delete(self, session_id: str) -> None:
        self.deleted.append(session_id)

    def watch(self, *, on_reconnect: Callable[[Reconnecting], None], **filters: Any) -> Iterator[SessionChange]:
        on_reconnect(Reconnecting(1, 0.5, "gone"))
        yield SessionChange(ChangeType.SNAPSHOT, BASE, "1")
        yield SessionChange(ChangeType.READY, None, "1")
        yield SessionChange(ChangeType.CHANGED, replace(BASE, status=SessionStatus.COMPLETED), "2")
        yield SessionChange(ChangeType.DELETED, BASE, "3")
        raise KeyboardInterrupt

    def follow(
        self, session_id: str, *, offset: int, partials: bool, on_reconnect: Callable[[Reconnecting], None]
    ) -> Iterator[Utterance | PartialResult]:
        assert session_id == ID
        on_reconnect(Reconnecting(1, 0.5, "gone"))
        for index in range(offset, 2):
            if partials:
                yield PartialResult(f"utter {index}", 1.0, 1.5)
            yield Utterance(1.0, 2.0, f"utterance {index}", 0.5, index=index)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    client = FakeClient()
    monkeypatch.setattr(connection, "connect", lambda _ctx: client)
    return client


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command and returns its output to a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run(*arguments: str, code: int = 0, **environment: str) -> str:
        screen = Terminal()
        for name, value in ({"TERM": "xterm", "COLUMNS": "200"} | environment).items():
            monkeypatch.setenv(name, value)
        with redirect_stdout(screen):
            assert main(arguments) == code
        return screen.getvalue()

    return run


@pytest.mark.usefixtures("fake")
def test_limit_applies_to_all_pages_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "list", "--limit", "150"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 150
    assert "250 sessions in total: use --all or --cursor 150" in captured.err
    assert main(["sessions", "list", "--all", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len({session["id"] for session in listed["sessions"]}) == 250
    assert listed["pagination"] == {"total": 250, "total_is_exact": True}


def test_inexact_total_is_shown_as_such(fake: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    fake.total_is_exact = False
    assert main(["sessions", "list", "--limit", "1"]) == 0
    assert "more than 250 sessions in total" in capsys.readouterr().err
    assert main(["sessions", "list", "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pagination"]["total_is_exact"] is False


def test_empty_list_is_reported(
    fake: FakeClient, on_terminal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.total = 0
    assert on_terminal("sessions", "list") == ""
    assert capsys.readouterr().err == "there are no sessions\n"
    assert main(["sessions", "list", "--status", "error"]) == 0
    assert capsys.readouterr().err == "no sessions match\n"


@pytest.mark.usefixtures("fake")
def test_session_text_is_not_interpreted_as_markup_or_control_characters(on_terminal: Callable[..., str]) -> None:
    shown = on_terminal("sessions", "list", "--limit", "2")
    assert "[bold]no[2J worse" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[1m" in shown


@pytest.mark.usefixtures("fake")
def test_no_color_disables_colours(on_terminal: Callable[..., str]) -> None:
    assert "\x1b[3" not in on_terminal("sessions", "list", "--limit", "2", NO_COLOR="1")


@pytest.mark.usefixtures("fake")
def test_narrow_terminal_shows_whole_ids(on_terminal: Callable[..., str]) -> None:
    heading, row = on_terminal("sessions", "list", "--limit", "1", COLUMNS="60").splitlines()
    assert f"sess_{0:032x}  active" in row
    assert "ERROR" not in heading


@pytest.mark.usefixtures("fake")
def test_terminal_shows_local_times_and_readable_durations(
    on_terminal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = on_terminal("sessions", "get", ID)
    assert f"{BASE.started_at.astimezone():%Y-%m-%d %H:%M:%S %z}" in shown  # type: ignore[union-attr]
    assert "12.5 s\n" in shown
    assert main(["sessions", "get", ID]) == 0
    assert "2026-05-01T00:00:00Z\n" in capsys.readouterr().out


def test_table_truncates_other_columns_before_the_id() -> None:
    rows = [("key_" + "a" * 32, "name", "admin,realtime,sessions:read,sessions:write", "2026-05-01")]
    screen = output.console(Terminal())
    with screen.capture() as captured:
        screen.print(output.table(("ID", "NAME", "SCOPES", "CREATED"), rows, 80), width=80)
    assert captured.get().splitlines()[1].rstrip() == f"{rows[0][0]}  name  admin,realtime,sessions:read,sessio…"


def test_transfer_shows_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    with redirect_stderr(screen), output.transfer(f"{ID}.wav") as progress:
        progress(2_500_000, 60_000_000)
        time.sleep(0.3)
    assert re.search(r"^.*sess_a+….*2\.5/60\.0 MB.*$", screen.getvalue(), re.MULTILINE)


@pytest.mark.usefixtures("fake")
def test_watch_prints_a_line_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "watch"]) == ExitCode.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.err == "reconnecting in 0.5 s: gone\n"
    lines = [line.split("\t")[:3] for line in captured.out.splitlines()]
    assert lines == [["snapshot", ID, "active"], ["changed", ID, "completed"], ["deleted", ID]]
    assert main(["sessions", "watch", "--json"]) == ExitCode.INTERRUPTED
    changes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [change["type"] for change in changes] == ["snapshot", "ready", "changed", "deleted"]


@pytest.mark.usefixtures("fake")
def test_watch_on_a_terminal_is_a_table(on_terminal: Callable[..., str]) -> None:
    assert "completed" in on_terminal("sessions", "watch", code=ExitCode.INTERRUPTED)


@pytest.mark.usefixtures("fake")
def test_follow_prints_a_line_per_utterance(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "follow", ID]) == 0
    captured = capsys.readouterr()
    assert captured.err == "reconnecting in 0.5 s: gone\n"
    assert [line.split(maxsplit=2) for line in captured.out.splitlines()] == [
        ["1.00", "2.00", "utterance 0"],
        ["1.00", "2.00", "utterance 1"],
    ]
    assert main(["sessions", "follow", ID, "--offset", "1", "--json"]) == 0
    partial, utterance = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert partial == {"type": "partial", "partial": {"text": "utter 1", "start": 1.0, "end": 1.5}}
    assert (utterance["type"], utterance["utterance"]["text"], utterance["utterance"]["index"]) == (
        "utterance",
        "utterance 1",
        1,
    )
    assert main(["sessions", "follow", "nonsense"]) == 2


@pytest.mark.usefixtures("fake")
def test_follow_on_a_terminal_shows_the_utterances(on_terminal: Callable[..., str]) -> None:
    shown = on_terminal("sessions", "follow", ID)
    assert "utterance 0" in shown
    assert "utterance 1" in shown


def test_deletion_requires_confirmation(
    fake: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["sessions", "delete", ID]) == 2
    assert "--yes" in capsys.readouterr().err
    assert fake.deleted == []
    assert main(["sessions", "delete", ID, "nonsense", "--yes"]) == 2
    assert fake.deleted == []
    assert main(["sessions", "delete", ID, ID, "--yes"]) == 0
    assert fake.deleted == [ID]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("gone"), 3),
        (errors.AuthenticationError("no key"), 4),
        (errors.PermissionDenied("no scope"), 4),
        (errors.DeadlineExceeded("late"), 5),
        (errors.NoCapacity("full", metadata={"retry_after_seconds": "2"}), 6),
        (errors.SessionActive("runs"), 6),
        (errors.InvalidRequest("wrong"), 2),
        (errors.ServerError("bug"), 1),
        (ZeroDivisionError("bug here"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connection, "connect", lambda _ctx: FakeClient(error))  # type: ignore[arg-type]
    assert main(["sessions", "get", ID]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    if isinstance(error, errors.DalstonError):
        assert captured.err.startswith(f"error: {error.message}")
        assert captured.err.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(connection, "connect", lambda _ctx: FakeClient(errors.NotFound("gone")))
    assert main(["--debug", "sessions", "get", ID]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_every_kind_of_error_has_an_exit_code() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.DalstonError)]
    failed = {
        "AudioOverflow",
        "DalstonError",
        "JobCanceled",
        "JobFailed",
        "ServerError",
        "SessionEnded",
        "SessionResumed",
        "SessionTimeout",
        "StorageQuotaExceeded",
        "TooManyKeys",
        "Unsupported",
    }
    for kind in kinds:
        error = kind.__new__(kind)
        assert (exit_code_of(error) is ExitCode.FAILED) == (kind.__name__ in failed), kind


def test_operator_command_error_states_where_to_run_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operator_commands, "find_spec", lambda _name: None)
    assert main(["sessions", "verify"]) == 1
    assert "python -m persistence.verify" in capsys.readouterr().err
    assert main(["keys", "create", "a", "--first", "--tenant", "acme"]) == 1
    assert "DALSTON_DATABASE_URL" in capsys.readouterr().err


def test_missing_microphone_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen"]) == 1
    message = capsys.readouterr().err
    assert "pip install sounddevice" in message
    assert "dalston[" not in message  # The package of that name on PyPI may be another.


@pytest.mark.parametrize("arguments", [["--help"], ["transcribe", "--help"], ["sessions", "list", "--help"]])
def test_help_imports_no_client_modules(arguments: list[str]) -> None:
    code = (
        "import sys; from dalston.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'grpc', 'google', 'websockets', 'sounddevice', 'rich'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    path = os.pathsep.join((str(Path(dalston.__file__).parents[1]), *filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: dalston" in done.stdout


@pytest.mark.parametrize("module", ["typer", "grpc"])
def test_an_interrupt_while_modules_are_loaded_ends_the_command_quietly(module: str, tmp_path: Path) -> None:
    """One that is interrupted while it is imported, as Ctrl-C in the first tenth of a second does."""
    (tmp_path / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    path = os.pathsep.join((str(tmp_path), str(Path(dalston.__file__).parents[1]), *filter(None, sys.path)))
    done = subprocess.run(
        # Tests that run in the background of a shell inherit that SIGINT is ignored. `preexec_fn` would fork a process
        # with threads of gRPC.
        ["env", "--default-signal=INT", sys.executable, "-m", "dalston.cli.main", "sessions", "list"],
        env={"PYTHONPATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("arguments", [[], ["sessions"]])
def test_missing_command_shows_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Usage: dalston ")
    assert "\n\nCommands:\n" in captured.err
    assert captured.out == ""


def test_help_is_not_truncated(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["sessions"], ["keys"], ["tokens"], ["config"]):
        assert main([*arguments, "--help"]) == 0
        commands = capsys.readouterr().out.partition("\nCommands:\n")[2]
        assert commands
        assert "..." not in commands
    assert main(["sessions", "delete", "--help"]) == 0
    assert "Usage: dalston sessions delete [OPTIONS] ID...\n" in capsys.readouterr().out
    assert main(["transcribe", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: dalston transcribe [OPTIONS] FILE...\n" in shown
    assert "range>" not in shown


@pytest.mark.parametrize("arguments", [["sessions", "list", "--status", "bogus"], ["bogus"], ["sessions", "get"]])
def test_invalid_command_line_is_a_plain_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("to", "expected"), [("there.srt", "use --force"), ("no/a.srt", "does not exist"), ("whole", "a folder")]
)
@pytest.mark.usefixtures("fake")
def test_unwritable_output_file_is_rejected_before_the_download(
    to: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.srt").touch()
    (tmp_path / "whole" / f"{ID}.srt").mkdir(parents=True)
    for command in (["export", "-f", "srt"], ["download", "--audio"]):
        if to == "whole" and command[0] == "download":
            continue
        assert main(["sessions", *command, ID, "-o", str(tmp_path / to)]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (b"", ["--live"], "is empty"),
        (b"ID3", ["--live"], "the audio is not a WAV file; omit --live, and the service decodes the file"),
        (b"ID3", ["--json"], "omit --json, and the service decodes the file"),
        (b"ID3", ["--realtime", "--json"], "omit --realtime, and"),
        (b"RIFF0000WAVEfmt ", ["--live"], "omit --live, and"),
    ],
)
def test_unsupported_file_error_names_a_remedy(
    content: bytes,
    options: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    path = tmp_path / "my speech.mp3"
    path.write_bytes(content)
    assert main(["transcribe", str(path), *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {path}: ")
    assert expected in message
    assert main(["transcribe", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("arguments", [["sessions", "export", ID], ["sessions", "list"], ["sessions", "get", ID]])
def test_piped_output_is_utf_8_in_every_locale(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("tests.unit.sdk.cli.test_command.BASE", replace(BASE, error=RUSSIAN))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", errors="strict"))
    assert main(arguments) == 0
    assert RUSSIAN in written.getvalue().decode()


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("arguments", [["list", "--all"], ["list", "--all", "--json"], ["get", ID], ["export", ID]])
def test_closed_stdout_is_not_an_error(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["sessions", *arguments]) == ExitCode.OUTPUT_CLOSED
    assert "error" not in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_text_and_txt_are_the_same_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("text", "txt"):
        assert main(["sessions", "export", ID, "-f", name]) == 0
        assert capsys.readouterr().out.startswith("txt: ")
        assert main(["sessions", "export", ID, "--output_format", name, "-o", str(tmp_path), "--force"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.txt"]


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "5 service unavailable" in shown
    assert "141" in shown
