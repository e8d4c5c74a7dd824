"""Tables with the images inside, and `datasets.Dataset` objects."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pictures import jpeg, picture
from pyarrow import parquet
from source_cases import dataset, features, hf_parquet
from toys import toy_encoders

import curate
from curate.cells import PATTERN, cell_path, read_cell, split_cell
from curate.cells import parquet as parquet_cells
from curate.errors import SourceError, UsageError
from curate.manifest import manifest_info, manifest_roots
from curate.samples import Sample, Source, content_hash
from curate.sources import Columns, open_sources
from curate.stored import read_stored
from curate.verification import verify

datasets = pytest.importorskip("datasets")


def only(given: object, columns: Columns | None = None) -> Source:
    (source,) = open_sources([given], columns)
    return source


def read(given: object, columns: Columns | None = None) -> list[Sample]:
    return list(only(given, columns).rows())


def error_of(given: object, columns: Columns | None = None, kind: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        [list(source.rows()) for source in open_sources([given], columns, kind=kind)]
    return str(caught.value)


def table(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


# Which column


def test_classes_have_their_names_and_captions_their_alternatives(tmp_path: Path) -> None:
    samples = read(hf_parquet(tmp_path))
    assert [sample.label for sample in samples[:4]] == ["cat", "dog", None, "cat"]
    assert (samples[1].caption, samples[1].alternatives) == ("one 1", ("two 1",))
    assert samples[4].path == "beside.jpg"


def test_values_are_those_that_datasets_reads(tmp_path: Path) -> None:
    path = hf_parquet(tmp_path) / "data" / "train-00000-of-00001.parquet"
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    raw = loaded.cast_column("image", datasets.Image(decode=False))
    theirs = [(row["key"], row["image"]["bytes"]) for row in raw if row["image"] and row["image"]["bytes"]]
    ours = [(sample.key, sample.data) for sample in read(path) if "#" in sample.path and sample.data]
    assert ours == theirs


@pytest.mark.parametrize("name", ["image", "jpg", "img"])
def test_bytes_under_a_usual_name_are_images(name: str, tmp_path: Path) -> None:
    samples = read(table(tmp_path / "t.parquet", label=["a", "b"], **{name: [b"1", b"2"]}))
    assert [(s.data, s.label, s.path) for s in samples] == [
        (b"1", "a", f"t.parquet#{name}"),
        (b"2", "b", f"t.parquet#{name}"),
    ]


def test_bytes_under_another_name_are_images_if_named(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", content=[b"1"], image=[b"2"], file_name=["gone.jpg"])
    assert [s.data for s in read(path)] == [b"2"]
    assert [s.data for s in read(path, Columns(path="content"))] == [b"1"]
    assert [s.problem for s in read(path, Columns(path="file_name"))] == ["missing_file"]
    plain = table(tmp_path / "p.parquet", content=[b"1"])
    assert only(plain, Columns(path="content")).kind == "hf"
    assert "no column of images" in error_of(plain, kind="hf")


def test_audio_is_no_image(tmp_path: Path) -> None:
    sound = [{"bytes": b"sound", "path": None}]
    told = {"info": {"features": {"audio": {"_type": "Audio"}, "picture": {"_type": "Image"}}}}
    schema = pa.table({"audio": sound, "picture": [{"bytes": b"x", "path": None}]})
    parquet.write_table(schema.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "t.parquet")
    assert [s.data for s in read(tmp_path / "t.parquet")] == [b"x"]


@pytest.mark.parametrize("told", ["{", "[]", '{"info": 3}', '{"info": {"features": {"label": 5, "image": []}}}'])
def test_damaged_features_are_passed_over(told: str, tmp_path: Path) -> None:
    value = pa.table({"image": [b"x"], "label": [1]}).replace_schema_metadata({"huggingface": told})
    parquet.write_table(value, tmp_path / "t.parquet")
    assert [(s.data, s.label) for s in read(tmp_path / "t.parquet")] == [(b"x", "1")]


def test_other_bytes_are_neither_read_nor_metadata(tmp_path: Path) -> None:
    other = [[{"bytes": b"y", "path": "z"}]]
    (sample,) = read(table(tmp_path / "t.parquet", image=[b"x"], mask=[b"m"], others=other, deep=[{"a": [1]}]))
    assert sample.meta == {"deep": {"a": [1]}}


# Rows


def test_places_are_written_and_read() -> None:
    for file, column in (("a/b.parquet", "image"), ("x.LANCE", "a/b#c"), ("s.mds.zstd", "im age")):
        assert split_cell(cell_path(file, column)) == (file, column)
    assert [split_cell(path) for path in ("a.parquet", "a#b.jpg", "a.parquet/b.jpg", "")] == [None] * 4
    assert PATTERN.startswith("(?is)")


def test_a_file_that_looks_like_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet#b.jpg").write_bytes(b"x")
    (tmp_path / "c.jpg").write_bytes(b"y")
    assert [(s.path, s.problem) for s in read(tmp_path)] == [("a.parquet#b.jpg", "unreadable_file"), ("c.jpg", "")]


def test_large_row_groups_are_read_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_cells, "_WINDOW", 4000)
    rng = np.random.default_rng(0)
    values = [rng.bytes(1000) for _ in range(50)]
    parquet.write_table(pa.table({"image": values}), tmp_path / "t.parquet", row_group_size=25, compression="none")
    cells = parquet_cells.ParquetCells(tmp_path / "t.parquet")
    order = [0, 1, 2, 9, 3, 24, 25, 26, 10, 49, 48, *range(50), *rng.permutation(50).tolist()]
    assert [cells.read("image", row) for row in order] == [values[row] for row in order]
    assert cells._held is not None
    assert len(cells._held[2]) < 10


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    table(tmp_path / "t.parquet", image=[b"x", None], n=[1, 2])
    assert read_cell(str(tmp_path), "t.parquet", "image", 0) == b"x"
    for column, row, why in (("image", 2, "no row 2"), ("image", -1, "no row -1"), ("gone", 0, "'gone'")):
        with pytest.raises(OSError, match=why):
            read_cell(str(tmp_path), "t.parquet", column, row)
    with pytest.raises(OSError, match="has no value"):
        read_cell(str(tmp_path), "t.parquet", "image", 1)
    with pytest.raises(OSError, match="No such file"):
        read_cell(str(tmp_path), "u.parquet", "image", 0)
    with pytest.raises(OSError, match="no bytes"):
        read_cell(str(tmp_path), "t.parquet", "n", 0)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(OSError, match=r"t\.parquet"):
        read_cell(str(tmp_path), "t.parquet", "image", 0)


def test_a_table_that_changed_is_opened_again(tmp_path: Path) -> None:
    table(tmp_path / "t.parquet", image=[b"x"])
    assert read_cell(str(tmp_path), "t.parquet", "image", 0) == b"x"
    table(tmp_path / "t.parquet", image=[b"longer"])
    assert read_cell(str(tmp_path), "t.parquet", "image", 0) == b"longer"


def test_tables_in_a_store_are_read_by_ranges(bucket: str, tmp_path: Path) -> None:
    from stores import upload

    hf_parquet(tmp_path / "up")
    source = only(upload(tmp_path / "up", f"{bucket}/hf"))
    local = read(tmp_path / "up")
    samples = list(source.rows())
    assert [(s.key, s.data, s.problem) for s in samples] == [(s.key, s.data, s.problem) for s in local]
    for sample in (sample for sample in samples if not sample.problem):
        assert read_stored(asdict(sample), {source.id: source.root}) == sample.data


# Objects


def test_saved_data_set_lies_in_its_files_in_whatever_order(tmp_path: Path) -> None:
    features()
    dataset([0, 1, 2, 3]).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    for given in (loaded, loaded.shuffle(seed=1), loaded.select([3, 1])):
        source = only(given)
        samples = list(source.rows())
        assert [s.key for s in samples] == given["key"][:]
        assert all(read_stored(asdict(s), {source.id: source.root}) == s.data for s in samples)
        for start in range(5):
            assert list(source.rows(start)) == samples[start:]
    assert only(loaded).fingerprint == only(datasets.load_from_disk(str(tmp_path / "saved"))).fingerprint
    assert only(loaded).fingerprint != only(loaded.select([3, 1])).fingerprint


def test_saved_splits_and_folders_of_shards_are_found(tmp_path: Path) -> None:
    features()
    splits = datasets.DatasetDict({"train": dataset([0, 1]), "test": dataset([2])})
    splits.save_to_disk(str(tmp_path / "saved"))
    assert [source.id for source in open_sources([tmp_path / "saved"])] == [
        "test/data-00000-of-00001.arrow",
        "train/data-00000-of-00001.arrow",
    ]
    for split in ("en", "de"):
        (tmp_path / "configs" / split).mkdir(parents=True)
        table(tmp_path / "configs" / split / "train.parquet", image=[b"x"])
    assert [source.id for source in open_sources([tmp_path / "configs"])] == ["de/train.parquet", "en/train.parquet"]


def test_data_set_in_memory_lies_nowhere(tmp_path: Path) -> None:
    features()
    dataset([0, 1, 2]).save_to_disk(str(tmp_path / "saved"))
    part = datasets.load_from_disk(str(tmp_path / "saved")).select(range(1, 3))
    for given, keys in ((dataset([0, 1, 0]), ["k0", "k1", "k0"]), (part, ["k1", "k2"])):
        samples = read(given)
        assert [(s.key, s.path, s.offset) for s in samples] == [(key, "", 0) for key in keys]
        assert all(s.data for s in samples)
    assert read(dataset([0, 1, 0]))[2].problem == "duplicate_key"


def test_other_objects_are_refused_with_advice() -> None:
    features()
    with pytest.raises(UsageError, match="give one of its splits"):
        open_sources([datasets.DatasetDict({"train": dataset([0])})])
    with pytest.raises(UsageError, match="save it as Parquet"):
        open_sources([dataset([0]).to_iterable_dataset()])
    with pytest.raises(SourceError, match="2 of the sources have the id 'dataset/all'"):
        open_sources([dataset([0]), dataset([1])])
    with pytest.raises(UsageError, match="int is no source"):
        open_sources([3])
    with pytest.raises(SourceError, match="no column of images"):
        open_sources([datasets.Dataset.from_dict({"n": [1]})])


def test_a_second_data_set_of_the_same_name_does_not_take_the_place_of_the_first(tmp_path: Path) -> None:
    features()
    for name in "AB":
        dataset([0, 1]).save_to_disk(str(tmp_path / name))
    first = open_sources([datasets.load_from_disk(str(tmp_path / "A"))])[0]
    again = open_sources([datasets.load_from_disk(str(tmp_path / "A"))], saved={first.id: first.root})
    assert again[0].root == first.root
    with pytest.raises(SourceError, match="the pool knows another source 'dataset/all'"):
        open_sources([datasets.load_from_disk(str(tmp_path / "B"))], saved={first.id: first.root})


def test_a_data_set_is_grown_selected_and_read_again(tmp_path: Path) -> None:
    images = [{"bytes": jpeg(picture(seed)[0]), "path": None} for seed in range(12)]
    given = datasets.Dataset.from_dict(
        {"image": images, "text": [picture(seed)[1] for seed in range(12)]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    given.to_parquet(str(tmp_path / "train.parquet"))
    with toy_encoders():
        done = curate.grow(tmp_path / "train.parquet", tmp_path / "pool")
        assert (done.seen, curate.grow(tmp_path / "train.parquet", tmp_path / "pool").known) == (12, 12)
        curate.select_from_pool(str(tmp_path / "pool"), tmp_path / "subset", method="random", budget=5)
        inside = curate.grow(given, tmp_path / "memory")
    assert (inside.seen, inside.admitted) == (12, done.admitted)
    info = manifest_info(str(tmp_path / "subset"))
    assert info["required_features"] == ["rows"]
    rows = curate.read_manifest(tmp_path / "subset").to_dicts()
    assert len(rows) == 5
    assert verify(tmp_path / "subset").passed
    curate.export(tmp_path / "subset", to="txt", out=tmp_path / "names.txt")
    assert (tmp_path / "names.txt").read_text().split() == [row["key"] for row in rows]
    exported = curate.export(tmp_path / "subset", to="open-clip-csv", out=tmp_path / "csv")
    assert (exported.samples, exported.refused) == (5, {})
    for row in rows:
        data = read_stored(row, manifest_roots(info))
        assert content_hash(data) == row["sha256"]
        assert data == images[row["offset"]]["bytes"]


def test_manifests_of_files_need_no_feature(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for seed in range(6):
        (tmp_path / "f" / f"{seed}.jpg").write_bytes(jpeg(picture(seed)[0]))
    with toy_encoders():
        curate.grow(tmp_path / "f", tmp_path / "pool")
        curate.select_from_pool(str(tmp_path / "pool"), tmp_path / "subset", method="random", budget=3)
    assert manifest_info(str(tmp_path / "subset"))["required_features"] == []
