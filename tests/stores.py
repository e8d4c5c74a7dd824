"""A web server on loopback that serves ranges, counts bytes, and fails on demand; copies of folders in stores."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from curate.remote import place


class Web:
    """What a server serves and how: `faults` are taken one a request for a tar: a status, or "cut" for half a body."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.served = 0
        self.faults: list[int | str | None] = []
        self.always: int | None = None
        self.ranges = self.tags = True
        self.signature = ""  # without it in the query, access is denied
        self.seen: list[str] = []
        self.statuses: dict[str, int] = {}  # by path
        self.stalled: set[str] = set()  # paths whose body stops in the middle until the server ends
        self.ended = threading.Event()


@contextmanager
def web_server(folder: Path) -> Iterator[Web]:
    """Serve a folder over HTTP while the block runs."""
    web = Web(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(True)

        def answer(self, with_body: bool) -> None:
            web.seen.append(self.path)
            told = web.statuses.get(self.path)
            denied = 403 if web.signature not in self.path.partition("?")[2] else None
            fault = denied or told or web.always or (web.faults.pop(0) if web.faults and ".tar" in self.path else None)
            file = web.folder / self.path.partition("?")[0].lstrip("/").replace("%20", " ")
            if isinstance(fault, int) or not file.is_file():
                self.send_response(fault if isinstance(fault, int) else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = file.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if web.ranges else None
            self.send_response(206 if asked else 200)
            if asked:
                start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
                data = data[start : end + 1]
            self.send_header("Content-Length", str(len(data)))
            if web.tags:
                self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
            self.end_headers()
            if with_body:
                body = data[: len(data) // 2] if fault == "cut" else data
                web.served += len(body)
                if self.path in web.stalled:
                    self.wfile.write(body[:1])
                    web.ended.wait(20)
                    return
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # else many requests at once wait for a second each

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def upload(folder: Path, to: str) -> str:
    """Copy a folder's files to a prefix, and return the prefix."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (place(to) / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
    return to
