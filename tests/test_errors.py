"""The exception tree: what catches what."""

from __future__ import annotations

import pytest

from swann import errors

TREE = [
    (errors.InvalidInputError, (errors.SwannError, ValueError)),
    (errors.ShapeError, (errors.InvalidInputError,)),
    (errors.DTypeError, (errors.InvalidInputError, TypeError)),
    (errors.NonFiniteError, (errors.InvalidInputError,)),
    (errors.ZeroVectorError, (errors.InvalidInputError,)),
    (errors.ConfigError, (errors.SwannError, ValueError)),
    (errors.IndexFormatError, (errors.SwannError, ValueError)),
    (errors.FormatVersionError, (errors.IndexFormatError,)),
    (errors.CorruptIndexError, (errors.IndexFormatError,)),
    (errors.MissingExtraError, (errors.SwannError, ImportError)),
    (errors.UnknownDocidError, (errors.SwannError, KeyError)),
    (errors.LockedError, (errors.SwannError, OSError)),
    (errors.LogError, (errors.SwannError, OSError)),
    (errors.ReadOnlyError, (errors.SwannError,)),
    (errors.StorageError, (errors.SwannError, OSError)),
    (errors.IncompleteError, (errors.SwannError, TimeoutError)),
    (errors.WorkerError, (errors.SwannError, RuntimeError)),
]


@pytest.mark.parametrize(("error", "parents"), TREE, ids=lambda x: getattr(x, "__name__", None))
def test_tree(error: type[Exception], parents: tuple[type[Exception], ...]) -> None:
    assert error.__bases__ == parents
    with pytest.raises(errors.SwannError, match="what came"):
        raise error("what came")


def test_all_is_the_tree() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    assert {getattr(errors, name) for name in errors.__all__} == {
        errors.SwannError,
        *(error for error, _ in TREE),
        errors.RecallWarning,
    }


def test_the_warning_is_no_error() -> None:
    """So it is shown once, and can be made an error or turned off as others can."""
    assert errors.RecallWarning.__bases__ == (UserWarning,)


def test_the_docstring_draws_every_error() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__
