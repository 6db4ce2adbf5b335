"""``python -m cryoden_core`` and the command ``cryoden``.

The plugin installs without torch, and into Pythons older than the core's: what is missing then is said in a sentence.
"""

from __future__ import annotations

import sys

from .jobs import EXIT_FAILED


def main() -> int:
    """Run the command line and return the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 (the plugin runs in older ones)
        return _say("Python 3.11 or newer is needed, and %s is older." % sys.executable)
    try:
        from .cli import main as run

        return run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("cryoden"):
            raise
        return _say(
            "%s has no package %s; all that is needed comes with: %s -m pip install 'scipion-em-cryoden[core]'."
            % (sys.executable, error.name, sys.executable)
        )


def _say(message: str) -> int:
    print("cryoden: " + message, file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
