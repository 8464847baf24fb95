"""Where a command writes, as its user named it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swann.errors import SwannError

__all__ = ["writing_to"]


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Have errors of the system name `out`, and leave no empty directories where there were none.

    A full disk names no file, and what is not whole yet has names that nobody gave.
    """
    missing = [place for place in (out, *out.absolute().parents) if not os.path.lexists(place)]
    try:
        yield
    except BaseException as error:
        for place in missing:
            with suppress(OSError):  # something is in it, or it was never made
                place.rmdir()
        if not isinstance(error, OSError) or isinstance(error, SwannError) or not error.errno:
            raise
        file = error.filename
        inside = isinstance(file, str) and out.absolute() in Path(file).absolute().parents
        beside = isinstance(file, str) and Path(file).name.startswith(f".{out.name}-")
        if file is not None and not inside and not beside:
            raise
        raise OSError(error.errno, error.strerror, str(out)) from error
