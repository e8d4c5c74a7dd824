"""Every error a user can meet: one base, each also the built-in one that a caller would catch."""


class CurateError(Exception):
    """Base of all named errors. `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(CurateError, ValueError):
    """An argument or option makes no sense, alone or together with another."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong type, or a value out of range."""


class SourceError(CurateError, ValueError):
    """A source cannot be read: missing path, missing column, nothing that looks like images."""

    exit_code = 3


class DecodeError(CurateError, ValueError):
    """The bytes of one image do not decode. `reason` is the refusal that is counted."""

    exit_code = 3

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WorkerError(CurateError, RuntimeError):
    """A decode process does not start, or something failed in it that is no fault of an image."""


class EncoderError(CurateError, ValueError):
    """An encoder is unknown, its weights cannot be had, or it does not give what it promises."""

    exit_code = 3


class ManifestError(CurateError, ValueError):
    """A manifest is missing, damaged, or of a version that this reader does not know."""

    exit_code = 3


class SampleError(CurateError, ValueError):
    """One sample of a manifest cannot be given. `reason` is what it is counted as: one of `SampleError.REASONS`."""

    exit_code = 3
    REASONS = ("missing", "changed", "undecodable", "too_many_pixels")

    # One argument is enough, as torch makes a worker's exception anew from its message alone.
    def __init__(self, message: str, reason: str = "missing") -> None:
        super().__init__(message)
        self.reason = reason


class ExportError(CurateError, ValueError):
    """An export cannot be written, would replace something else, or lacks images that are gone or have changed."""

    exit_code = 3


class PoolError(CurateError, ValueError):
    """A pool is missing or damaged."""

    exit_code = 3


class PoolLockedError(CurateError, RuntimeError):
    """Another process is writing to the pool."""

    exit_code = 4


class PoolMismatchError(CurateError, ValueError):
    """The pool was made with another encoder or another recipe."""

    exit_code = 4


class KeyNotFoundError(CurateError, KeyError):
    """No row of the pool has this key or uid, or several have it."""

    exit_code = 3

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the message's repr


class RemoteError(CurateError, OSError):
    """A file in an object store or behind a URL cannot be read or written; the words are in `strerror` too."""

    exit_code = 3

    def __init__(self, message: str) -> None:
        super().__init__(None, message)

    def __str__(self) -> str:
        return str(self.strerror)


class RemoteMissingError(RemoteError, FileNotFoundError):
    """There is nothing at a URL."""


class RemoteSilentError(RemoteError):
    """A web server does not answer at all."""


class RemoteShortError(RemoteError):
    """A file ends before the bytes that were asked for."""


class RemoteDeniedError(RemoteError, PermissionError):
    """A store or server refuses access."""


class UnknownSchemeError(UsageError):
    """A URL begins with a scheme that no file system is known for."""


class NotFittedError(UsageError, AttributeError):
    """An estimator was asked for what it finds when it is fitted."""
