"""Patience with stores and servers: what fails for a moment is tried again, what fails for good is named.

No credential is in any message: text made here holds neither user names, passwords nor signatures.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from curate.errors import RemoteDeniedError, RemoteError, RemoteMissingError, RemoteShortError, UsageError

_LOG = logging.getLogger("curate")
_USER = re.compile(r"(\w+://)[^/?#\s'\"]*@")
_QUERY = re.compile(r"(\w+://[^\s?'\"<>]*)\?([^\s'\"<>]*)")
_SECRET = re.compile(
    r"(?i)(?:^|[?&;])(?:x-amz-|x-goog-|[^=&;]*(?:sig|signature|token|key|keyid|key-id|password|secret)="
    r"|(?:[^=&;]*[^=&;a-z])?(?:auth|authorization|credentials?|hmac|jwt|pass|passwd|pwd|sign)=)"
)
_TRIES, _FIRST_DELAY = 7, 0.5  # 31 seconds of waiting in all

T = TypeVar("T")


def without_secrets(text: str) -> str:
    """Return a text in which no URL holds a user, a password, or a query with a signature, key or token."""
    text = _USER.sub(r"\1", text)
    return _QUERY.sub(lambda found: found[1] if _SECRET.search(found[2]) else found[0], text)


def patiently(work: Callable[[], T], what: str, tries: int = _TRIES) -> T:
    """Return work(), tried again with growing waits over what may pass. Raises RemoteError, in our words."""
    for number in range(tries):
        try:
            return work()
        except (RemoteError, UsageError, FileExistsError):
            raise
        except Exception as error:  # every file system has errors of its own
            found = _named(error, what)
            if found is None and number < tries - 1:
                delay = _FIRST_DELAY * 2**number
                _LOG.warning("cannot %s (%s): trying again in %g s", what, _words(error), delay)
                time.sleep(delay)
                continue
            # Not chained: the cause's text may hold a signed URL.
            raise (
                found
                or RemoteError(f"cannot {what}: {_words(error)}; {tries} tries failed, run it again when it answers")
            ) from None
    raise AssertionError


def _words(error: BaseException) -> str:
    error = _cause(error)
    return without_secrets(str(error)) or type(error).__name__


def _cause(error: BaseException) -> BaseException:
    """Return what is behind an error: fsspec calls any failure over a URL "not found"."""
    cause = error.__cause__
    network = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if isinstance(error, FileNotFoundError) and cause is not None and network else error


def _named(error: BaseException, what: str) -> RemoteError | None:
    """Return the error for what fails for good, None for what may pass."""
    error = _cause(error)
    status = _http_status(error)
    if status in (401, 403) or isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return RemoteDeniedError(
            f"cannot {what}: access is denied ({_words(error)}); check the credentials in the environment, and that"
            " they allow listing too: without it a store calls missing objects forbidden"
        )
    if status in (404, 410) or isinstance(error, FileNotFoundError):
        why = "there is no such bucket" if "bucket does not exist" in str(error) else "there is nothing at this address"
        return RemoteMissingError(f"cannot {what}: {why}")
    if status == 416:
        return RemoteShortError(f"cannot {what}: it ends before the bytes that were asked for")
    rejected = status is not None and 400 <= status < 500 and status not in (408, 429)
    if rejected or isinstance(error, (NotImplementedError, TypeError, ValueError)):
        return RemoteError(f"cannot {what}: {_words(error)}")
    return None


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status that is behind an error of aiohttp or botocore."""
    for one in (error, error.__cause__):
        status = getattr(one, "status", None)
        if isinstance(status, int):
            return status
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(found) if found else None
    return None
