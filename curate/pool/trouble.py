"""What goes wrong below a pool, in words: a full disk, a folder that cannot be written, a damaged table."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from curate.errors import CurateError, PoolError, UsageError
from curate.remote import Place


class _Placed(Protocol):
    path: Place


S = TypeVar("S", bound=_Placed)
P = ParamSpec("P")
R = TypeVar("R")

# Lance gives OSError without a number, ValueError, or RuntimeError; what went wrong is in its words only.
_ADVICE = (
    (errno.ENOSPC, "No space left", "there is no space left on its disk: free some and run the same again"),
    (errno.EDQUOT, "quota exceeded", "the quota of its disk is used up: free some space and run the same again"),
    (errno.EFBIG, "File too large", "a file would be larger than this process may write: raise `ulimit -f`, run again"),
    (errno.EROFS, "Read-only file system", "its file system is read-only: it can be read, not changed"),
    (errno.EACCES, "Permission denied", "this user has no permission for it"),
    (errno.EPERM, "Operation not permitted", "the system does not let this user change it"),
)
_FILTER = ("Error parsing statement", "Schema error", "Error resolving filter", "Error applying filter")


@contextmanager
def trouble(path: Place, done: str, advice: Callable[[], str] | None = None) -> Iterator[None]:
    """Turn what Lance and the system raise into PoolError, for a filter that makes no sense into UsageError.

    path: the pool; done: "read" or "written"; advice: gives what to do when it cannot be read
    """
    try:
        yield
    except CurateError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if any(phrase in str(error) for phrase in _FILTER):
            raise UsageError(f"the filter is not understood: {error}") from error
        raise PoolError(_told(path, done, error, advice)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's, on data that Lance did not expect
            raise
        raise PoolError(_told(path, done, error, advice)) from error


def way_out(error: BaseException) -> str | None:
    """Return what is wrong with a disk and what to do, None where an error tells of something else."""
    number, words = getattr(error, "errno", None), str(error)
    return next((advice for known, phrase, advice in _ADVICE if number == known or phrase in words), None)


def _told(path: Place, done: str, error: BaseException, advice: Callable[[], str] | None) -> str:
    words = str(error)
    if (known := way_out(error)) is not None:
        stays = "; what is committed stays" if done == "written" else ""
        return f"the pool at {path} cannot be {done}: {known}{stays} ({words})"
    if done == "written":
        return f"the pool at {path} cannot be written: {words}; what is committed stays"
    todo = advice() if advice else _older(path)
    return f"the pool at {path} cannot be read, a file of its table is missing or damaged: {words}; {todo}"


def _older(path: Place) -> str:
    return (
        f"`curate log {path}` lists older versions, `curate rollback {path} VERSION` goes back to one that is whole;"
        " if a takedown removed this version while it was read, open the pool again"
    )


def reads(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method of something with a `path` raise PoolError when that cannot be read."""
    return _named(method, "read")


def writes(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method of something with a `path` raise PoolError when that cannot be written."""
    return _named(method, "written")


def _named(method: Callable[Concatenate[S, P], R], done: str) -> Callable[Concatenate[S, P], R]:
    @wraps(method)
    def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with trouble(self.path, done):
            return method(self, *args, **kwargs)

    return wrapped
