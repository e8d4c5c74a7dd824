"""A manifest comes back as it was written, or is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from curate import manifest
from curate.errors import ManifestError
from curate.manifest import COLUMNS, FORMAT, manifest_info, manifest_roots, read_manifest, scan_manifest, write_manifest

INFO = {"method": "random", "budget": "5", "seed": 0}


def table(n: int = 5) -> pl.DataFrame:
    """Rows with every column, captions missing on odd ones, and one score."""
    value = {
        pl.String: lambda i: f"é{i}",
        pl.Int64: lambda i: i * 2**40,
        pl.Int32: lambda i: i,
        pl.Float32: lambda i: i / 4,
    }
    columns = {name: [value[kind](i) for i in range(n)] for name, kind in COLUMNS.items()}
    columns["caption"] = [None if i % 2 else "two\nlines" for i in range(n)]
    return pl.DataFrame(columns, schema=COLUMNS).with_columns(pvi=pl.lit(0.5, dtype=pl.Float32))


def written(folder: Path, n: int = 5, info: dict[str, object] = INFO) -> Path:
    """Write a manifest and return its folder."""
    return write_manifest(folder / "subset", table(n), info).parent


def edit(folder: Path, **changes: object) -> None:
    """Change entries of manifest.json; None removes one."""
    file = folder / "manifest.json"
    info = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in info.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize("n", [0, 1, 5])
def test_rows_come_back_as_they_were(n: int, tmp_path: Path) -> None:
    folder = written(tmp_path, n)
    assert read_manifest(folder).equals(table(n))
    assert read_manifest(folder / "manifest.json").equals(table(n))
    assert read_manifest(str(folder)).schema == table(n).schema


def test_rows_in_several_parts_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_PART_ROWS", 2)
    folder = written(tmp_path)
    assert [part["rows"] for part in manifest_info(folder)["parts"]] == [2, 2, 1]
    assert read_manifest(folder).equals(table())


def test_info_is_kept_and_completed(tmp_path: Path) -> None:
    info = manifest_info(written(tmp_path))
    assert {key: info[key] for key in INFO} == INFO
    assert (info["format"], info["required_features"], info["rows"]) == (FORMAT, [], 5)
    assert info["columns"] == [*COLUMNS, "pvi"]
    assert info["writer"]["name"] == "curate-engine"


def test_columns_are_cast_to_the_types_of_the_format(tmp_path: Path) -> None:
    loose = table().with_columns(pl.col("width").cast(pl.Int64), pl.col("weight").cast(pl.Float64))
    write_manifest(tmp_path, loose, INFO)
    assert read_manifest(tmp_path).equals(table())


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_new_manifest_in_an_old_folder_leaves_no_stale_part(tmp_path: Path) -> None:
    written(tmp_path)
    folder = written(tmp_path, 3)
    assert read_manifest(folder).height == 3
    assert len(list(folder.iterdir())) == 2


def test_damaged_part_is_refused_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path)
    part = next(folder.glob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(ManifestError, match=rf"{part.name} is damaged"):
        read_manifest(folder)


def test_missing_part_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    next(folder.glob("*.parquet")).unlink()
    with pytest.raises(ManifestError, match="a part of the manifest is missing"):
        read_manifest(folder)


def test_part_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = written(tmp_path)
    part = next(folder.glob("*.parquet"))
    entry = manifest_info(folder)["parts"][0] | {"path": f"../{part.name}"}
    part.rename(tmp_path / part.name)
    edit(folder, parts=[entry])
    with pytest.raises(ManifestError, match="missing"):
        read_manifest(folder)


def test_unknown_major_format_asks_for_a_newer_reader(tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, format=[2, 0])
    with pytest.raises(ManifestError, match=r"format \[2, 0\], and this reader knows 1\.x; upgrade curate"):
        read_manifest(folder)


def test_newer_minor_format_with_more_entries_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, format=[1, 7], another="entry")
    assert read_manifest(folder).height == 5


def test_unknown_required_feature_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, required_features=["crops", "masks"])
    with pytest.raises(ManifestError, match="does not know: masks"):
        read_manifest(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"parts": 3, "format": [1, 0]}', "\x00"])
def test_file_that_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match="manifest"):
        manifest_info(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"format": []},
        {"required_features": None},
        {"parts": []},
        {"parts": [{}]},
        {"parts": ["part.parquet"]},
        {"parts": [{"path": "", "sha256": ""}]},
    ],
    ids=str,
)
def test_manifest_with_damaged_entries_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, **changes)
    with pytest.raises(ManifestError):
        read_manifest(folder)


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ManifestError, match="there is no readable manifest"):
            read_manifest(path)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ManifestError, match="cannot be written"):
        write_manifest(tmp_path / "file", table(), INFO)


def test_lazy_rows_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_PART_ROWS", 2)
    folder = written(tmp_path)
    assert scan_manifest(folder).select("key", "offset").collect().equals(table().select("key", "offset"))


def test_roots_move_by_their_longest_beginning() -> None:
    info = {"sources": [{"id": "a", "root": "/data/x"}, {"id": "b", "root": "/data/x/y"}, {"id": "c", "root": "/dat"}]}
    assert manifest_roots(info) == {"a": "/data/x", "b": "/data/x/y", "c": "/dat"}
    moved = manifest_roots(info, {"/data/": "s3://b", "/data/x/y": "/new"})
    assert moved == {"a": "s3://b/x", "b": "/new", "c": "/dat"}
    with pytest.raises(ManifestError, match="no source of the manifest lies under /da; its roots are: /dat, "):
        manifest_roots(info, {"/da": "/x"})


def test_writing_that_fails_half_way_leaves_the_old_manifest_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_PART_ROWS", 2)
    folder = written(tmp_path)
    before = sorted(path.name for path in folder.iterdir())

    def frames() -> Iterator[pl.DataFrame]:
        yield table(4).with_columns(key=pl.lit("new"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, frames(), INFO)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert read_manifest(folder).equals(table())


def test_no_more_than_a_part_is_held_while_frames_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_PART_ROWS", 4)
    folder, seen = tmp_path / "m", []

    def frames() -> Iterator[pl.DataFrame]:
        for start in range(0, 12, 3):
            seen.append(len(list(folder.glob("*.parquet"))))
            yield table(12).slice(start, 3)

    write_manifest(folder, frames(), INFO)
    assert seen == [0, 0, 1, 2]  # written as soon as it is full
    assert [part["rows"] for part in manifest_info(folder)["parts"]] == [4, 4, 4]
    assert read_manifest(folder).equals(table(12))
    with pytest.raises(ManifestError, match="at least one frame"):
        write_manifest(folder, iter(()), INFO)
