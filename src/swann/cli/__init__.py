"""The command line: ``swann build``, ``search``, ``eval``, ``info`` and ``plan``.

Exit codes: 0, all is well; 1, the work failed; 2, bad usage or bad input; 130, interrupted.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from swann.errors import MissingExtraError, SwannError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        What comes after the name of the program; taken from `sys.argv` by default.
    """
    if sys.stdout is None:  # and what is printed would be lost without a word
        _fail("stdout is closed; expected a place for what is printed, as >/dev/null", 1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold any bytes
            stream.reconfigure(errors="backslashreplace")
    try:
        from swann.cli.app import app

        app(args=None if arguments is None else list(arguments), prog_name="swann")
    except SwannError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        hint = MissingExtraError(
            f"the command line needs {error.name}, which is not installed: pip install 'swann[cli]'"
        )
        _fail(str(hint), 2)
    except KeyboardInterrupt:  # while the commands are imported, or at their very end
        sys.exit(130)
    except (OSError, MemoryError) as error:
        _fail(f"{type(error).__name__}: {error}", 1)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    if sys.stderr is not None:  # print would take stdout, which is for results
        print(f"swann: {message}", file=sys.stderr)
    sys.exit(code)
