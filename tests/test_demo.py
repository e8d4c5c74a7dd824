"""The demo: faults are planted as the truth says, and the engine finds them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import curate
from curate.demo import run_demo
from curate.demo.material import photographs
from curate.demo.planting import BROKEN, EXACT, GOOD, LABEL, NEAR, POOR, Planted, Planting, plant
from curate.demo.truth import truth_rows
from curate.errors import DecodeError, UsageError
from curate.images import decode, pixel_hash

SMALL = Planting(exact=4, near=3, labels=5, broken=4, poor=4)


def pictures(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(n)]


def planted_in(folder: Path) -> list[Planted]:
    return plant(folder, pictures(20), ["a", "b"] * 10, SMALL, np.random.default_rng(3))


def test_truth_names_every_file_once(tmp_path: Path) -> None:
    planted = planted_in(tmp_path)
    on_disk = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert sorted(file.path for file in planted) == sorted(on_disk)
    kinds = [file.kind for file in planted]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        GOOD: 15,
        LABEL: 5,
        EXACT: 4,
        NEAR: 3,
        BROKEN: 4,
        POOR: 4,
    }


def test_planting_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = planted_in(tmp_path / "a"), planted_in(tmp_path / "b")
    assert first == second
    for file in first:
        assert (tmp_path / "a" / file.path).read_bytes() == (tmp_path / "b" / file.path).read_bytes()


def test_planted_files_are_what_they_are_called(tmp_path: Path) -> None:
    planted = planted_in(tmp_path)
    originals = {file.group: tmp_path / file.path for file in planted if file.kind == GOOD}
    for file in planted:
        path = tmp_path / file.path
        if file.kind == EXACT:
            assert hash_of(path) == hash_of(originals[file.group])
        elif file.kind == NEAR:
            assert hash_of(path) != hash_of(originals[file.group])
            assert decode(path.read_bytes()).width == 36
        elif file.kind == LABEL:
            assert Path(file.path).parent.name == ("b" if file.group % 2 == 0 else "a")
        elif file.kind == BROKEN:
            with pytest.raises(DecodeError):
                decode(path.read_bytes())
    suffixes = {Path(file.path).suffix for file in planted if file.kind == EXACT}
    assert suffixes == {".jpg", ".png"}


def hash_of(path: Path) -> str:
    return pixel_hash(decode(path.read_bytes()).pixels)


class Decided:
    """Stands for a pool: what was decided about eight files."""

    def __init__(self, rows: list[tuple[str, str, str, str | None, str | None]]) -> None:
        self._rows = [
            (f"uid-{path}", path, decision, reason, twin and f"uid-{twin}", label)
            for path, decision, reason, twin, label in rows
        ]

    def frame(self, columns: list[str]) -> pl.DataFrame:
        return pl.DataFrame(self._rows, schema=columns, orient="row")


def test_truth_is_measured_from_decisions() -> None:
    planted = [
        Planted("a", GOOD, 0), Planted("a2", EXACT, 0), Planted("b", GOOD, 1), Planted("b2", EXACT, 1),
        Planted("c", GOOD, 2), Planted("d", LABEL, 3), Planted("e", BROKEN, -1), Planted("f", LABEL, 4),
    ]  # fmt: skip
    pool = Decided(
        [
            ("a2", "admit", "admitted", None, None),
            ("a", "refuse", "exact_duplicate", "a2", None),
            ("b", "admit", "admitted", None, None),
            ("b2", "refuse", "exact_duplicate", "a2", None),  # refused for the wrong one
            ("c", "refuse", "label_noise", None, None),
            ("d", "admit", "admitted", None, None),
            ("f", "admit", "admitted", None, "its first label"),
            ("e", "refuse", "undecodable", None, None),
        ]
    )
    rows = {row.kind: row for row in truth_rows("x", pool, planted)}  # type: ignore[arg-type]
    assert (rows[EXACT].planted, rows[EXACT].found, rows[EXACT].precision, rows[EXACT].recall) == (2, 1, 0.5, 0.5)
    assert rows[EXACT].kept == 0
    assert (rows[LABEL].found, rows[LABEL].precision, rows[LABEL].kept) == (1, 0.5, 1)
    assert (rows[BROKEN].found, rows[BROKEN].precision) == (1, 1.0)
    assert (rows[GOOD].planted, rows[GOOD].kept, rows[GOOD].found) == (3, 2, None)
    assert POOR not in rows


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(UsageError, match=r"pip install 'curate-engine\[demo\]'"):
        photographs()


def test_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="neither empty nor an earlier demo"):
        run_demo(tmp_path)


@pytest.mark.slow
def test_demo_finds_what_was_planted(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    result = run_demo(tmp_path / "demo", progress=lambda *step: told.append(step))
    rows = {(row.collection, row.kind): row for row in result.truth}
    for name in ("photos", "digits"):
        assert rows[name, BROKEN].recall == 1.0
        assert rows[name, BROKEN].precision == 1.0
        assert rows[name, POOR].recall == 1.0
        assert rows[name, POOR].precision == 1.0
        assert rows[name, EXACT].precision == 1.0
        assert rows[name, EXACT].kept == 0
        assert rows[name, NEAR].recall >= 0.7
        assert rows[name, NEAR].precision >= 0.85  # digits of 8 x 8 pixels look alike to any hash
        assert rows[name, GOOD].kept >= 0.95 * rows[name, GOOD].planted
    assert rows["photos", EXACT].recall == 1.0
    assert rows["digits", LABEL].recall >= 0.85
    assert rows["digits", LABEL].precision >= 0.6
    for collection in result.collections:
        chosen = curate.read_manifest(collection.manifest)
        assert chosen.height == collection.selected.selected == int(0.2 * collection.grown.admitted)
        assert collection.report.stat().st_size < 5_000_000
        assert told[-1][1:] == (result.collections[-1].grown.seen, result.collections[-1].grown.seen)
    truth = json.loads((tmp_path / "demo" / "truth.json").read_text())
    assert {name: len(files) for name, files in truth.items()} == {c.name: c.grown.seen for c in result.collections}
