"""fsspec's file systems for the schemes of URLs, made once in a process, with our settings."""

from __future__ import annotations

import os
from functools import cache
from inspect import signature
from typing import Any

from curate.errors import UnknownSchemeError, UsageError

_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}


def endpoint() -> str | None:
    """Return the address of an S3 server that the environment names instead of Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@cache
def filesystem(scheme: str, encoded: bool, server: str | None) -> Any:
    """Return fsspec's file system. Its own repetitions are off: they would multiply with ours."""
    extra = _EXTRAS.get(scheme)
    install = f"pip install 'curate-engine[{extra}]'" if extra else "install its fsspec file system"
    options: dict[str, Any] = {}
    if extra == "http":
        options = {"encoded": encoded}
    elif extra == "s3":
        options = {"endpoint_url": server, "config_kwargs": {"retries": {"max_attempts": 0}}}
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
        signature(kind.__init__).bind(None, **options)  # ftp for one asks for more than a URL's scheme
        files = kind(use_listings_cache=False, **options)
    except ImportError as error:
        raise UsageError(f"{scheme}:// cannot be read here ({error}): {install}") from error
    except (ValueError, TypeError) as error:
        raise UnknownSchemeError(f"{scheme}:// cannot be read: {error}") from error
    if extra == "s3":
        files.retries = 1
    return files


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=filesystem.cache_clear)  # its connections and its thread are the parent's
