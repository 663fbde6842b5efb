"""`python -m server.inference.weights`: has every configured model ready before a server starts.

Prints what it does to standard output. Exits 0 when all models can be loaded, 1 with one sentence on standard error
when one cannot, 2 when the configuration makes no sense.
"""

import sys

from pydantic import ValidationError
from pydantic_settings import SettingsError

from server.inference.config import InferenceSettings
from server.inference.errors import WeightsError
from server.inference.weights import resolve


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    try:
        settings = InferenceSettings()
    except ValidationError as error:
        faults = [f"DALSTON_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        sys.stderr.write(f"the configuration of the models makes no sense: {'; '.join(faults)}\n")
        return 2
    except SettingsError as error:
        sys.stderr.write(f"the configuration of the models makes no sense: {error}\n")
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
