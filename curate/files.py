"""Files that appear whole or not at all, and the digest of a JSON value."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import UsageError

if TYPE_CHECKING:
    from curate.remote import Remote


def sync_folder(folder: Path) -> None:
    """Make a rename inside a folder survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty. Raises UsageError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def atomic_write(path: Path | Remote, data: bytes) -> None:
    """Write a file under a temporary name in the same folder, flush it to disk, and rename it into place.

    An object store does so by itself.
    """
    if not isinstance(path, Path):
        path.write_bytes(data)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)  # mkstemp makes files private; ours have the user's usual permissions
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def cache_folder() -> Path:
    """Return the folder of what can be made again: $CURATE_CACHE, $XDG_CACHE_HOME/curate or ~/.cache/curate."""
    if own := os.environ.get("CURATE_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "curate"


def canonical_json(value: Any) -> bytes:
    """Return a JSON value as bytes that depend on nothing but the value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical form, 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sealed(value: Any) -> bytes:
    """Return a JSON value as bytes that `unsealed` can tell from damaged ones."""
    return canonical_json({"value": value, "sha256": digest(value)})


def unsealed(data: bytes) -> Any:
    """Return the value that `sealed` was given. Raises ValueError when the bytes are not as they were written."""
    found = json.loads(data)
    if not isinstance(found, dict) or found.keys() != {"value", "sha256"} or found["sha256"] != digest(found["value"]):
        raise ValueError("its content does not match its checksum")
    return found["value"]
