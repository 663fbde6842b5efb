"""`python -m server.inference.weights`: prepares every configured model before a server starts.

Prints its progress to standard output. Exits with 0 if all models can be loaded, with 1 and one sentence on standard
error if one cannot, with 2 if the configuration is invalid.
"""

import sys

from server.inference.config import InferenceSettings
from server.inference.errors import WeightsError
from server.inference.weights import resolve
from telemetry.settings import InvalidSettings, read_settings


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    try:
        settings = read_settings(InferenceSettings)
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for weights in sorted(set(settings.models.values())):
        names = ", ".join(sorted(name for name, value in settings.models.items() if value == weights))
        _print(f"weights {weights} for {names}")
        try:
            directory = resolve(weights, settings.cache_dir, _print)
        except WeightsError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        except KeyboardInterrupt:
            return 130
        _print(f"weights {weights} are ready in {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
