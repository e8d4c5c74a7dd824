"""A manifest is opened compactly, the same from memory and from mapped files, and hostile ones are refused by name."""

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from subsets import make_subset, tar_rows, write_rows

from curate import manifest
from curate.errors import CurateError, ManifestError, UsageError
from curate.loaders import Subset, iterate, places, shelf, subset
from curate.manifest import read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_subset(tmp_path_factory.mktemp("subset"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Subsets of more than 10 rows are mapped from this folder."""
    monkeypatch.setattr(subset, "_IN_MEMORY", 10)
    monkeypatch.setattr(shelf, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def contents(opened: Subset) -> list[tuple[Any, ...]]:
    where = [opened.location(int(file)) if file >= 0 else None for file in opened.file]
    captions = opened.values("caption", range(opened.n))
    return list(zip(where, opened.offset.tolist(), opened.size.tolist(), captions, strict=True))


def test_places_are_those_of_the_manifest(folder: Path) -> None:
    rows = read_manifest(folder)
    opened = Subset(folder)
    expected = zip(zip(rows["source"], rows["path"], strict=True), rows["offset"], rows["size"], rows["caption"],
                   strict=True)  # fmt: skip
    assert contents(opened) == list(expected)
    assert opened.numbers("weight").tolist() == [1.0] * 60


def test_mapped_files_hold_the_same_and_are_made_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subset, "_IN_MEMORY", 100)
    small = contents(Subset(folder))
    monkeypatch.setattr(subset, "_IN_MEMORY", 10)
    first = Subset(folder)
    assert contents(first) == small
    assert not first.file.flags.writeable  # in the file's own pages
    assert first.by_place.tolist() == sorted(range(60), key=lambda i: (first.file[i], first.offset[i], i))
    monkeypatch.setattr(Subset, "_tables", None)  # nothing is read from the manifest's parts again
    second = pickle.loads(pickle.dumps(first))
    assert contents(second) == small
    assert second.by_place.tolist() == first.by_place.tolist()


def test_parts_and_row_groups_are_joined(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_PART_ROWS", 16)
    folder = make_subset(tmp_path, 60)
    rows = read_manifest(folder)
    assert len(manifest.manifest_info(folder)["parts"]) == 4
    assert [where for where, *_ in contents(Subset(folder))] == list(zip(rows["source"], rows["path"], strict=True))
    assert [caption for *_, caption in contents(Subset(folder, budget=37))] == rows["caption"].head(37).to_list()


def test_files_too_many_to_look_up_are_numbered_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = contents(Subset(folder))
    monkeypatch.setattr(places, "_DISTINCT", 2)
    assert contents(Subset(folder)) == known


def test_damaged_cache_is_made_again(folder: Path, cache: Path) -> None:
    before = contents(Subset(folder))
    for file in cache.rglob("*.arrow"):
        file.write_bytes(file.read_bytes()[:-50])
    assert contents(Subset(folder)) == before


def test_cache_that_cannot_be_written_costs_memory_only(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")
    assert len(contents(Subset(folder))) == 60
    assert "held in memory" in caplog.text


@pytest.mark.parametrize(("budget", "rows"), [("5%", 3), (7, 7), (0.5, 30), ("100%", 60)])
def test_budget_is_a_prefix_in_rank_order(budget: int | float | str, rows: int, folder: Path) -> None:
    uids = [item["uid"] for item in iterate(folder, budget=budget, shuffle=False, decode="raw")]
    assert uids == read_manifest(folder)["uid"].head(rows).to_list()


def test_budget_of_what_is_not_nested_is_refused(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path, 6)
    folder = write_rows(tmp_path / "m", rows, tmp_path, nested=False)
    assert Subset(folder).n == 6
    with pytest.raises(UsageError, match="not nested"):
        Subset(folder, budget=3)


@pytest.mark.parametrize("budget", ["2GB", 61, "0%", 1.5])
def test_budget_that_cannot_be_given_is_refused(budget: int | float | str, folder: Path) -> None:
    with pytest.raises(UsageError, match="budget"):
        Subset(folder, budget=budget)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("offset", -1, "negative"), ("size", -5, "negative"), ("source", "elsewhere", "does not list"),
     ("source", None, "does not list")],
)  # fmt: skip
def test_rows_that_lie_are_refused(column: str, value: Any, message: str, tmp_path: Path) -> None:
    rows = tar_rows(tmp_path, 6)
    sources = [{"id": f"{i:05d}.tar", "kind": "tar", "root": str(tmp_path)} for i in range(3)]
    rows[4][column] = value
    names = [row if row["source"] else row | {"source": "x"} for row in rows]
    folder = write_rows(tmp_path / "m", names, tmp_path, sources=sources)
    if value is None:
        rewrite(folder, pl.when(pl.col("source") == "x").then(None).otherwise(pl.col("source")).alias("source"))
    with pytest.raises(ManifestError, match=message):
        Subset(folder).file  # noqa: B018


def rewrite(folder: Path, *columns: pl.Expr) -> None:
    """Change columns of the one part without its checksum."""
    part = next(folder.glob("*.parquet"))
    pl.read_parquet(part).with_columns(*columns).write_parquet(part)


@pytest.mark.parametrize("column", ["offset", "path", "source"])
def test_columns_of_another_type_are_refused(column: str, folder: Path, tmp_path: Path) -> None:
    copy = write_rows(tmp_path / "m", tar_rows(tmp_path, 6), tmp_path)
    rewrite(copy, pl.lit("x").alias(column) if column == "offset" else pl.lit(1.5).alias(column))
    with pytest.raises(ManifestError, match=column):
        Subset(copy).file  # noqa: B018


def test_missing_and_damaged_parts_are_refused(tmp_path: Path) -> None:
    folder = write_rows(tmp_path / "m", tar_rows(tmp_path, 6), tmp_path)
    part = next(folder.glob("*.parquet"))
    data = part.read_bytes()
    rewrite(folder, pl.col("weight"))
    pl.read_parquet(part).head(5).write_parquet(part)
    with pytest.raises(ManifestError, match=r"5 rows, and manifest\.json says 6"):
        Subset(folder)
    pl.read_parquet(part).drop("offset").write_parquet(part)
    part.write_bytes(data[:100])
    with pytest.raises(ManifestError, match="missing or damaged"):
        Subset(folder)
    part.unlink()
    with pytest.raises(ManifestError, match="missing or damaged"):
        Subset(folder)


def test_changed_manifest_is_not_taken_for_the_one_that_was_pickled(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path, 6)
    saved = pickle.dumps(Subset(write_rows(tmp_path / "m", rows, tmp_path)))
    write_rows(tmp_path / "m", rows[:5], tmp_path)
    with pytest.raises(ManifestError, match="another one"):
        pickle.loads(saved)


def test_unknown_columns_are_named(folder: Path) -> None:
    with pytest.raises(ManifestError, match="no column 'pvi'; it has uid"):
        Subset(folder).column("pvi")
    with pytest.raises(ManifestError, match="must hold numbers"):
        Subset(folder).numbers("caption")


def test_empty_manifest_gives_no_items(tmp_path: Path) -> None:
    folder = write_rows(tmp_path / "m", [], tmp_path)
    assert list(iterate(folder)) == []
    assert Subset(folder).by_place.tolist() == []
    assert np.asarray(Subset(folder).file).shape == (0,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one part of a manifest, not compressed, so that damage reaches the values; as it was in a file beside it."""
    folder = tmp_path_factory.mktemp("plain")
    part = next(write_rows(folder / "m", tar_rows(folder, 6), folder).glob("*.parquet"))
    pl.read_parquet(part).write_parquet(part, compression="uncompressed")
    (part.parent / "whole").write_bytes(part.read_bytes())
    return part


@given(places=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), min_size=1, max_size=4))
def test_damage_is_named_or_does_not_matter(places: list[tuple[float, int]], plain: Path) -> None:
    data = bytearray((plain.parent / "whole").read_bytes())
    for where, value in places:
        data[int(where * len(data))] ^= value
    plain.write_bytes(data)
    with contextlib.suppress(CurateError):
        for _ in iterate(plain.parent, decode="raw", on_error="skip", threads=0):
            pass
