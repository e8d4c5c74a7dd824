"""What parsers of tables raise, turned into one error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curate.errors import CurateError
from curate.remote import Place


@contextmanager
def table_errors(path: Place) -> Iterator[None]:
    """Turn what the parsers and the system raise over a table into a ValueError that names the file.

    What tells that a file, row or column is not there passes, as do our own errors.
    """
    from pyarrow.lib import ArrowException

    try:
        yield
    except (CurateError, FileNotFoundError, IndexError, KeyError):
        raise
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"  # of Rust, which Lance is written in
        if not is_panic and not isinstance(error, (OSError, ValueError, RuntimeError, ArrowException)):
            raise
        raise ValueError(f"cannot read {path}: {error}") from error
