"""docs/reading.md: every example runs as it stands, without curate where it says so, and gives the truth."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pictures import captioned_tar
from toys import toy_encoders

import curate

DOC = Path(__file__).parent.parent / "docs" / "reading.md"
SECTIONS = re.split(r"^## ", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
EXAMPLES = {
    f"{section.partition(chr(10))[0]} {number}": code
    for section in SECTIONS
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pool of a tar, and a manifest of 12 of its rows, drawn at random."""
    base = tmp_path_factory.mktemp("reading")
    captioned_tar(base / "shards" / "000.tar", range(40))
    with toy_encoders():
        curate.grow(base / "shards", base / "pool", options={"dedup": {"epsilon": 1e-6}, "clean": {"captions": False}})
    curate.select_from_pool(base / "pool", base / "subset", method="random", budget=12)
    return base


def run(name: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(world)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLES[name], f"{DOC.name}: {name}", "exec"), names)
    return names


def test_every_example_is_run_below() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert len(EXAMPLES) == DOC.read_text(encoding="utf-8").count("```python") == 8
    assert [name for name in EXAMPLES if f'run("{name}"' not in text] == []


def test_plain_python_reads_the_bytes_of_the_tar(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = run("Python without curate 0", world, monkeypatch)["images"]
    with tarfile.open(world / "shards" / "000.tar") as tar:
        kept = {m.name.rpartition(".")[0]: tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}  # type: ignore[union-attr]
    assert images == [kept[key] for key in curate.read_manifest(world / "subset")["key"]]
    assert "curate" not in re.findall(r"^(?:import|from) (\w+)", EXAMPLES["Python without curate 0"], re.MULTILINE)


def test_polars_counts_and_takes_the_best(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, rows = run("polars 0", world, monkeypatch), curate.read_manifest(world / "subset")
    assert names["labels"]["len"].sum() == 12
    assert names["best"].equals(rows.head(10).select("key", "rank"))
    assert names["shards"]["size"].to_list() == [rows["size"].sum()]


def test_duckdb_sums(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, rows = run("DuckDB 0", world, monkeypatch), curate.read_manifest(world / "subset")
    assert sum(row[1] for row in names["labels"]) == 12
    assert sum(row[2] for row in names["labels"]) == rows["size"].sum()
    assert pl.read_csv(world / "captions.csv")["caption"].to_list() == rows["caption"].to_list()
    total = run("DuckDB 1", world, monkeypatch)["total"][0]
    assert total == pytest.approx(float((rows["ht_weight"] * rows["size"]).sum()), rel=1e-6)


def test_pandas_sums_weights(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("pandas 0", world, monkeypatch)["by_label"].sum() == 12


def test_the_pool_is_read_by_curate_and_by_duckdb(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = curate.Pool.open(world / "pool").frame(["uid", "key", "decision", "reason", "gain"])
    admitted = frame.filter(pl.col("decision") == "admit")
    names = run("The pool 0", world, monkeypatch)
    assert names["refused"].height + names["embeddings"].shape[0] == 40
    assert np.allclose(np.linalg.norm(names["embeddings"], axis=1), 1, atol=1e-3)
    reasons = run("The pool 1", world, monkeypatch)["reasons"]
    assert sum(row[2] for row in reasons) == 40
    left_out = run("The pool 2", world, monkeypatch)["left_out"]
    rest = admitted.join(curate.read_manifest(world / "subset"), on="uid", how="anti")
    expected = rest.sort("gain", "uid", descending=[True, False])["key"].to_list()[:10]
    assert [key for (key,) in left_out] == expected
