"""Whole benchmarks: resumed, repeated, shown."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import jpeg, picture, write_folder

from curate.benchmark.cells import cells_of
from curate.benchmark.choose import Scores, choose, load_chosen
from curate.benchmark.definition import Chooser, definition_from, load_definition
from curate.benchmark.peers import PEERS
from curate.benchmark.pixels import PixelEncoder
from curate.benchmark.run import run_benchmark
from curate.benchmark.sets import encode
from curate.benchmark.world import build_world
from curate.errors import UsageError

ROOT = Path(__file__).parents[2]
TEXT = """[bench]
name = "Two <b>ways</b> | one"
budgets = [0.1, 0.4]
seeds = 2
tasks = ["probe", "coverage", "contrastive", "detection"]
[task]
steps = 5
probe_dims = 4
[dataset.c]
kind = "synthetic"
rows = 160
classes = 4
dims = 8
flipped = 0.15
[corruption]
planted = []
[selector]
random = { method = "random" }
everything = { method = "everything" }
gated = { method = "kcenter", gate = { column = "pvi_label", least = 0.0 } }
oracle = { method = "random", gate = "oracle" }
peer = { method = "peer:apricot" }
[detection]
columns = ["s1_label", "-pvi_label"]
"""


TABLES = {
    "dataset": {"c": {"kind": "synthetic", "rows": 60, "dims": 8}},
    "corruption": {},
    "selector": {"random": {"method": "random"}},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A definition, the folder of a finished run, and its results."""
    base = tmp_path_factory.mktemp("bench")
    definition = base / "d.toml"
    definition.write_text(TEXT, encoding="utf-8")
    run_benchmark(definition, base / "out", workers=0)
    return definition, base / "out", json.loads((base / "out" / "results.json").read_bytes())


def files(folder: Path) -> dict[str, bytes]:
    kept = [folder / "results.json", *folder.glob("cells/*.json")]
    return {path.name: path.read_bytes() for path in kept}


def test_two_runs_give_equal_bytes_times_apart(ran: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    definition, out, _ = ran
    run_benchmark(definition, tmp_path, workers=0)
    assert files(tmp_path) == files(out)


def test_a_second_run_computes_nothing(ran: tuple[Path, Path, dict[str, Any]]) -> None:
    definition, out, _ = ran
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*")}
    assert run_benchmark(definition, out, workers=0).computed == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("cells/*")} == before


def test_another_selector_adds_its_cells_only(ran: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    definition, _, _ = ran
    more = tmp_path / "d.toml"
    more.write_text(TEXT.replace("[detection]", 'herding = { method = "herding" }\n[detection]'), encoding="utf-8")
    old, new = ({cell.key for cell in cells_of(load_definition(path))} for path in (definition, more))
    assert len(new - old) == 4
    assert old < new


def test_a_peer_that_is_installed_later_gets_its_turn(
    ran: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = load_definition(ran[0])
    before = {(cell.selector, cell.key) for cell in cells_of(definition)}
    monkeypatch.setattr("curate.benchmark.peers.metadata.version", lambda name: f"{name} 9")
    after = {(cell.selector, cell.key) for cell in cells_of(definition)}
    assert {selector for selector, _ in before ^ after} == {"peer"}


def test_scores_of_another_version_are_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = build_world(definition_from(TABLES), "c", "clean", 0, tmp_path)
    for version in ("1", "1", "2"):
        monkeypatch.setattr("curate.benchmark.choose.__version__", version)
        Scores(world, 0, tmp_path / "scores").of("density")
    assert len(list((tmp_path / "scores").iterdir())) == 2


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    ran: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    definition, out, _ = ran
    command = [sys.executable, "-m", "curate", "bench", str(definition), "--out", str(tmp_path), "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", "kernels", "selectors"])}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("cells/*.json")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # ends when its workers have let go of the pipes
    done = list(tmp_path.glob("cells/*.json"))
    assert 0 < len(done) < len(list(out.glob("cells/*.json")))
    assert not (tmp_path / "results.json").exists()
    made = run_benchmark(definition, tmp_path, workers=0)
    assert made.computed == made.cells - len(done)
    assert files(tmp_path) == files(out)


def test_the_command_prints_one_json_object(ran: tuple[Path, Path, dict[str, Any]]) -> None:
    definition, out, _ = ran
    command = [sys.executable, "-m", "curate", "bench", str(definition), "--out", str(out), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["computed"] == 0
    assert Path(answer["page"]).is_file()


def test_figures_come_from_the_rows_not_from_the_selector(ran: tuple[Path, Path, dict[str, Any]]) -> None:
    definition, out, results = ran
    made = load_definition(definition)
    world = build_world(made, "c", "planted", 1, out / "embeddings")
    [cell] = [c for c in cells_of(made) if (c.selector, c.budget, c.seed) == ("oracle", 0.1, 1)]
    rows = load_chosen(cell.chosen_file(out)).index
    [told] = [c for c in results["cells"] if (c.get("selector"), c.get("budget"), c["seed"]) == ("oracle", 0.1, 1)]
    assert told["rows"] == int(world.n * 0.1) == rows.size
    assert told["measures"]["composition"]["share_bad"] == 0
    assert sum(told["classes"].values()) == rows.size
    assert not world.plan.truth["flipped"][rows].any()


def test_tables_hold_means_over_seeds_and_tests_against_random(ran: tuple[Path, Path, dict[str, Any]]) -> None:
    _, _, results = ran
    [table] = [t for t in results["tables"] if t["measure"] == "balanced_accuracy"]
    [row] = [r for r in table["rows"] if (r["selector"], r["budget"]) == ("gated", 0.4)]
    values = {
        (c["selector"], c["seed"]): c["measures"]["probe"]["balanced_accuracy"]
        for c in results["cells"]
        if c.get("budget") == 0.4 and c["measures"]
    }
    assert row["mean"] == pytest.approx(np.mean([values["gated", s] for s in (0, 1)]))
    assert row["n"] == 2
    assert row["over_random"] == pytest.approx(np.mean([values["gated", s] - values["random", s] for s in (0, 1)]))
    assert [r["n"] for r in table["rows"] if r["selector"] == "random"] == [5, 5]
    assert [r["budget"] for r in table["rows"] if r["selector"] == "everything"] == [1.0]


def test_a_peer_that_is_not_installed_is_skipped_with_the_reason(
    ran: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apricot", None)
    definition, out, _ = ran
    world = build_world(load_definition(definition), "c", "planted", 0, out / "embeddings")
    found = choose(world, Chooser(method="peer:apricot"), 0.1, 0, Scores(world, 0, out / "scores"))
    assert "apricot-select is not installed" in found.problem


def test_a_selector_that_breaks_its_word_or_chooses_nothing_is_told_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(PEERS, "apricot", ("numpy", "apricot-select", lambda world, rows, count, seed: [0, 0]))
    selectors = {
        "random": {"method": "random"},
        "liar": {"method": "peer:apricot"},
        "strict": {"method": "random", "gate": {"column": "pvi_label", "least": 1e6}},
    }
    collection = {"kind": "synthetic", "rows": 100, "classes": 2, "dims": 4}
    bench = {"budgets": [0.2], "seeds": 1, "tasks": ["coverage"]}
    made = definition_from({"bench": bench, "dataset": {"c": collection}, "selector": selectors})
    done = run_benchmark(made, tmp_path, workers=0)
    assert done.problems == 2
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "liar, selector: the selector named 1 rows twice" in table
    assert "strict, selector: the selector chose nothing" in table


def test_a_peer_that_fails_stops_nobody_else(
    ran: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError("of its own")

    monkeypatch.setitem(PEERS, "apricot", ("numpy", "apricot-select", broken))
    definition, out, _ = ran
    world = build_world(load_definition(definition), "c", "planted", 0, out / "embeddings")
    found = choose(world, Chooser(method="peer:apricot"), 0.1, 0, Scores(world, 0, out / "scores"))
    assert found.problem == "apricot-select failed: ZeroDivisionError: of its own"


@pytest.mark.parametrize("peer", ["kmeans-medoids", "cleanlab", "infogrowth-hnswlib"])
def test_peers_that_are_installed_choose_as_asked(peer: str, ran: tuple[Path, Path, dict[str, Any]]) -> None:
    pytest.importorskip({"infogrowth-hnswlib": "hnswlib", "cleanlab": "cleanlab"}.get(peer, "sklearn"))
    definition, out, _ = ran
    world = build_world(load_definition(definition), "c", "planted", 0, out / "embeddings")
    found = choose(world, Chooser(method=f"peer:{peer}", gate="oracle"), 0.2, 0, Scores(world, 0, out / "scores"))
    assert found.problem == ""
    assert np.unique(found.index).size == found.index.size == int(0.2 * world.n)
    assert not world.plan.bad()[found.index].any()


class Reader(HTMLParser):
    """Collects the tags that are open at the end, and all there were."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "rect", "line", "circle", "polygon", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_is_whole_escaped_and_needs_nothing_else(ran: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, results = ran
    page = (out / "page.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert "b" not in reader.tags
    assert "script" not in reader.tags
    assert "Two &lt;b&gt;ways&lt;/b&gt; | one" in page
    assert reader.tags.count("polyline") >= 3 * len(results["tables"])
    assert not re.search(r"(src|href)=\"?(http|//)", page)
    assert "nan" not in "".join(re.findall(r'points="([^"]*)"', page))


def test_the_table_is_markdown_with_nothing_of_the_names_in_it(ran: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, _ = ran
    lines = (out / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Two &lt;b&gt;ways&lt;/b&gt; \\| one"
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in lines if line.startswith("| ")}
    assert len(widths) > 1
    for number, line in enumerate(lines):
        if line.startswith("| ---"):
            assert line.count("|") == lines[number - 1].count("|")


def test_a_folder_of_images_is_a_collection(tmp_path: Path) -> None:
    pictures = {f"{'ab'[i % 2]}/{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(24)} | {"a/x.jpg": b"no picture"}
    source = write_folder(tmp_path / "s", pictures)
    one = {"kind": "source", "path": str(source), "encoder": "pixels"}
    steps = [{"kind": "near-duplicate", "share": 0.3}, {"kind": "blank", "share": 0.1}]
    selectors = {"random": {"method": "random"}}
    made = definition_from({"dataset": {"s": one}, "corruption": {"copies": steps}, "selector": selectors})
    world = build_world(made, "s", "copies", 0, tmp_path / "cache")
    assert world.base.dropped == 1
    assert world.base.x.shape == (24, 256)
    again = build_world(made, "s", "copies", 0, tmp_path / "cache")
    np.testing.assert_array_equal(again.x, world.x)
    near = np.flatnonzero(world.plan.truth["near-duplicate"])
    assert world.test.size == 6
    own = world.base.x[world.plan.origin[near]]
    assert (np.abs(world.x[near] - own).max(axis=1) > 1e-4).any()
    for i in np.flatnonzero(world.plan.change == ""):
        np.testing.assert_allclose(world.x[i], world.base.x[world.plan.origin[i]], atol=1e-3)
    back = world.base.read(np.array([5, 3, 4, 23, 0]))  # type: ignore[misc]
    own = [encode(PixelEncoder(), [image]) for image in back]
    np.testing.assert_array_equal(np.concatenate(own), world.base.x[[5, 3, 4, 23, 0]].astype(np.float16))
    moved = definition_from({"dataset": {"s": one | {"path": "$NO_SUCH_NAME/s"}}, "selector": selectors})
    with pytest.raises(UsageError, match="variable that is not set"):
        build_world(moved, "s", "clean", 0, tmp_path / "cache")
