"""Images on the web that a table names by URL, one by one."""

from __future__ import annotations

from threading import Lock

from curate.download import download
from curate.errors import RemoteError, RemoteSilentError, SourceError
from curate.remote import Remote

_SILENT_HOSTS = 10


class Downloads:
    """Reads images from anywhere; tells hosts that are gone from a network that is down. Safe in threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._silent: set[str] = set()  # hosts, since one answered

    def read(self, path: Remote) -> tuple[bytes, str]:
        """Return an image's bytes and "", or nothing and, in words, why it cannot be had.

        Raises SourceError where many hosts in turn do not answer: that says nothing about the image.
        """
        try:
            data = download(path)
        except RemoteSilentError as error:
            self._note(path.parts[0], str(error))
            return b"", str(error)
        except RemoteError as error:
            self._note("", "")
            return b"", str(error)
        self._note("", "")
        return data, ""

    def _note(self, silent: str, why: str) -> None:
        with self._lock:
            if not silent:
                self._silent.clear()
                return
            self._silent.add(silent)
            if len(self._silent) >= _SILENT_HOSTS:
                raise SourceError(
                    f"{len(self._silent)} hosts in turn do not answer, the last: {why}; run it again when the network"
                    " is up"
                )
