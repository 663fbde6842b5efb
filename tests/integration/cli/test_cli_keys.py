"""Keys and tokens through the command, on a stack that requires keys."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.integration.cli.conftest import Run, environment, runner


@dataclass(frozen=True)
class Keyed:
    """A stack that requires keys, with its first key."""

    env: dict[str, str]
    run: Run


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, keyed_stack: Stack, folder: Path) -> Keyed:
    env = environment(tmp_path_factory.mktemp("home"), keyed_stack.base_url)
    database = {"DALSTON_DATABASE_URL": keyed_stack.database_url}
    made = runner(env, folder)("keys", "create", "first", "--first", "--tenant", "of-the-command", **database)
    assert made.returncode == 0, made.stderr
    env["DALSTON_API_KEY"] = made.stdout.strip()
    assert made.stdout == env["DALSTON_API_KEY"] + "\n"
    return Keyed(env, runner(env, folder))


def test_secret_is_alone_on_stdout_and_grants_its_scopes(keyed: Keyed) -> None:
    made = keyed.run("keys", "create", "reader", "--scope", "sessions:read", "--expires-in-seconds", "600")
    secret = made.stdout.removesuffix("\n")
    assert re.fullmatch(r"\S+", secret)
    assert secret not in made.stderr
    assert keyed.run("sessions", "list", DALSTON_API_KEY=secret).returncode == 0
    refused = keyed.run("keys", "list", DALSTON_API_KEY=secret)
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    keys = json.loads(keyed.run("keys", "list", "--json").stdout)["keys"]
    (key,) = (key for key in keys if key["name"] == "reader")
    assert key["scopes"] == ["sessions:read"]
    assert secret not in json.dumps(keys)
    assert json.loads(keyed.run("keys", "revoke", key["id"], "--json").stdout)["revoked_at"].endswith("Z")


def test_revocation_lists_keys_created_with_the_key(keyed: Keyed) -> None:
    maker = keyed.run("keys", "create", "maker", "--scope", "admin").stdout.strip()
    keyed.run("keys", "create", "made", "--scope", "realtime", DALSTON_API_KEY=maker)
    ids = {key["name"]: key["id"] for key in json.loads(keyed.run("keys", "list", "--json").stdout)["keys"]}
    listed = keyed.run("keys", "list").stdout.splitlines()
    (row,) = (line for line in listed if line.startswith(ids["made"]))
    assert row.split("\t")[-1] == ids["maker"]
    revoked = keyed.run("keys", "revoke", ids["maker"])
    assert revoked.stdout == f"revoked {ids['maker']} (maker)\n"
    assert ids["made"] in revoked.stderr


def test_wrong_key_is_reported_without_being_shown(keyed: Keyed) -> None:
    wrong = "dk_" + "w" * 43
    for arguments in (("sessions", "list"), ("transcribe", "speech.wav")):
        done = keyed.run(*arguments, DALSTON_API_KEY=wrong)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
        assert "DALSTON_API_KEY" in done.stderr
        assert wrong not in done.stderr + done.stdout
    status = json.loads(keyed.run("status", "--json", DALSTON_API_KEY=wrong).stdout)
    assert (status["healthy"], status["key"]) == (True, "rejected")
    assert "status" not in status
    accepted = json.loads(keyed.run("status", "--json").stdout)
    assert accepted["key"] == "accepted"
    assert (accepted["status"]["view"], accepted["status"]["processes"]) == ("tenant", [])


def test_profile_has_its_own_key_which_is_never_shown(keyed: Keyed) -> None:
    path = Path(keyed.env["XDG_CONFIG_HOME"]) / "dalston" / "config.toml"
    path.parent.mkdir()
    key, url = keyed.env["DALSTON_API_KEY"], keyed.env["DALSTON_URL"]
    path.write_text(f'[profiles.acme]\nurl = "{url}"\napi_key = "{key}"\n')
    path.chmod(0o644)
    elsewhere = {"DALSTON_URL": "http://127.0.0.1:9", "DALSTON_API_KEY": "wrong"}
    listed = keyed.run("--profile", "acme", "keys", "list", **elsewhere)
    assert listed.returncode == 0
    assert "chmod 600" in listed.stderr
    path.chmod(0o600)
    shown = keyed.run("--profile", "acme", "config", "show", "--json", **elsewhere)
    assert (json.loads(shown.stdout)["url"], shown.stderr) == (url, "")
    assert key not in shown.stdout
    path.unlink()


def test_operator_command_runs_where_the_server_is_installed(keyed: Keyed) -> None:
    without = keyed.run("sessions", "verify", DALSTON_DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
    assert without.returncode != 0
    assert "cannot verify" in without.stderr


def test_key_examples_of_the_guide_run(keyed: Keyed, folder: Path) -> None:
    guide = (ROOT / "docs" / "cli.md").read_text()
    (script,) = re.findall(r"^```sh keys\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    command = ["bash", "-c", f"set -eu\n{script}\ntest -n $TOKEN"]
    ran = subprocess.run(command, cwd=folder, env=keyed.env, capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stderr


def test_logins_of_a_key_are_listed_and_revoked(keyed: Keyed) -> None:
    secret = keyed.run("keys", "create", "browsers", "--scope", "sessions:read").stdout.strip()
    ids = {key["name"]: key["id"] for key in json.loads(keyed.run("keys", "list", "--json").stdout)["keys"]}
    headers = {"authorization": f"Bearer {secret}", "user-agent": "Browser/1.0"}
    answer = httpx.post(f"{keyed.env['DALSTON_URL']}/v1/login", headers=headers, trust_env=False)
    login = answer.json()["id"]
    (listed,) = json.loads(keyed.run("keys", "logins", ids["browsers"], "--json").stdout)["logins"]
    assert (listed["id"], listed["user_agent"]) == (login, "Browser/1.0")
    (row,) = keyed.run("keys", "logins", ids["browsers"]).stdout.splitlines()
    assert (row.split("\t")[0], row.split("\t")[-1]) == (login, "Browser/1.0")
    assert keyed.run("keys", "revoke-login", ids["browsers"], login).stdout == f"revoked {login}\n"
    assert keyed.run("keys", "logins", ids["browsers"]).stdout == ""
    gone = keyed.run("keys", "revoke-login", ids["browsers"], login)
    assert gone.returncode != 0
    assert login in gone.stderr
