"""Images behind URLs of the open web, where any host may be gone, slow, or send without end."""

from __future__ import annotations

from typing import Any

from curate.errors import RemoteError, RemoteSilentError
from curate.patience import patiently
from curate.remote import Remote

MOST_BYTES = 100_000_000  # of one image
SECONDS = 30.0  # for one image, from the request to its last byte
_TRIES = 2


def download(path: Remote, most: int = MOST_BYTES, seconds: float = SECONDS) -> bytes:
    """Return a file behind an http(s) URL, of at most `most` bytes, that comes whole within a time.

    Raises RemoteMissingError, RemoteDeniedError, RemoteSilentError where a host does not answer at all, else
    RemoteError: what is larger, slower, or refused.
    """
    heard: list[int] = []
    try:
        return patiently(lambda: _get(path, most, seconds, heard), f"download {path}", _TRIES)
    except RemoteError as error:
        if heard:
            raise
        raise RemoteSilentError(str(error)) from None


def _get(path: Remote, most: int, seconds: float, heard: list[int]) -> bytes:
    """Return what one request gives; the status of the answer is added to `heard`."""
    import aiohttp
    from fsspec.asyn import sync

    files, url = path.opened()

    async def fetch() -> bytes:
        session: Any = await files.set_session()
        async with session.get(files.encode_url(url), timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
            heard.append(answer.status)
            answer.raise_for_status()
            data = bytearray()
            async for part in answer.content.iter_chunked(1 << 16):
                data += part
                if len(data) > most:
                    raise RemoteError(f"{path} is larger than {most:,} bytes")
            return bytes(data)

    return bytes(sync(files.loop, fetch))
