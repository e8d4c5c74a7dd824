"""Files in object stores and behind URLs, with the part of pathlib's interface that sources and pools use.

Everything goes through fsspec: `s3://`, `https://`, and whatever else an installed file system names (`gs://`, `az://`).
What fails for a moment is tried again; what fails for good is a RemoteError. No credential leaves this module: text
made of a Remote holds neither user names, passwords nor signatures.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Iterator
from functools import total_ordering
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote

from curate.errors import RemoteError, RemoteMissingError, RemoteShortError
from curate.filesystem import endpoint, filesystem
from curate.patience import patiently, without_secrets
from curate.ranges import RangeFile

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created")


class Status(NamedTuple):
    """Size in bytes, and what changes with the content: an entity tag, or else a time."""

    size: int
    stamp: str


def place(path: str | Path | Remote, *names: str) -> Path | Remote:
    """Return a path, or a Remote where it begins with a scheme such as `s3://`; names are joined to it."""
    at: Path | Remote = path if isinstance(path, Remote) else Path()
    if not isinstance(path, Remote):
        local = str(path).removeprefix("file://")
        at = Remote(local) if _URL.match(local) else Path(local)
    for name in names:
        at = Remote(name) if _URL.match(name) else at / name
    return at


def listed(folder: Place, suffix: str = "") -> list[Place]:
    """Return what lies in a folder and ends in `suffix`, by name; nothing where there is no folder."""
    found: list[Place] = list(folder.iterdir()) if folder.is_dir() else []
    return sorted((path for path in found if path.name.endswith(suffix)), key=lambda path: path.name)


def is_url(text: str) -> bool:
    """Tell whether a text begins with a scheme such as `s3://`."""
    return _URL.match(text) is not None


def join(root: str, name: str) -> str:
    """Return a name that a table under a URL gives, relative to the root if it is below it, else as a URL.

    A name that begins with a slash is taken from the bucket or host. Nothing leads out of that, `..` neither.
    """
    scheme, _, rest = root.partition("://")
    host, _, folder = rest.rstrip("/").partition("/")
    is_web = scheme in ("http", "https")
    if is_url(name):
        prefix = root.rstrip("/") + "/"
        inside = name.startswith(prefix) and "/../" not in name and not (is_web and "?" in name)
        return (unquote(name[len(prefix) :]) if is_web else name[len(prefix) :]) if inside else name
    above = posixpath.normpath("/" + (unquote(folder) if is_web else folder)).rstrip("/") + "/"
    full = posixpath.normpath(posixpath.join(above, name))
    if full.startswith(above):
        return full[len(above) :]
    return f"{scheme}://{host}{quote(full) if is_web else full}"


@total_ordering
class Remote:
    """One object, file behind a URL, or prefix of objects, which counts as a folder.

    Raises UsageError, on first use, when the file system for its scheme is not installed.
    """

    def __init__(self, url: str, info: dict[str, Any] | None = None) -> None:
        self.scheme, _, rest = url.partition("://")
        self.scheme = self.scheme.lower()
        self._query = ""
        if self._is_web:
            rest, mark, query = rest.partition("#")[0].partition("?")
            self._query = mark + query
        self._at = rest.rstrip("/")
        # Without the user, with all of the query, signatures too: for comparing, never for showing.
        self._identity = f"{self.scheme}://{re.sub('^[^/]*@', '', self._at)}{self._query}"
        self._info = info

    @property
    def _is_web(self) -> bool:
        return self.scheme in ("http", "https")

    def __str__(self) -> str:
        return without_secrets(self._identity) if self._is_web else self._identity

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._identity == other._identity

    def __lt__(self, other: Remote) -> bool:
        return self._identity < other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return bucket or host, folders and name, as a path would hold them."""
        host, *names = self._at.split("/")
        host = host.rpartition("@")[2]
        return (host, *(unquote(name) if self._is_web else name for name in names))

    @property
    def name(self) -> str:
        """Return the last part."""
        return self.parts[-1]

    @property
    def suffix(self) -> str:
        """Return the extension of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Remote:
        """Return the folder; a bucket or host is its own."""
        folder, slash, _ = self._at.rpartition("/")
        return Remote(f"{self.scheme}://{folder if slash else self._at}")

    def with_suffix(self, suffix: str) -> Remote:
        """Return the file beside this one with another extension."""
        return self.parent / Path(self.name).with_suffix(suffix).name

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.scheme}://{self._at}/{quote(name) if self._is_web else name}")

    def resolve(self) -> Remote:
        """Return the same place, without what a listing said of it."""
        return Remote(f"{self.scheme}://{self._at}{self._query}")

    @property
    def is_listable(self) -> bool:
        """Tell whether folders can be listed; a web server's cannot."""
        return not self._is_web

    def status(self) -> Status:
        """Return size and stamp of a file. Raises RemoteMissingError where there is none."""
        info = self._look()
        if info["type"] == "directory":
            raise RemoteMissingError(f"{self} is a folder")
        if info.get("size") is None:
            raise RemoteError(f"the server does not tell the size of {self}; copy the file and give its path")
        stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), "")
        return Status(int(info["size"]), stamp)

    def exists(self) -> bool:
        """Tell whether there is a file or folder."""
        return self._kind() != ""

    def is_file(self) -> bool:
        """Tell whether this is a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Tell whether objects lie below this prefix."""
        return self.is_listable and self._kind() == "directory"

    def _kind(self) -> str:
        try:
            return str(self._look()["type"])
        except FileNotFoundError:
            return ""

    def _look(self) -> dict[str, Any]:
        return self._info if self._info is not None else dict(self._call("info"))

    def iterdir(self) -> Iterator[Remote]:
        """Yield what lies directly in a folder; sizes and times are those of the listing."""
        own = self.opened()[1]
        try:
            found = self._call("ls", detail=True) if self.is_listable else []
        except FileNotFoundError:
            if Remote(f"{self.scheme}://{self.parts[0]}").exists():
                return  # a bucket must be there, a prefix need not
            raise RemoteMissingError(f"cannot list {self}: there is no such bucket") from None
        for info in found:
            name = info["name"].rstrip("/")
            if name != own:
                yield Remote(f"{self.scheme}://{self._at}/{name.rpartition('/')[2]}", info)

    def find(self) -> Iterator[tuple[str, Status]]:
        """Yield relative name and status of every file below a folder."""
        own = self.opened()[1]
        found = self._call("find", detail=True)
        for name, info in found.items():
            if info["type"] != "file":
                continue  # what some tools write to mark an empty folder
            yield name[len(own) :].lstrip("/"), Remote(f"{self.scheme}://{name}", info).status()

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open a file for reading by ranges."""
        assert mode == "rb"
        return io.BufferedReader(RangeFile(self.read_range, self.status().size), 1 << 16)

    def read_range(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`; RemoteError if, tried again and again, there are fewer or more.

        Raises RemoteShortError, at once, where the file ends before them.
        """

        def whole() -> bytes:
            data = bytes(self._raw("cat_file", start=start, end=start + size))
            if len(data) > size:
                raise RemoteError(f"the server of {self} does not serve ranges; copy the file and give its path")
            if len(data) < size:
                if self.resolve().status().size < start + size:
                    raise RemoteShortError(f"{self} ends before byte {start + size}")
                raise ConnectionError(f"{len(data)} of {size} bytes came")
            return data

        return patiently(whole, f"read {self}") if size else b""

    def read_bytes(self) -> bytes:
        """Return a file's content, in one request."""
        return patiently(lambda: bytes(self._raw("cat_file")), f"read {self}")

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return a file's content as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes, **conditions: str) -> None:
        """Write an object, whole or not at all; FileExistsError where mode="create" finds one."""
        self._call("pipe_file", data, **conditions)

    def write_file(self, path: Path) -> None:
        """Write an object from a local file, whole or not at all, without holding it in memory."""
        files, name = self.opened()
        patiently(lambda: files.put_file(str(path), name), f"write {self}")

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a store has no empty folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object."""
        try:
            self._call("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _files(self) -> Any:
        return filesystem(self.scheme, "%" in self._at + self._query, endpoint() if self.scheme == "s3" else None)

    def opened(self) -> tuple[Any, str]:
        """Return fsspec's file system, and the name by which it knows this file."""
        files, url = self._files(), f"{self.scheme}://{self._at}{self._query}"
        return files, url if self._is_web else str(files._strip_protocol(url))

    def _raw(self, method: str, *values: Any, **options: Any) -> Any:
        files, key = self.opened()
        return getattr(files, method)(key, *values, **options)

    def _call(self, method: str, *values: Any, **options: Any) -> Any:
        verb = {"info": "look at", "ls": "list", "find": "list", "pipe_file": "write", "rm_file": "delete"}[method]
        return patiently(lambda: self._raw(method, *values, **options), f"{verb} {self}")


def storage_options(path: Place) -> dict[str, str] | None:
    """Return what Lance's own client needs beyond its reading of AWS_* and the like: the address of an S3 server."""
    server = endpoint()
    if not isinstance(path, Remote) or path.scheme != "s3" or server is None:
        return None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return {"aws_endpoint": server, "aws_region": region, "allow_http": str(server.startswith("http:")).lower()}


Place = Path | Remote
