"""The page of a pool: who may ask, what it finds, and, in a browser, what becomes of a decision."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write_tar
from planted_world import NumberEncoder, captioned, encoders, said

import curate
from curate.errors import PoolLockedError, UsageError
from curate.pool import Pool
from curate.report import write_report
from curate.view.book import Asked, Book
from curate.view.pending import Pending

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = {"limits": {"batch_size": 32}, "clean": {"warmup": 96}, "mend": {"relabel": False}}
RNG = np.random.default_rng(3)
WRONG = {int(i): int(i + RNG.integers(1, 399)) for i in RNG.choice(np.arange(10, 300), 48, replace=False)}
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
BIDI = "\u202egnp.exe\u202c' OR 1=1 --"


def members() -> list[tuple[str, bytes]]:
    wrong = {seed: said(other) for seed, other in WRONG.items()}
    hostile = {5: f"{said(5)} {HOSTILE}", 6: f"{said(6)} {BIDI}"}
    return [
        *captioned(range(320), {}, wrong | hostile, {}),
        ("broken.jpg", b"no image"),
        ("broken.txt", said(1).encode()),
    ]


@pytest.fixture(scope="module", autouse=True)
def text_encoder() -> Iterator[NumberEncoder]:
    with encoders() as text:
        yield text


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("view")
    write_tar(base / "s" / "0.tar", members())
    curate.grow(base / "s", base / "pool", options=OPTIONS)
    return base / "pool"


@pytest.fixture
def pool(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "pool"))


class Served:
    """A page that is being served in a thread."""

    def __init__(self, pool: Path) -> None:
        import uvicorn

        from curate.view.app import application

        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.port, self.token = self._socket.getsockname()[1], "secret"
        self.link = f"http://127.0.0.1:{self.port}/?token={self.token}"
        app = application(Pool.open(pool), self.token, self.port)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"x-curate-token": self.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body)
        connection.request(
            method or ("GET" if body is None else "POST"), path, data, {k: v for k, v in given.items() if v}
        )
        answer = connection.getresponse()
        raw, found = answer.read(), dict(answer.getheaders())
        connection.close()
        is_json = found.get("content-type") == "application/json"
        return answer.status, json.loads(raw) if is_json else raw, {k.lower(): v for k, v in found.items()}


@pytest.fixture
def served(pool: Path) -> Iterator[Served]:
    with Served(pool) as page:
        yield page


# --- who may ask


def test_only_the_link_opens_the_page(served: Served) -> None:
    assert served.ask("/?token=secret", x_curate_token="")[0] == 200
    for path in ("/", "/?token=guess", "/page.js", "/api/rows", "/image/0/64?token="):
        assert served.ask(path, x_curate_token="")[0] == 403
    assert served.ask("/api/rows", Host="evil.example")[0] == 403  # a name that was made to mean this machine
    assert served.ask("/api/rows", Origin="http://evil.example")[0] == 403
    assert served.ask("/api/rows", Origin=f"http://localhost:{served.port}")[0] == 200
    # What a form of another page could send: the token in the query does not do.
    assert served.ask("/api/undo?token=secret", {}, x_curate_token="")[0] == 403
    assert served.ask("/api/undo", {})[0] == 200


def test_answers_say_that_nothing_foreign_may_run(served: Served) -> None:
    status, body, headers = served.ask("/?token=secret")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert (headers["referrer-policy"], headers["x-content-type-options"]) == ("no-referrer", "nosniff")
    assert b"http://" not in body
    assert served.ask("/page.css")[2]["content-type"].startswith("text/css")
    for path in ("/book.py", "/..%2fbook.py", "/page.html", "/api/nothing", "/image/0/0/0"):
        assert served.ask(path)[0] in (404, 405)


def test_only_images_that_the_pool_decided_on_are_served_and_encoded_anew(served: Served, pool: Path) -> None:
    status, data, headers = served.ask("/image/3/32")
    assert (status, headers["content-type"], data[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    row = Pool.open(pool).find("broken")["row"]
    for path in (f"/image/{row}/64", "/image/9999/64", "/image/-1/64", "/image/x/64", "/image/1/x"):
        assert served.ask(path)[0] == 404
    state = Pool.open(pool).state()
    tar = Path(next(iter(state["sources"].values()))["root"]) / "0.tar"
    kept = tar.read_bytes()
    try:
        tar.write_bytes(bytes(len(kept)))
        assert served.ask("/image/3/32")[0] == 404  # other bytes than those that were decided on
    finally:
        tar.write_bytes(kept)


def test_bad_questions_are_answered_in_words(served: Served) -> None:
    asked: list[tuple[str, Any]] = [
        ("/api/rows?score=nothing", None), ("/api/slide?score=pvi&threshold=x", None), ("/api/why/nothing", None),
        ("/api/decide", {"rows": [[0, "x"]], "action": "eat"}),
        ("/api/decide", {"rows": [[10**9, "x"]], "action": "drop"}),
        ("/api/decide", [1]), ("/api/write", {}), ("/api/near/99999", None), ("/api/rows?start=x", None),
    ]  # fmt: skip
    for path, body in asked:
        status, told, _ = served.ask(path, body)
        assert (status, bool(told["error"])) == (400, True), path
    assert served.ask("/api/near", "not an image")[0] == 400


# --- what it finds


@pytest.fixture(scope="module")
def book(grown: Path) -> Book:
    return Book(Pool.open(grown))


def test_rows_are_found_as_the_table_has_them(book: Book) -> None:
    table = book.pool.frame(["row", "key", "reason", "label", "caption", "pvi"])
    asked = book.find(Asked(reason="caption_mismatch", label="east", sort="pvi"))
    plain = table.filter((table["reason"] == "caption_mismatch") & (table["label"] == "east")).sort("pvi", "row")
    assert asked.tolist() == plain["row"].to_list()
    assert len(asked) > 3
    between = book.find(Asked(score="pvi", low=0.0, high=5.0, sort="-pvi"))
    values = table["pvi"].to_numpy()[between]
    assert ((values >= 0) & (values <= 5)).all()
    assert (np.diff(values) <= 0).all()
    assert book.find(Asked()).tolist() == list(range(book.n))
    first = book.pool.versions()[3]["version"]
    before = Pool.open(book.pool.path, first).rows
    assert 0 < before < book.n
    assert book.find(Asked(since=first)).tolist() == list(range(before, book.n))
    with pytest.raises(UsageError, match="no score 'x'"):
        book.find(Asked(sort="x"))


@pytest.mark.parametrize(
    ("text", "keys"), [("onerror= SCRIPT", ["0005"]), ("' or 1=1", ["0006"]), ("0012", None), ("%", [])]
)
def test_words_are_searched_for_as_they_are(book: Book, text: str, keys: list[str] | None) -> None:
    found = [row["key"] for row in book.rows(book.find(Asked(text=text)))]
    assert found == keys if keys is not None else "0012" in found


def test_a_threshold_changes_what_it_would(book: Book) -> None:
    table = book.pool.frame(["decision", "reason", "pvi"])
    pvi = table["pvi"].fill_null(np.nan).to_numpy()
    for limit in (-20.0, float(np.nanmedian(pvi))):
        moved = book.slide("pvi", limit)
        assert moved["out"] == ((table["decision"] == "admit").to_numpy() & (pvi < limit)).sum()
        assert moved["back"] == ((table["reason"] == "caption_mismatch").to_numpy() & (pvi >= limit)).sum()
    assert moved["out"] > 50
    assert np.abs(pvi[moved["rows"][:24]] - limit).max() <= np.sort(np.abs(pvi[moved["all_out"]] - limit))[23] + 1e-6


def test_the_nearest_are_those_of_a_plain_search(book: Book) -> None:
    x = book.pool.embeddings("image")
    found, cosine = book.nearest(book.vector(17))
    plain = np.argsort(-(x @ x[17]), kind="stable")[:60]
    assert found.tolist()[0] == 17
    assert set(found.tolist()) == set(plain.tolist())
    np.testing.assert_allclose(cosine, np.sort(x @ x[17])[::-1][:60], atol=1e-6)


def test_what_is_pending_outlives_the_server(tmp_path: Path) -> None:
    first = Pending(tmp_path)
    first.add([{"key": "a", "action": "drop", "label": None}])
    first.add([{"key": "a", "action": "keep", "label": None}, {"key": "b", "action": "relabel", "label": "x"}])
    assert sorted(first.undo()) == ["a", "b"]
    with (tmp_path / "reviews" / "pending.jsonl").open("ab") as file:
        file.write(b'{"add": [{"key": "c", "acti')  # killed while it wrote
    with pytest.raises(PoolLockedError, match="another page"):
        Pending(tmp_path)
    first.close()
    again = Pending(tmp_path)
    assert again.decisions == first.decisions == {"a": {"key": "a", "action": "drop", "label": None}}
    again.add([{"key": "d", "action": "drop", "label": None}])
    again.close()
    third = Pending(tmp_path)
    assert sorted(third.decisions) == ["a", "d"]  # what follows a torn line is not lost
    assert third.undo() == ["d"]
    assert third.undo() == ["a"]
    assert third.undo() == []
    third.clear()
    third.close()
    assert Pending(tmp_path).decisions == {}


def test_a_label_and_a_verdict_stand_beside_each_other(tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    pending.add([{"key": "a", "action": "relabel", "label": "x"}])
    pending.add([{"key": "a", "action": "keep", "label": None}])
    assert pending.decisions["a"] == {"key": "a", "action": "keep", "label": "x"}
    pending.add([{"key": "a", "action": "relabel", "label": "y"}])
    assert pending.decisions["a"] == {"key": "a", "action": "keep", "label": "y"}
    pending.undo()
    pending.undo()
    assert pending.decisions["a"]["action"] == "relabel"


def test_a_takedown_beside_the_page(served: Served, pool: Path) -> None:
    rows = {row["key"]: row for row in served.ask("/api/rows")[1]["rows"]}
    for key in ("0020", "0021"):
        given = {"rows": [[rows[key]["row"], rows[key]["uid"]]], "action": "drop"}
        assert served.ask("/api/decide", given)[0] == 200
    curate.forget(pool, keys=["0020"])
    assert rows["0020"]["uid"].encode() not in (pool / "reviews" / "pending.jsonl").read_bytes()
    while served.ask("/api/rows")[0] != 200:  # the version that it showed is gone
        pass
    stale = {"rows": [[rows["0030"]["row"], rows["0030"]["uid"]]], "action": "drop"}
    status, told, _ = served.ask("/api/decide", stale)
    assert (status, "reload" in told["error"]) == (400, True)
    status, told, _ = served.ask("/api/write", {})
    assert (status, told["gone"], told["drop"]) == (200, 1, 1)
    assert Pool.open(pool).find("0021")["reason"] == "reviewed"


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt install chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_a_decision_by_keyboard_ends_in_the_pool(browser: Any, served: Served, pool: Path) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served.link)
    page.wait_for_selector("#sample-59")
    assert "321 samples" in page.inner_text("#counts")
    page.fill("#text", "0011")
    expect(page.locator("#status")).to_have_text("1 samples")
    page.fill("#text", "")
    page.wait_for_selector("#sample-9")
    page.select_option("#reason", "caption_mismatch")
    expect(page.locator("#grid .reason.admit")).to_have_count(0)
    page.wait_for_selector("#grid .reason")
    kept = page.inner_text("#grid [aria-selected=true] .key")
    page.focus("#grid")
    page.keyboard.press("k")
    expect(page.locator("#write")).to_contain_text("Write 1 ")
    page.keyboard.press("d")
    expect(page.locator("#write")).to_contain_text("Write 2 ")
    page.keyboard.press("u")
    expect(page.locator("#write")).to_contain_text("Write 1 ")
    page.reload()  # what is pending is still there
    expect(page.locator("#write")).to_contain_text("Write 1 ")
    page.fill("#value", "5")
    expect(page.locator("#moved")).to_contain_text(" would go")
    page.select_option("#reason", "admitted")
    page.wait_for_selector("#grid .reason.admit")
    dropped = page.inner_text("#grid [aria-selected=true] .key")
    page.focus("#grid")
    page.keyboard.press("d")
    expect(page.locator("#write")).to_contain_text("Write 2 ")
    page.keyboard.press("l")
    page.fill("#new-label", "elsewhere")
    labelled = page.inner_text("#grid [aria-selected=true] .key")
    page.keyboard.press("Enter")
    expect(page.locator("#write")).to_contain_text("Write 3 ")
    page.click("#write")
    expect(page.locator("#status")).to_contain_text("written as version", timeout=60_000)
    rows = {row["key"]: row for row in Pool.open(pool).frame().to_dicts()}
    assert rows[kept]["decision"] == "admit"
    assert rows[dropped]["reason"] == "reviewed"
    assert (rows[labelled]["label"], rows[labelled]["decision"]) == ("elsewhere", "admit")
    page.reload()
    page.select_option("#reason", "reviewed")
    expect(page.locator("#grid li")).to_have_count(1)
    page.keyboard.press("Tab")
    page.focus("#grid")
    page.keyboard.press("Enter")
    page.wait_for_selector("#why[open]")
    assert "a reviewer dropped it" in page.inner_text("#why-list")
    assert errors == []
    page.close()


def test_the_report_opens_from_a_file_without_a_network(browser: Any, grown: Path, tmp_path: Path) -> None:
    out = write_report(grown, tmp_path / "report.html")
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 800})
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on(
        "request", lambda request: told.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(out.as_uri())
    assert "owned" not in page.title()
    assert page.locator("#refused").count() == 1
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert told == []
    context.close()


def test_hostile_words_are_words(browser: Any, served: Served) -> None:
    page = browser.new_page(color_scheme="dark", viewport={"width": 390, "height": 800})
    page.goto(served.link)
    page.wait_for_selector("#sample-6")
    page.focus("#grid")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#why[open]")
    assert "owned" not in page.title()
    assert HOSTILE[:20] in page.inner_text("#why-list")
    assert page.evaluate("document.querySelectorAll('img[onerror], #grid script').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # no sideways scrolling on a phone
    page.close()


def test_the_file_that_opens_the_browser_is_private_and_goes_with_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.cli import app

    opened: list[Path] = []

    def serve(pool: str, *, port: int, ready: Any) -> None:
        ready("http://127.0.0.1:1/?token=x")
        assert "token=x" in opened[0].read_text()
        assert opened[0].parent.stat().st_mode & 0o077 == 0

    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(Path(uri.removeprefix("file://"))))
    monkeypatch.setattr("curate.view.serve", serve)
    app(["view", "pool"], standalone_mode=False)
    assert not opened[0].exists()
    assert not opened[0].parent.exists()
