"""Sources of embeddings: fixed order, any start, everything counted, and a name for every way of being broken."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from embedded import World, write_clip_retrieval, write_datacomp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import jpeg, picture

import curate
from curate.errors import SourceError
from curate.remote import Remote
from curate.samples import EmbeddingSource, Sample, content_hash
from curate.sources import Columns, open_sources
from curate.sources.vectors import VectorFile

ROWS = 23


def only(path: Any, kind: str | None = None, columns: Columns | None = None) -> EmbeddingSource:
    (source,) = open_sources([path], columns, kind=kind)
    return cast("EmbeddingSource", source)


def read(path: Any) -> list[Sample]:
    return list(only(path).rows())


def error_of(path: Any, kind: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        list(only(path, kind).rows())
    return str(caught.value)


def stacked(samples: list[Sample], side: str = "image") -> Any:
    return np.stack([getattr(sample.embedded, side) for sample in samples])


# What every kind promises


def broken(x: Any) -> Any:
    """Return vectors of which rows 3, 4, 5 and 6 are none."""
    x = x.astype(np.float32)
    x[3], x[4], x[5, 1], x[6, 0] = 0.0, np.nan, np.inf, np.nan
    return x


def make_datacomp(folder: Path) -> Any:
    changed = {f"{name}_img": broken(World(ROWS).vectors(name)[0]) for name in ("l14", "b32")}
    return write_datacomp(folder / "meta", "00000007", World(ROWS), **changed).parent


def make_clip_retrieval(folder: Path) -> Any:
    out = write_clip_retrieval(folder / "clip", World(ROWS), 2)
    part = out / "img_emb" / "img_emb_0.npy"
    np.save(part, broken(np.load(part)))
    return out


def make_npy(folder: Path) -> Any:
    np.save(folder / "x.npy", broken(World(ROWS).vectors()[0]))
    pl.DataFrame({"key": [f"k{i}" for i in range(ROWS)], "label": "a"}).write_csv(folder / "x.csv")
    return folder / "x.npy"


def make_npz(folder: Path) -> Any:
    image, text = World(ROWS).vectors()
    np.savez_compressed(folder / "x.npz", image=image.astype(np.float64), text=broken(text))
    return folder


def make_memory(folder: Path) -> Any:
    image, text = World(ROWS).vectors()
    return curate.Arrays(broken(image), text=text, columns={"uid": [World(ROWS).uid(i) for i in range(ROWS)]})


Make = Callable[[Path], Any]
every_kind = pytest.mark.parametrize(
    "make", [make_datacomp, make_clip_retrieval, make_npy, make_npz, make_memory], ids=lambda make: make.__name__
)


@every_kind
def test_rows_begin_at_any_ordinal(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = only(make(tmp_path))
    if source.kind == "datacomp":
        source = source.named("b32")  # blocks of five images, and of six captions
    monkeypatch.setattr("curate.sources.vectors._BLOCK", 5 * 32)
    monkeypatch.setattr("curate.sources.records._PORTION", 7)
    rows = list(source.rows())
    assert len(rows) == source.count == ROWS
    assert len({row.key for row in rows}) == ROWS
    assert all(list(source.rows(start)) == rows[start:] for start in range(ROWS + 2))


@every_kind
def test_what_is_no_vector_is_counted(make: Make, tmp_path: Path) -> None:
    rows = read(make(tmp_path))
    assert [i for i, row in enumerate(rows) if row.problem == "bad_embedding"] == [3, 4, 5, 6]
    nothing = [row for row in rows if row.embedded is not None and row.embedded.sha256 == content_hash(b"")]
    assert [rows.index(row) for row in nothing] == [3, 4, 5, 6]


@every_kind
def test_the_fingerprint_is_that_of_the_files(make: Make, tmp_path: Path) -> None:
    made = make(tmp_path)
    first = only(made)
    assert only(made).fingerprint == first.fingerprint
    if isinstance(made, curate.Arrays):
        other = World(ROWS).vectors()[0]
        assert only(curate.Arrays(other)).fingerprint != only(curate.Arrays(other[::-1])).fingerprint
        assert only(curate.Arrays(other, columns={"a": range(ROWS)})).fingerprint != first.fingerprint
        return
    seen = {first.fingerprint}
    for file in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        os.utime(file, ns=(1, 10**18))
        seen.add(only(made).fingerprint)
    assert len(seen) == 1 + sum(path.is_file() for path in tmp_path.rglob("*"))
    assert only(made, columns=None).named("other" if not first.features.name else "b32").fingerprint not in seen


def test_a_repeated_key_is_counted() -> None:
    world = World(4)
    table = {"uid": [world.uid(i) for i in (0, 1, 1, 2)]}
    source = only(curate.Arrays(world.vectors()[0], columns=table))
    assert [row.problem for row in source.rows()] == ["", "", "duplicate_key", ""]
    assert [row.problem for row in source.rows(2)] == ["duplicate_key", ""]


# DataComp


def test_datacomp_metadata_is_carried_along(tmp_path: Path) -> None:
    world = World(ROWS)
    write_datacomp(tmp_path / "metadata", "00000000", world)
    source = only(tmp_path / "metadata")
    row = list(source.rows())[5]
    assert (source.kind, source.id, source.count) == ("datacomp", "metadata/00000000.npz", ROWS)
    assert (row.uid, row.key, row.caption, row.path) == (world.uid(5), world.uid(5), "picture 5", "")
    assert row.embedded is not None
    assert (row.embedded.width, row.embedded.height, row.embedded.sha256) == (105, 205, world.sha256(5))
    assert row.meta == {
        "url": "http://example.org/0/5.jpg",
        "clip_b32_similarity_score": 0.25,
        "clip_l14_similarity_score": 0.5,
        "face_bboxes": [[np.float32(value) for value in (0.1, 0.2, 0.3, 0.4)]],
    }


@pytest.mark.parametrize("packed", [False, True])
def test_datacomp_has_two_sets_of_features(tmp_path: Path, packed: bool) -> None:
    world = World(ROWS)
    source = only(write_datacomp(tmp_path, "0", world, packed=packed))
    for name, chosen in (("l14", source), ("b32", source.named("b32"))):
        assert chosen.features.name == name
        rows = list(chosen.rows())
        for side, x in zip(("image", "text"), world.vectors(name), strict=True):
            assert np.array_equal(stacked(rows, side), x.astype(np.float16).astype(np.float32))
    with pytest.raises(SourceError, match="no features 'h14'; it has: l14, b32"):
        source.named("h14")


def test_a_shard_is_named_by_either_file_and_given_once(tmp_path: Path) -> None:
    npz = write_datacomp(tmp_path, "0", World(3))
    write_datacomp(tmp_path, "1", World(3, 1))
    opened = open_sources([npz.with_suffix(".parquet"), npz, tmp_path])
    assert [source.id.rpartition("/")[2] for source in opened] == ["0.npz", "1.npz"]


def test_shards_of_unequal_columns_and_types_are_read(tmp_path: Path) -> None:
    world = World(3)
    table = world.table().drop_columns(["sha256", "original_width", "text"])
    table = table.append_column("caption", [["one", None, ["no", "text"][0]]]).append_column("sha256", [[1, 2, 3]])
    rows = read(write_datacomp(tmp_path, "0", world, table=table))
    assert [row.caption for row in rows] == ["one", "", "no"]  # "": said by the vector alone
    assert [row.meta["sha256"] for row in rows] == [1, 2, 3]
    vectors = world.vectors()[0].astype(np.float16).astype(np.float32)
    assert all(row.embedded is not None for row in rows)
    assert [row.embedded.sha256 for row in rows if row.embedded] == [content_hash(x.tobytes()) for x in vectors]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"l14_img": np.zeros((3, 48), np.float16)}, "3 images and of 5 captions"),
        ({"l14_img": np.ones((4, 8), "f2"), "l14_txt": np.ones((4, 8), "f2")}, r"4 rows and .*0\.parquet 5"),
        ({"l14_txt": None}, "has l14_img but no l14_txt"),
        ({"l14_img": np.zeros((5, 48), np.int8)}, "holds '|i1'"),
        ({"l14_img": np.zeros((5, 48), "V2")}, "holds '|V2'"),  # bfloat16, as numpy saves it
        ({"l14_img": np.zeros(5, np.float16)}, r"shape \(5,\)"),
        ({"l14_img": np.zeros((5, 2, 2), np.float16)}, r"shape \(5, 2, 2\)"),
        ({"l14_img": np.zeros((5, 0), np.float16)}, r"shape \(5, 0\)"),
        ({"l14_img": np.ones((5, 48), np.float16, order="F")}, "column by column"),
        ({"l14_img": np.zeros(5, "f4,f4")}, "embeddings are float16"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        only(write_datacomp(tmp_path, "0", World(5), **changed))


def test_an_incomplete_shard_is_named(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        write_datacomp(tmp_path, name, World(3, int(name)))
    (tmp_path / "1.npz").unlink()
    assert "1.parquet has no 1.npz beside it" in error_of(tmp_path)
    (tmp_path / "1.parquet").unlink()
    (tmp_path / "2.parquet").unlink()
    assert "2.npz has no 2.parquet beside it" in error_of(tmp_path)


def test_metadata_alone_is_not_taken_for_urls_to_fetch(tmp_path: Path) -> None:
    write_datacomp(tmp_path, "0", World(3)).unlink()
    for path in (tmp_path, tmp_path / "0.parquet"):
        assert "0.parquet has no 0.npz beside it: the shard is incomplete; to have the images" in error_of(path)
        assert only(path, "table").kind == "table"


# clip-retrieval


@pytest.mark.parametrize("parts", [1, 2, 11])
def test_parts_come_in_the_order_of_their_numbers(tmp_path: Path, parts: int) -> None:
    source = only(write_clip_retrieval(tmp_path / "folder", World(ROWS), parts))
    rows = list(source.rows())
    assert (source.kind, source.id, source.features.name) == ("clip-retrieval", "folder", "")
    assert [row.key for row in rows] == [f"{i:09d}" for i in range(ROWS)]
    assert [row.caption for row in rows] == [f"picture {i}" for i in range(ROWS)]
    assert [(row.embedded.width, row.embedded.height) for row in rows if row.embedded] == [
        (i + 1, i + 2) for i in range(ROWS)
    ]
    for side, x in zip(("image", "text"), World(ROWS).vectors(), strict=True):
        assert np.array_equal(stacked(rows, side), x.astype(np.float16).astype(np.float32))


def test_numbers_without_padding_are_numbers_still(tmp_path: Path) -> None:
    (tmp_path / "img_emb").mkdir()
    for i in range(12):
        np.save(tmp_path / f"img_emb/img_emb_{i}.npy", np.full((1, 4), i + 1.0))
    rows = read(tmp_path)
    assert stacked(rows)[:, 0].tolist() == list(range(1, 13))
    assert [row.key for row in rows] == [f"#{i}" for i in range(12)]
    assert {(row.caption, row.embedded.text if row.embedded else 0) for row in rows} == {(None, None)}


def test_incomplete_and_unequal_parts_are_named(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "f", World(ROWS), 2)
    texts, images = folder / "text_emb", folder / "img_emb"
    (texts / "text_emb_1.npy").rename(tmp_path / "kept.npy")
    assert "img_emb_1.npy has no text_emb_1.npy beside it" in error_of(folder)
    np.save(texts / "text_emb_1.npy", np.ones((11, 7)))
    assert "captions in 7 dimensions" in error_of(folder)
    (tmp_path / "kept.npy").replace(texts / "text_emb_1.npy")
    np.save(images / "img_emb_1.npy", np.ones((3, 48)))
    assert "of 3 images and of 11 captions" in error_of(folder)
    for file in images.iterdir():
        file.unlink()
    assert "holds no img_emb_0.npy" in error_of(folder)


# Arrays


@settings(max_examples=40)
@given(
    rows=st.integers(0, 9),
    dim=st.integers(1, 7),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]),
    how=st.sampled_from(["npy", "npz", "packed"]),
    start=st.integers(0, 9),
)
def test_any_float_array_is_read_as_numpy_reads_it(rows: int, dim: int, dtype: str, how: str, start: int) -> None:
    x = np.random.default_rng(rows * 10 + dim).normal(size=(rows, dim)).astype(dtype)
    path = Path(f"/dev/shm/curate-test-{os.getpid()}." + ("npy" if how == "npy" else "npz"))
    try:
        save = {"npy": np.save, "npz": np.savez, "packed": np.savez_compressed}[how]
        save(path, x)  # type: ignore[operator]
        file = VectorFile(path, "" if how == "npy" else "arr_0")
        assert (file.rows, file.dim) == x.shape
        found = [np.zeros((0, dim), np.float32), *file.blocks(min(start, rows))]
        assert np.array_equal(np.concatenate(found), x[start:].astype(np.float32))
    finally:
        path.unlink()


def test_headers_of_every_version_are_read(tmp_path: Path) -> None:
    x = np.arange(1.0, 7.0).reshape(2, 3)
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, x, version=version)
        assert stacked(read(tmp_path / "x.npy")).tolist() == x.tolist()


def test_the_table_beside_an_array_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    assert [row.key for row in read(tmp_path / "x.npy")] == ["#0", "#1", "#2"]
    table = pl.DataFrame({"path": ["a.jpg", "b.jpg", None], "label": ["u", "v", "w"], "width": [3, -1, None]})
    table = table.with_columns(height=pl.Series(["4", "x", "5"]))
    for suffix, write in ((".parquet", "write_parquet"), (".csv", "write_csv"), (".jsonl", "write_ndjson")):
        getattr(table, write)(tmp_path / f"x{suffix}")
        rows = read(tmp_path)
        assert [(row.key, row.label) for row in rows] == [("a.jpg", "u"), ("b.jpg", "v"), ("#2", "w")]
        assert [(row.embedded.width, row.embedded.height) for row in rows if row.embedded] == [(3, 4), (0, 0), (0, 5)]
        (tmp_path / f"x{suffix}").unlink()
    table.write_csv(tmp_path / "x.csv")
    table.write_parquet(tmp_path / "x.parquet")
    assert "several tables" in error_of(tmp_path)


def test_arrays_of_an_npz_have_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", mine=np.eye(3))
    assert stacked(read(tmp_path)).tolist() == np.eye(3).tolist()
    np.savez(tmp_path / "x.npz", mine=np.eye(3), other=np.eye(3))
    assert "has the arrays mine, other" in error_of(tmp_path)
    np.savez(tmp_path / "x.npz", h14_img=np.eye(3), b32_img=2 * np.eye(3))
    assert "has b32_img, as DataComp's metadata, and no table beside it" in error_of(tmp_path)
    pl.DataFrame({"key": ["a", "b", "c"]}).write_csv(tmp_path / "x.csv")
    source = only(tmp_path)
    assert (source.kind, source.features.name, source.features.text) == ("numpy", "b32", 0)


def test_arrays_in_memory_say_what_does_not_fit() -> None:
    for x, why in ((np.eye(3, dtype=int), "int64"), (np.ones(3), r"\(3,\)"), (np.ones((3, 0)), r"\(3, 0\)")):
        with pytest.raises(SourceError, match=why):
            curate.Arrays(x)
    with pytest.raises(SourceError, match="3 images and of 2 captions"):
        curate.Arrays(np.eye(3), text=np.eye(2))
    with pytest.raises(SourceError, match="different numbers of values: a 3, b 2"):
        curate.Arrays(np.eye(3), columns={"a": range(3), "b": range(2)})
    with pytest.raises(SourceError, match="3 rows and its columns 2"):
        curate.Arrays(np.eye(3), columns={"b": range(2)})
    with pytest.raises(SourceError, match="has no features 'b'; it has: a"):
        curate.Arrays(np.eye(3), name="a").named("b")


def test_arrays_are_read_once_to_be_told_apart_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.sources import arrays

    read, real = [], arrays._Array.blocks
    monkeypatch.setattr(arrays._Array, "blocks", lambda self, start=0: read.append(start) or real(self, start))
    given = curate.Arrays(np.eye(3))
    named = given.named("a")
    assert (read, named.features.name, given.features.name) == ([0], "a", "")
    assert named.fingerprint == curate.Arrays(np.eye(3), name="a").fingerprint != given.fingerprint


def test_values_of_numpy_become_json() -> None:
    columns = {"n": np.array([1, 2]), "label": np.array(["a", "b"]), "group": [7, None]}
    rows = list(curate.Arrays(np.eye(2), columns=columns).rows())
    assert [(row.meta, row.label, row.group) for row in rows] == [({"n": 1}, "a", "7"), ({"n": 2}, "b", None)]


# Telling kinds apart


def test_other_sources_are_what_they_were(tmp_path: Path) -> None:
    images, table = tmp_path / "images", tmp_path / "table"
    for folder in (images / "deep", table):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(jpeg(picture(0)[0]))
    np.save(images / "features.npy", np.eye(3))
    pl.DataFrame({"path": ["a.jpg"]}).write_parquet(table / "t.parquet")
    np.savez(table / "t.npz", other=np.eye(3))
    assert only(images).kind == "folder"
    assert only(table / "t.parquet").kind == "table"


@pytest.mark.parametrize("kind", ["datacomp", "clip-retrieval", "numpy"])
def test_a_path_of_another_kind_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(0)[0]))
    assert f"not of the kind '{kind}'" in error_of(tmp_path, kind)
    assert f"not of the kind '{kind}'" in error_of(tmp_path / "a.jpg", kind)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    with pytest.raises(SourceError, match="no table beside it, has no column 'c'"):
        only(tmp_path, columns=Columns(caption="c"))
    with pytest.raises(SourceError, match=r"0\.parquet has no column 'c'"):
        only(write_datacomp(tmp_path / "d", "0", World(2)), columns=Columns(caption="c"))


# Hostile files


class _Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pickled-code-ran",)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    x = np.array([[_Bomb()], [_Bomb()]], dtype=object)
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, x)
    assert "never unpickled" in error_of(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(_Bomb()))
    assert "x.np" in error_of(tmp_path / name)
    assert not (tmp_path / "pickled-code-ran").exists()


def test_a_member_that_grows_a_thousandfold_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", image=np.zeros((100_000, 64), np.float16))
    assert (tmp_path / "x.npz").stat().st_size < 100_000
    assert "no embeddings do" in error_of(tmp_path / "x.npz")


def _npy(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no .npy array"),
        (b"\x93NUMPY\x09\x00\x00\x00", "no .npy array of format 1 to 3"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "a header of 4,294,967,295 bytes"),
        (_npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000, 64)}"), "cut off"),
        (_npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1000000)}"), "it must be"),
        (_npy("{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 3)}"), "shape"),
        (_npy("{'descr': '<f2', 'fortran_order': False, 'shape': (True, 3)}"), "shape"),
        (_npy("{'descr': '<f2', 'fortran_order': False}"), "without descr"),
        (_npy("__import__('os').mkdir('pickled-code-ran')"), "cannot read"),
        (_npy("(" * 5000), "cannot read"),
        (_npy("{'descr': [('a', '<f2')], 'fortran_order': False, 'shape': (1, 3)}"), "embeddings are float16"),
    ],
)
def test_headers_that_lie_are_named(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    assert why in error_of(tmp_path / "x.npy")


def _written(how: str) -> bytes:
    stream, x = io.BytesIO(), World(6).vectors()[0][:, :5]
    if how == "npy":
        np.save(stream, x)
    else:
        (np.savez if how == "npz" else np.savez_compressed)(stream, image=x, text=x)
    return stream.getvalue()


FILES = {how: _written(how) for how in ("npy", "npz", "packed")}


@settings(max_examples=150)
@given(how=st.sampled_from(sorted(FILES)), cut=st.floats(0, 1))
def test_a_cut_file_is_named(how: str, cut: float) -> None:
    data = FILES[how][: int(cut * (len(FILES[how]) - 1))]
    path = Path(f"/dev/shm/curate-test-{os.getpid()}.{how[:3] if how != 'packed' else 'npz'}")
    try:
        path.write_bytes(data)
        assert str(path) in error_of(path)
    finally:
        path.unlink()


@settings(max_examples=250)
@given(
    how=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
@example("npy", [(0.69140625, 127)])  # a NaN that signals
def test_a_mutated_file_is_read_or_named(how: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(FILES[how])
    for at, value in changes:
        data[int(at * len(data))] = value
    path = Path(f"/dev/shm/curate-test-{os.getpid()}.{'npy' if how == 'npy' else 'npz'}")
    try:
        path.write_bytes(data)
        told = ""
        try:
            rows = read(path)
        except SourceError as error:
            rows, told = [], str(error)
        assert all(row.embedded is not None for row in rows)
        assert not told or str(path) in told
    finally:
        path.unlink()


def test_encrypted_and_foreign_archives_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    assert "has the arrays none" in error_of(tmp_path / "x.npz")
    data = bytearray(FILES["npz"])
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1  # encrypted, says the directory
    (tmp_path / "x.npz").write_bytes(data)
    assert "x.npz" in error_of(tmp_path / "x.npz")


def test_an_object_store_is_read_as_a_folder(tmp_path: Path, bucket: str) -> None:
    write_datacomp(tmp_path / "meta", "0", World(ROWS), packed=True)
    write_clip_retrieval(tmp_path / "clip", World(ROWS), 2)
    np.save(tmp_path / "x.npy", World(ROWS).vectors()[0])
    files = Remote(bucket)._files()
    files.put(str(tmp_path) + "/", "bucket/in", recursive=True)
    for name in ("meta", "meta/0.parquet", "clip", "x.npy"):
        here, there = only(tmp_path / name), only(f"{bucket}/in/{name}")
        assert (here.kind, here.id.rpartition("/")[2]) == (there.kind, there.id.rpartition("/")[2])
        rows = [replace(row, source="") for row in there.rows(5)]
        assert rows == [replace(row, source="") for row in here.rows()][5:]
