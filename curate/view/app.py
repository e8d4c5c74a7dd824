"""What the page asks for, as routes. Every answer is JSON or an image that was encoded anew."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import CurateError, DecodeError, PoolError, PoolLockedError, UsageError
from curate.pool import Pool
from curate.view.book import Book, asked_of, number
from curate.view.guards import App, Guarded
from curate.view.pending import Pending
from curate.view.pictures import picture
from curate_kernels.arrays import F32, I64

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_PAGE = 60
_MOST_UPLOAD = 64 << 20
_TYPES = {"page.js": "text/javascript", "page.css": "text/css"}


class View:
    """One pool on one page: the book, and what was decided and not yet written."""

    def __init__(self, pool: Pool) -> None:
        self.book, self.pending = Book(pool), Pending(pool.path)
        self.lock = threading.Lock()
        self._encoder: Any = None

    def listed(self, ordinals: I64, start: int, total: int, **more: Any) -> dict[str, Any]:
        """Return rows as the page takes them, each with what is pending for it."""
        rows = self.book.rows(ordinals)
        for row in rows:
            row["pending"] = self.pending.decisions.get(row["uid"])
        return {"rows": rows, "start": start, "total": total, "pending": len(self.pending.decisions), **more}

    def rows(self, request: Request) -> dict[str, Any]:
        """Return a page of the rows that are asked for."""
        found = self.book.find(asked_of(request.query_params))
        start = max(int(number(request.query_params, "start")), 0) if request.query_params.get("start") else 0
        return self.listed(found[start : start + _PAGE], start, int(found.size))

    def near(self, request: Request) -> dict[str, Any]:
        """Return the rows nearest to one row."""
        return self._nearest(self.book.vector(self._row(request.path_params["row"])))

    def near_image(self, data: bytes) -> dict[str, Any]:
        """Return the rows nearest to an image that was given."""
        from curate.encoders import load_image_encoder
        from curate.images import decode

        bound = self.book.state["image"]
        if self._encoder is None:
            encoder = load_image_encoder(bound["name"])
            if encoder.fingerprint != bound["fingerprint"]:
                raise UsageError(f"the encoder {bound['name']} is not the one that this pool was grown with")
            self._encoder = encoder
        pixels = decode(data, self.book.state["recipe"]["limits"]["max_pixels"]).pixels
        return self._nearest(self._encoder.encode([self._encoder.prepare(pixels)])[0])

    def _nearest(self, vector: F32) -> dict[str, Any]:
        found, cosine = self.book.nearest(vector)
        return self.listed(found, 0, int(found.size), cosine=[round(float(c), 4) for c in cosine])

    def slide(self, request: Request) -> dict[str, Any]:
        """Return what a threshold would change."""
        query = request.query_params
        moved = self.book.slide(query.get("score", ""), number(query, "threshold"), query.get("label", ""))
        shown = moved["rows"]
        return self.listed(shown, 0, int(shown.size), out=moved["out"], back=moved["back"])

    def decide(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take decisions on rows, or on all that a threshold would refuse, as one step of undo."""
        action, label = given.get("action"), given.get("label") or None
        if action not in ("keep", "drop", "relabel", "clear") or (action == "relabel" and not label):
            raise UsageError(f"the action {action!r} is none, or lacks its label")
        if label is not None and (not isinstance(label, str) or not label.isprintable()):
            raise UsageError(f"the label {label!r} is no text of visible characters")
        asked = given.get("rows", [])  # pairs of a row's number and its uid
        if "slide" in given:
            rows = self.book.slide(str(given["slide"]["score"]), float(given["slide"]["threshold"]))["all_out"]
        else:
            rows = np.array([self._row(row) for row, _ in asked], dtype=np.int64)
        found = self.book.pool.take(rows.tolist(), ["uid", "embedded"]).to_pylist() if rows.size else []
        uids = [row["uid"] for row in found]
        if "slide" not in given and uids != [uid for _, uid in asked]:
            raise UsageError("the pool has changed since this page was loaded: reload it")
        if action == "keep" and not all(row["embedded"] for row in found):
            raise UsageError("it cannot be kept: it gave no embedding")
        with self.lock:
            self.pending.add([{"key": uid, "action": action, "label": label} for uid in uids])
        return {"pending": len(self.pending.decisions), "decided": len(uids)}

    def undo(self) -> dict[str, Any]:
        """Take the last step back."""
        with self.lock:
            uids = self.pending.undo()
        return {"pending": len(self.pending.decisions), "undone": uids}

    def write(self) -> dict[str, Any]:
        """Write what is pending to the pool as one version, and read the pool anew."""
        from dataclasses import asdict

        from curate.engine.review import review

        with self.lock:
            newest = Pool.open(self.book.pool.path)
            there = set(newest.frame(["uid"])["uid"].to_list())
            kept = [one for uid, one in self.pending.decisions.items() if uid in there]
            gone = len(self.pending.decisions) - len(kept)  # taken down meanwhile
            done = asdict(review(str(newest.path), kept)) if kept or not gone else {"version": newest.version}
            self.pending.clear()
            self.book = Book(Pool.open(newest.path))
        return {"changed": 0, "admitted": self.book.counts("decision").get("admit", 0), **done, "gone": gone}

    def reopen(self) -> None:
        """Show the pool's newest version."""
        with contextlib.suppress(PoolError), self.lock:
            self.book = Book(Pool.open(self.book.pool.path))

    def image(self, row: str, side: str) -> bytes | None:
        """Return a row's image as JPEG."""
        state = self.book.state
        roots = {name: source["root"] for name, source in state["sources"].items()}
        pixels = state["recipe"]["limits"]["max_pixels"]
        return picture(self.book.pool, self._row(row), int(side), roots, pixels)

    def _row(self, given: Any) -> int:
        row = int(given) if str(given).isascii() and str(given).isdigit() else -1
        if not 0 <= row < self.book.n:
            raise UsageError(f"there is no row {given!r}")
        return row


def application(pool: Pool, token: str, port: int) -> App:
    """Return the ASGI application of a pool's page, guarded by a token, for 127.0.0.1 and localhost at a port."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    view = View(pool)

    async def answered(work: Callable[[], Any]) -> Response:
        return await _answered(work, view)

    actions: dict[str, Callable[[dict[str, Any]], Any]] = {
        "decide": view.decide,
        "undo": lambda _: view.undo(),
        "write": lambda _: view.write(),
    }

    async def posted(request: Request) -> Response:
        body = await _body(request)
        name = request.path_params["name"]
        if name == "near":
            return await answered(lambda: view.near_image(body))
        if name not in actions:
            return _json({"error": f"there is no action {name}"}, 404)
        return await answered(lambda: actions[name](_object(body)))

    asked: dict[str, Callable[[Request], Any]] = {
        "/api/outline": lambda _: view.book.outline() | {"pending": len(view.pending.decisions)},
        "/api/rows": view.rows,
        "/api/near/{row}": view.near,
        "/api/slide": view.slide,
        "/api/why/{uid}": lambda request: view.book.details(request.path_params["uid"]),
    }
    routes = [Route(path, _getting(work, view)) for path, work in asked.items()]
    routes += [
        Route("/", _page(token)),
        Route("/{name:str}", _asset),
        Route("/image/{row}/{side}", _image(view)),
        Route("/api/{name}", posted, methods=["POST"]),
    ]
    return Guarded(Starlette(routes=routes), token, {f"127.0.0.1:{port}", f"localhost:{port}"})


def _getting(work: Callable[[Request], Any], view: View) -> Callable[[Request], Any]:
    async def get(request: Request) -> Response:
        return await _answered(lambda: work(request), view)

    return get


async def _answered(work: Callable[[], Any], view: View) -> Response:
    """Return the answer of work that is done in a thread; named errors become their words."""
    from starlette.concurrency import run_in_threadpool

    try:
        return _json(await run_in_threadpool(work))
    except PoolLockedError as error:
        return _json({"error": str(error)}, 409)
    except PoolError as error:  # a takedown removes the version that is shown
        await run_in_threadpool(view.reopen)
        return _json({"error": f"{error}; reload the page"}, 409)
    except (CurateError, DecodeError, ValueError, TypeError, LookupError, OverflowError, OSError) as error:
        return _json({"error": str(error)}, 400)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(json.dumps(value, allow_nan=False, default=_plain), status, media_type="application/json")


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _MOST_UPLOAD:
            return b""
        parts.append(part)
    return b"".join(parts)


def _object(body: bytes) -> dict[str, Any]:
    value = json.loads(body or b"{}")
    if not isinstance(value, dict):
        raise UsageError("a JSON object is needed")
    return value


def _page(token: str) -> Callable[[Request], Any]:
    def page(request: Request) -> Response:
        from starlette.responses import Response

        text = files("curate.view").joinpath("page.html").read_text(encoding="utf-8")
        return Response(text.replace("{token}", token), media_type="text/html")

    return page


def _asset(request: Request) -> Response:
    from starlette.responses import Response

    name = request.path_params["name"]
    if name not in _TYPES:
        return Response("there is no such page", 404, media_type="text/plain")
    return Response(files("curate.view").joinpath(name).read_text(encoding="utf-8"), media_type=_TYPES[name])


def _image(view: View) -> Callable[[Request], Any]:
    async def image(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import Response

        try:
            data = await run_in_threadpool(view.image, request.path_params["row"], request.path_params["side"])
        except (CurateError, ValueError):
            data = None
        return Response(data, media_type="image/jpeg") if data else Response("no image", 404, media_type="text/plain")

    return image
