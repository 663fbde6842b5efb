"""The database of the stack that runs on this machine, for the operator's commands."""

import os
from pathlib import Path

from pydantic import SecretStr

from persistence.config import PersistenceSettings
from telemetry.settings import InvalidSettings, read_settings
from telemetry.variables import warn_of_unknown_variables

_HOME = Path(__file__).resolve().parent.parent / ".dalston"


def operator_settings() -> PersistenceSettings:
    """The settings. If DALSTON_DATABASE_URL is unset, the database is that of a running stack on DALSTON_HOME.

    Raises:
        InvalidSettings: a value is wrong, or the stack is another user's.
    """
    warn_of_unknown_variables()
    settings = read_settings(PersistenceSettings)
    if "database_url" in settings.model_fields_set:
        return settings
    # The file exists while the Postgres of the stack runs, and only its user can read it.
    path = Path(os.environ.get("DALSTON_HOME") or _HOME).expanduser() / "postgres" / "url"
    try:
        return settings.model_copy(update={"database_url": SecretStr(path.read_text())})
    except (FileNotFoundError, NotADirectoryError):
        return settings
    except OSError as error:
        raise InvalidSettings(f"DALSTON_HOME: cannot read {path}: {error.strerror}") from error
