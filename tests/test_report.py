"""The report: complete, inert whatever the data says, small, and the same every time."""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import curate
from curate.cli.show import spark
from curate.engine.describe import spread_of_scores
from curate.errors import ManifestError, PoolError, UsageError
from curate.report import Table, curves, maps, report_diff, report_manifest, write_report
from curate.report.figures import histogram
from curate.report.survey import class_balance, funnel, histograms, spread, worst
from curate.report.text import clipped, percent, shown, stored, visible
from curate.report.thumbnails import Thumbnails
from curate.samples import content_hash

SCRIPT = "<script>alert(1)</script>"
BREAKOUT = '"><img src=x onerror=alert(1)>'
BIDI = "invoice\u202egpj.exe \u2066\u2069\u200f"
TEMPLATE = "{{ 7 * 7 }}{% raw %}"
HOSTILE = [
    SCRIPT,
    BREAKOUT,
    BIDI,
    TEMPLATE,
    "\x00\x1b[31mred",
    "' onmouseover='alert(1)",
    "&lt;b&gt; & co",
    "</style><svg/onload=alert(1)>",
]


def noise(seed: int, side: int = 96) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    fine = rng.integers(-20, 21, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(coarse, dtype=np.int64) + fine, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source `images`, whose every text is hostile, its `pool`, and a `subset` of it."""
    folder = tmp_path_factory.mktemp("report")
    images = folder / "images"
    images.mkdir()
    rows = []
    for number in range(16):
        bad = HOSTILE[number % len(HOSTILE)]
        name = f"{number:02d}{bad.replace('/', '').replace(chr(0), '')}.jpg"
        (images / name).write_bytes(jpeg(noise(number)))
        rows.append({"file_name": name, "caption": f"{bad} number {number}", "species": bad})
    for name, data in (("copy.jpg", jpeg(noise(0))), ("empty.jpg", b""), ("tiny.jpg", jpeg(noise(99, 12)))):
        (images / name).write_bytes(data)
        rows.append({"file_name": name, "caption": rows[0]["caption"], "species": SCRIPT})
    rows.append({"file_name": f"not there {SCRIPT}".replace("/", ""), "caption": SCRIPT, "species": BREAKOUT})
    with (images / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "caption", "species"])
        writer.writeheader()
        writer.writerows({key: value.replace("\0", "") for key, value in row.items()} for row in rows)
    curate.grow(images, folder / "pool", options={"source": {"label": "species"}})
    curate.select_from_pool(folder / "pool", folder / "subset", method="random", budget=8)
    return folder


def report_of(made: Path, out: Path, name: str = "report.html") -> str:
    extra = [Table(SCRIPT, ("kind", BREAKOUT), [(BIDI, 1), (TEMPLATE, None)], SCRIPT)]
    path = write_report(made / "pool", out / name, manifest=made / "subset", title=SCRIPT, extra=extra)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects what a browser would act on."""

    VOID = frozenset({"meta", "img", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.tags if name in attributes]

    @property
    def text(self) -> str:
        return "".join(self.words)


def test_hostile_text_stays_text(made: Path, tmp_path: Path) -> None:
    page = Page(report_of(made, tmp_path))
    allowed = {
        "html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "div", "span", "p", "a",
        "h1", "h2", "h3", "h4", "ul", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "bdi",
        "figure", "figcaption", "img", "svg", "polyline", "g", "rect", "line", "text",
    }  # fmt: skip
    assert {tag for tag, _ in page.tags} <= allowed
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(value.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert not page.values("style")
    assert page.open == []
    for payload in (SCRIPT, BREAKOUT, TEMPLATE):
        assert payload in page.text


def test_what_cannot_be_seen_is_written_out(made: Path, tmp_path: Path) -> None:
    text = report_of(made, tmp_path)
    assert not [c for c in text if unicodedata.category(c) in ("Cf", "Cc", "Cs") and c != "\n"]
    assert "invoice\\u202egpj.exe" in text
    assert "\\u001b[31mred" in text


def test_nothing_is_fetched(made: Path, tmp_path: Path) -> None:
    text = report_of(made, tmp_path)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert "http://" not in text
    assert "https://" not in text


def test_every_decision_is_shown(made: Path, tmp_path: Path) -> None:
    page = Page(report_of(made, tmp_path))
    for words in (
        "undecodable",
        "too small",
        "exact duplicate",
        "missing file",
        "Encoders",
        "epsilon",
        "Recipe",
        "Versions",
    ):
        assert words in page.text
    assert len(page.values("src")) >= 8 + 2 + 2  # the selected, the pair of duplicates, the refused that decode
    assert all(page.values("alt"))
    assert "12 × 12 pixels" in page.text
    assert "no bytes" in page.text
    assert str(made) not in page.text


def test_headings_descend_one_step_at_a_time(made: Path, tmp_path: Path) -> None:
    levels = [int(tag[1]) for tag, _ in Page(report_of(made, tmp_path)).tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_links_lead_to_a_section(made: Path, tmp_path: Path) -> None:
    page = Page(report_of(made, tmp_path))
    assert {value[1:] for value in page.values("href")} <= set(page.values("id"))


def test_report_is_the_same_every_time_and_small(made: Path, tmp_path: Path) -> None:
    assert report_of(made, tmp_path, "a.html") == report_of(made, tmp_path, "b.html")
    assert (tmp_path / "a.html").stat().st_size < 1_000_000


def test_report_without_its_images_or_a_manifest(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made / "pool", copy)
    hidden = made / "hidden"
    (made / "images").rename(hidden)
    try:
        page = Page(write_report(copy, tmp_path / "deep" / "report.html").read_text(encoding="utf-8"))
    finally:
        hidden.rename(made / "images")
    assert [uri for uri in page.values("src") if not uri.startswith("data:image/png")] == []  # only maps are left
    assert "no such file or directory" in page.text
    assert "Selected samples" not in page.text


def test_a_manifest_alone_is_shown(made: Path, tmp_path: Path) -> None:
    text = report_manifest(made / "subset", tmp_path / "m.html").read_text(encoding="utf-8")
    page = Page(text)
    assert sum(uri.startswith("data:image/jpeg") for uri in page.values("src")) == 8
    assert "Selected samples" in page.text
    assert str(made) not in text
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "link"}


def test_versions_side_by_side_show_what_was_decided_anew(made: Path, tmp_path: Path) -> None:
    pool = shutil.copytree(made / "pool", tmp_path / "pool")
    first = curate.Pool.open(pool).version
    kept = curate.Pool.open(pool).frame(["key", "decision"]).filter(pl.col("decision") == "admit")["key"][0]
    curate.review(pool, [{"key": kept, "action": "drop"}])
    text = report_diff(pool, first, curate.Pool.open(pool).version, tmp_path / "d.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "Admit admitted → refuse reviewed" in page.text.replace("\n", " ")
    assert sum(uri.startswith("data:image/jpeg") for uri in page.values("src")) == 1
    with pytest.raises(UsageError, match="no version '999'"):
        report_diff(pool, 1, 999, tmp_path / "d.html")


def test_the_map_puts_what_is_alike_together() -> None:
    rng = np.random.default_rng(0)
    place = np.concatenate([rng.normal((-5, 0), 0.1, (300, 2)), rng.normal((5, 0), 0.1, (100, 2))])
    count, mean = maps._cells(place, np.repeat([0.0, 1.0], [300, 100]))
    half = count.shape[1] // 2
    assert (count[:, :half].sum(), count[:, half:].sum()) == (300, 100)
    assert mean[count > 0].tolist() == (np.nonzero(count)[1] >= half).tolist()


def test_coverage_and_gain_are_what_they_say(made: Path) -> None:
    pool = curate.Pool.open(made / "pool")
    x = pool.embeddings("image", where="decision = 'admit'")
    uids = pool.frame(["uid"], where="decision = 'admit'")["uid"].to_list()
    covered = curves._covered(x, x, np.array([1, 5, len(uids)]))
    plain = [float((x @ x[:m].T).max(axis=1).mean()) for m in (1, 5, len(uids))]
    np.testing.assert_allclose(covered, plain, atol=1e-6)
    assert covered[-1] == pytest.approx(1.0, abs=1e-3)
    curve = curves.coverage(pool, uids)
    assert curve is not None
    assert [name for _, name, _ in curve.lines] == ["at random", "as selected"]
    assert curves.gain_over_time(pool, pool.frame(["decision"])) is None  # too few rows for a curve


def test_notebooks_and_terminals_show_a_pool(made: Path, tmp_path: Path) -> None:
    html_of = curate.Pool.open(made / "pool")._repr_html_()
    assert "<b>Pool</b>" in html_of
    assert "<td>admit</td><td>admitted</td>" in html_of
    assert "of 3, best first" in curate.select(np.eye(9, dtype=np.float32), method="kcenter", budget=3)._repr_html_()
    spread = spread_of_scores(made / "pool")
    assert sum(spread["quality_contrast"]["counts"]) <= curate.Pool.open(made / "pool").rows
    assert spark([0, 1, 8]) == " ▂█"


def test_named_errors(made: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no pool at"):
        write_report(tmp_path / "none", tmp_path / "report.html")
    with pytest.raises(ManifestError, match="no readable manifest"):
        write_report(made / "pool", tmp_path / "report.html", manifest=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(made / "pool", tmp_path / "file" / "report.html")


# --- thumbnails --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "arguments", "words"),
    [
        ("pool", ["--root", "a=b"], "--root belongs to the report of a manifest"),
        ("subset", ["--since", "1"], "belong to the report of a pool"),
        ("subset", ["--manifest", "m"], "belong to the report of a pool"),
        ("pool", ["--since", "1", "--until", "2", "--manifest", "m"], "shows no selection"),
    ],
)
def test_options_that_would_be_ignored_are_refused(what: str, arguments: list[str], words: str, made: Path) -> None:
    from curate.cli import app

    with pytest.raises(UsageError, match=words):
        app(["report", str(made / what), "--out", str(made / "x.html"), *arguments], standalone_mode=False)


def row_of(folder: Path, name: str, data: bytes, offset: int = 0) -> dict[str, object]:
    (folder / name).write_bytes(b"\0" * offset + data + b"tail")
    return {"source": "s", "path": name, "offset": offset, "size": len(data), "sha256": content_hash(data)}


def test_thumbnail_of_bytes_inside_a_file(tmp_path: Path) -> None:
    row = row_of(tmp_path, "shard.tar", jpeg(noise(0, 300)), offset=512)
    uri, problem = Thumbnails({"s": str(tmp_path)}, 10**6, 10**6).picture(row)
    assert problem == ""
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 16_000


def test_pictures_stop_at_their_total(tmp_path: Path) -> None:
    row = row_of(tmp_path, "a.jpg", jpeg(noise(0)))
    thumbnails = Thumbnails({"s": str(tmp_path)}, 10**6, 20_000)
    made = [thumbnails.picture(row) for _ in range(20)]
    assert 0 < sum(len(uri) for uri, _ in made) <= 20_000
    assert made[-1] == ("", "left out, to keep this file small")


def test_unreadable_thumbnails_say_why(tmp_path: Path) -> None:
    thumbnails = Thumbnails({"s": str(tmp_path)}, 1000, 10**6)
    row = row_of(tmp_path, "a.jpg", jpeg(noise(0)))
    os.mkfifo(tmp_path / "pipe")
    assert thumbnails.picture(row)[1] == "the header says 96 x 96 pixels, allowed are 1,000"
    assert thumbnails.picture(row | {"path": "pipe"})[1] == "not a regular file"
    assert thumbnails.picture(row | {"path": "gone.jpg"})[1] == "no such file or directory"
    assert thumbnails.picture(row | {"path": "a\0b"})[1] == "no such path"
    assert thumbnails.picture(row | {"path": ""})[1] == "no stored image"
    assert thumbnails.picture(row | {"source": "another"})[1] == "no stored image"
    assert thumbnails.picture(row | {"offset": 1})[1] == "the file has changed since it was decided"
    assert thumbnails.picture(row_of(tmp_path, "b.jpg", b"text"))[1].startswith("not an image of an allowed format")


# --- counts and choices ------------------------------------------------------------------------------------------

STATE = {
    "classes": ["cat", "dog"],
    "checkpoint": {"caption": {"value": 1.5}, "classes": {"0": {"value": -4.0}}},
    "recipe": {"clean": {"min_contrast": 8.0, "min_sharpness": 1.5, "max_aspect": 8.0}},
}


@pytest.fixture
def rows() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": range(8),
            "decision": ["admit"] * 4 + ["refuse"] * 4,
            "reason": ["admitted"] * 4 + ["caption_mismatch", "caption_mismatch", "low_quality", "odd"],
            "label": ["cat", "cat", "dog", None, "cat", "dog", "dog", "dog"],
            "width": [100] * 8,
            "height": [100] * 8,
            "quality_contrast": [50.0] * 8,
            "quality_sharpness": [5.0] * 8,
            "pvi": [5.0, 6.0, 7.0, None, -1.0, -3.0, None, None],
            "s1_label": [None] * 8,
        },
        schema_overrides={"s1_label": pl.Float32},
    )


def test_funnel_accounts_for_every_row(rows: pl.DataFrame) -> None:
    steps = funnel(rows, selected=2)
    assert [(step.name, step.rows) for step in steps] == [
        ("seen", 8), ("low_quality", 1), ("caption_mismatch", 2), ("odd", 1), ("admitted", 4), ("selected", 2),
    ]  # fmt: skip
    assert [step.left for step in steps] == [0, 87.5, 62.5, 50, 0, 0]  # each refusal's bar ends where the last began
    assert steps[2].share == "25.0 %"


def test_worst_come_first(rows: pl.DataFrame) -> None:
    assert worst(rows, "caption_mismatch", STATE, 24) == [5, 4]
    assert worst(rows, "caption_mismatch", STATE, 1) == [5]
    assert worst(rows, "odd", STATE, 24) == [7]


def test_spread_is_even_and_without_repeats() -> None:
    assert spread(list(range(11)), 3) == [0, 5, 10]
    assert spread([1, 2], 5) == [1, 2]
    assert spread([], 5) == []


def test_scores_without_a_value_have_no_histogram(rows: pl.DataFrame) -> None:
    assert [figure.name for figure in histograms(rows, STATE)] == ["pvi"]


def test_class_balance_before_and_after(rows: pl.DataFrame) -> None:
    cat, dog = class_balance(rows, pl.DataFrame({"label": ["cat"]}), STATE)[::-1]
    assert (cat.label, cat.rows, cat.threshold) == ("cat", (3, 2, 1), 4.0)
    assert (dog.label, dog.rows, dog.threshold) == ("dog", (4, 1, 0), None)
    assert cat.shares == pytest.approx((3 / 7, 2 / 3, 1.0))


def test_long_tail_of_classes_is_one_line() -> None:
    frame = pl.DataFrame({"label": [f"{i:03d}" for i in range(100)], "decision": ["admit"] * 100})
    lines = class_balance(frame, None, {"checkpoint": None})
    assert len(lines) == 60
    assert (lines[-1].label, lines[-1].rows) == ("41 other classes", (41, 41))


def test_histogram_shows_thresholds_beyond_the_values() -> None:
    values = np.linspace(0.0, 1.0, 101)
    figure = histogram("pvi", "", values, values > 0.5, {"": -2.0})
    assert len(figure.rules) == 1
    assert figure.rules[0] < min(bar.x for bar in figure.bars)
    assert "threshold −2.00" in figure.summary
    assert max(bar.admitted for bar in figure.bars) == pytest.approx(82, abs=0.01)


def test_histogram_of_one_value() -> None:
    figure = histogram("gain", "", np.ones(3), np.array([True, True, False]), {})
    assert len(figure.bars) == 1
    assert figure.ticks


# --- text --------------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(), max_size=60))
def test_visible_text_hides_nothing_and_can_be_stored(text: str) -> None:
    clear = visible(text)
    clear.encode("utf-8")
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or c in "\u200c\u200d" for c in clear)


def test_numbers_and_words() -> None:
    assert visible("a\ud800\u2028\U000e0041") == "a\\ud800\\u2028\\U000e0041"
    assert visible("नमस्ते 👩\u200d🔬 a\u3000b") == "नमस्ते 👩\u200d🔬 a\u3000b"
    assert clipped(" a\n b  c ", 10) == "a b c"
    assert clipped("abcdef", 4) == "abc…"
    assert [shown(cell) for cell in (1234567, 0.5, None, "x")] == ["1,234,567", "0.500", "–", "x"]
    assert [percent(1, 8), percent(1, 5000), percent(0, 0)] == ["12.5 %", "< 0.1 %", "0.0 %"]
    assert [stored(999), stored(1500), stored(2.5e12)] == ["999 B", "1.5 kB", "2.5 TB"]
