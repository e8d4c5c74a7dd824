"""The server of the page: loopback only, one pool, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from curate.errors import UsageError
from curate.pool import Pool


def serve(pool: str | Path, *, port: int = 0, ready: Callable[[str], None] = print) -> None:
    """Serve the page of a pool on 127.0.0.1 until interrupted.

    port: 0 takes a free one; ready: called once with the link, which holds the token that every request needs

    Raises PoolError when there is no pool, UsageError when the port is taken or the extra `view` is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise UsageError(f"the page needs the extra `view`: pip install 'curate-engine[view]' ({error})") from error
    from curate.view.app import application

    opened = Pool.open(pool)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used: {error.strerror}; give another, or 0 for a free one"
            ) from error
        chosen = listening.getsockname()[1]
        token = secrets.token_urlsafe(18)
        config = uvicorn.Config(
            application(opened, token, chosen), log_level="warning", access_log=False, lifespan="off", ws="none"
        )
        listening.listen(64)
        ready(f"http://127.0.0.1:{chosen}/?token={token}")
        uvicorn.Server(config).run(sockets=[listening])
