"""Every exception that swann raises on purpose, and its warning.

::

    Exception
    └── SwannError
        ├── InvalidInputError  (also ValueError)   what was given as vectors cannot be used
        │   ├── ShapeError                         wrong rank, wrong dimension, empty
        │   ├── DTypeError     (also TypeError)    ragged, object, complex, string, bool
        │   ├── NonFiniteError                     NaN or infinity
        │   └── ZeroVectorError                    no direction, under cosine
        ├── ConfigError        (also ValueError)   a setting is bad, or contradicts another
        ├── IndexFormatError   (also ValueError)   a directory does not hold a usable index
        │   ├── FormatVersionError                 written by another version of the format
        │   └── CorruptIndexError                  damaged: missing, truncated or altered arrays
        ├── UnknownDocidError  (also KeyError)     no such datapoint is in the index
        ├── LockedError        (also OSError)      a directory has another writer
        ├── LogError           (also OSError)      the log of changes cannot be written any more
        ├── ReadOnlyError                          no change can be made through this object
        ├── StorageError       (also OSError)      files of an index cannot be read where they are
        ├── IncompleteError    (also TimeoutError) not all that a query visits was searched in time
        ├── WorkerError        (also RuntimeError) no workers can be had
        └── MissingExtraError  (also ImportError)  an optional dependency is not installed

    UserWarning
    └── RecallWarning                          autopilot found nothing that reaches its target

Catch `SwannError` for all errors. Messages name the argument, what came and what was expected.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "CorruptIndexError",
    "DTypeError",
    "FormatVersionError",
    "IncompleteError",
    "IndexFormatError",
    "InvalidInputError",
    "LockedError",
    "LogError",
    "MissingExtraError",
    "NonFiniteError",
    "ReadOnlyError",
    "RecallWarning",
    "ShapeError",
    "StorageError",
    "SwannError",
    "UnknownDocidError",
    "WorkerError",
    "ZeroVectorError",
]


class SwannError(Exception):
    """The root of every error that swann raises on purpose."""


class InvalidInputError(SwannError, ValueError):
    """What was given as vectors cannot be used as such."""


class ShapeError(InvalidInputError):
    """An array has the wrong rank, the wrong dimension, or nothing in it."""


class DTypeError(InvalidInputError, TypeError):
    """An array does not hold real numbers: ragged, object, complex, string, bool."""


class NonFiniteError(InvalidInputError):
    """An array holds a NaN, an infinity, or a value beyond the range of float32."""


class ZeroVectorError(InvalidInputError):
    """A vector of zeros where a direction is needed, as under ``"cosine"``."""


class ConfigError(SwannError, ValueError):
    """A setting is out of its range, given twice, or contradicts another."""


class IndexFormatError(SwannError, ValueError):
    """A directory does not hold an index that this version can load."""


class FormatVersionError(IndexFormatError):
    """The index was written in a version of the format that this version does not read."""


class CorruptIndexError(IndexFormatError):
    """The index is damaged: a file is missing, truncated or altered."""


class UnknownDocidError(SwannError, KeyError):
    """A datapoint is named that is not in the index."""

    # KeyError shows its argument quoted, as a key.
    __str__ = Exception.__str__


class LockedError(SwannError, OSError):
    """A directory is open for changes already, in this process or another."""


class LogError(SwannError, OSError):
    """The log of changes could not be brought to disk: no more changes are accepted."""


class ReadOnlyError(SwannError):
    """A change is asked of an index that was opened for reading, was closed, or came by fork."""


class StorageError(SwannError, OSError):
    """Files of an index could not be read where they are, or not whole, however often tried."""


class IncompleteError(SwannError, TimeoutError):
    """Not all that a query visits was searched within the deadline.

    Attributes
    ----------
    coverage : float
        The share of the least complete query.
    """

    def __init__(self, message: str, coverage: float = 0.0) -> None:
        super().__init__(message)
        self.coverage = coverage


class WorkerError(SwannError, RuntimeError):
    """No workers can be had, or none that can open the index, or they died again and again."""


class MissingExtraError(SwannError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""


class RecallWarning(UserWarning):
    """Autopilot built an index that finds less than it was asked for, and knows no better one."""
