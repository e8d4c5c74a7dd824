"""Hostile collections: whatever a file says, there are samples, each counted, or one named error."""

import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import write_folder
from pyarrow import parquet
from source_cases import IMAGES, Mds, hf_saved, lance_table, litdata

from curate.errors import SourceError
from curate.samples import Sample
from curate.sources import open_sources
from curate.stored import read_stored


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def read(path: Path, kind: str | None = None) -> list[Sample] | None:
    """Return the samples, None after a SourceError that names the file; check that they are sound."""
    try:
        sources = open_sources([path], kind=kind)
        samples = [sample for source in sources for sample in source.rows()]
    except SourceError as error:
        assert path.name in str(error)  # noqa: PT017
        return None
    roots = {source.id: source.root for source in sources}
    for sample in samples:
        assert sample.size == len(sample.data)
        assert "\0" not in sample.key + sample.path
        json.dumps([sample.key, sample.path, sample.caption, sample.label, sample.group, sample.meta]).encode()
        if not sample.problem and sample.path:
            assert read_stored(asdict(sample), roots) == sample.data
    return samples


# Tars

_USUAL = "a.jpg a.txt a.json b.jpg ../a.jpg /etc/a.jpg x/../../b.jpg a.JPG .a.jpg a é.png a.cls c.seg.png d/.jpg b."
NAMES = st.sampled_from([*_USUAL.split(), "", "n" * 120 + ".jpg", "a\n.jpg", "a b.jpg", "x\\..\\c.jpg"])
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
KINDS += [tarfile.CHRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z"]
PAX = st.dictionaries(
    st.sampled_from(
        ["path", "size", "linkpath", "GNU.sparse.major", "GNU.sparse.size", "GNU.sparse.map", "mtime", "uid"]
    ),
    st.sampled_from(["../../x.jpg", "/x.jpg", "99999999999999", "-1", "nan", "1,2,3", "x", "b.jpg", "0", "é"]),
    max_size=2,
)
MEMBERS = st.lists(st.tuples(NAMES, st.sampled_from(KINDS), st.binary(max_size=700), PAX), max_size=8)


@settings(max_examples=150, deadline=None)
@given(members=MEMBERS, form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_tars_of_any_structure(members: list[tuple[str, bytes, bytes, dict[str, str]]], form: int) -> None:
    with folder() as at:
        with tarfile.open(at / "s.tar", "w", format=form) as tar:
            for name, kind, data, pax in members:
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = kind, len(data), "a.jpg"
                info.pax_headers = pax
                tar.addfile(info, io.BytesIO(data))
        samples = read(at / "s.tar")
        assert {sample.path for sample in samples or ()} <= {"s.tar"}
        if all(not pax and kind in (tarfile.REGTYPE, tarfile.AREGTYPE) for _, kind, _, pax in members):
            assert samples is not None  # and every image is there, none twice
            kept = [data for name, _, data, _ in members if is_image_member(name)]
            assert sorted(sample.data for sample in samples if sample.offset) == sorted(kept)  # 0: it has no image


def is_image_member(name: str) -> bool:
    """By WebDataset's own reading of names."""
    reader = pytest.importorskip("webdataset.tariterators")
    return (reader.base_plus_ext(name)[1] or "").lower() in ("jpg", "png")


# Tables with hostile types

DEEP = pa.list_(pa.int8())
for _ in range(40):
    DEEP = pa.list_(DEEP)
TYPES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.binary(), [b"x", None, b""]),
    (pa.large_binary(), [b"x", None, b"\xff"]),
    (pa.binary(2), [b"ab", None, b"cd"]),
    (pa.binary_view(), [b"x" * 20, None, b""]),
    (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), [{"bytes": b"x"}, {"path": "../x"}, None]),
    (pa.struct([("bytes", pa.binary())]), [{"bytes": None}, {"bytes": b""}, None]),
    (pa.struct([("bytes", pa.binary()), ("path", pa.int64())]), [{"path": 7}, {"bytes": b"y", "path": 1}, None]),
    (pa.struct([("bytes", pa.int32())]), [{"bytes": 1}, None, {"bytes": None}]),
    (pa.struct([("bytes", pa.list_(pa.binary()))]), [{"bytes": [b"x"]}, None, {"bytes": []}]),
    (pa.list_(pa.struct([("bytes", pa.binary())])), [[{"bytes": b"x"}], [], None]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)], None, []]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "b"]),
    (pa.decimal128(38, 5), [None, 1, 2]),
    (pa.duration("ns"), [2**62, -1, None]),
    (pa.timestamp("s"), [2**40, -(2**40), None]),
    (pa.timestamp("us", "Nowhere/None"), [1, 2, None]),
    (pa.time64("ns"), [1, None, 86399999999999]),
    (pa.date32(), [2**31 - 1, None, -(2**31)]),
    (pa.null(), [None, None, None]),
    (pa.float16(), [float("nan"), None, 1.0]),
    (pa.string(), ["a\0b", None, "\U0001f600"]),
    (pa.int64(), [2**63 - 1, None, -5]),
    (DEEP, [None, [], None]),
]
COLUMNS = st.sampled_from(
    ["image", "label", "caption", "key", "path", "file_name", "a#b", "a/b", "a.b", "", "n\0l", "uid"]
)


@settings(max_examples=120, deadline=None)
@given(
    columns=st.lists(st.tuples(COLUMNS, st.sampled_from(TYPES)), min_size=1, max_size=5),
    told=st.sampled_from([None, "Image", "ClassLabel", "Audio", 7]),
)
def test_parquet_of_any_types(columns: list[tuple[str, Any]], told: object) -> None:
    arrays = [pa.array(values, kind) for _, (kind, values) in columns]
    value = pa.Table.from_arrays(arrays, names=[name for name, _ in columns])
    if told is not None:
        features = {name: {"_type": told, "names": ["x", 7]} for name, _ in columns}
        value = value.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with folder() as at:
        try:
            parquet.write_table(value, at / "t.parquet")
        except (pa.ArrowException, OSError):
            return
        samples = read(at / "t.parquet")
        assert samples is None or len(samples) == 3


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)


def mutate(path: Path, changes: list[tuple[float, int]]) -> None:
    data = bytearray(path.read_bytes())
    for share, value in changes:
        data[int(share * len(data))] = value
    path.write_bytes(data)


@settings(max_examples=80, deadline=None)
@given(changes=CHANGES)
def test_mutated_tables_with_images(changes: list[tuple[float, int]]) -> None:
    with folder() as at:
        images = [{"bytes": data, "path": name} for name, data in IMAGES.items()]
        parquet.write_table(pa.table({"image": images, "label": list("abcd")}), at / "t.parquet")
        mutate(at / "t.parquet", changes)
        read(at / "t.parquet", kind="hf")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of small collections that have several, by kind."""
    made = {}
    makers = {"mds": Mds(None), "zstd": Mds("zstd"), "litdata": litdata, "hf": hf_saved, "lance": lance_table}
    for name, make in makers.items():
        path = make(tmp_path_factory.mktemp(name))
        # A changed length in a deletion file of Lance 14 asks for memory without end, and ends the process.
        files = [file for file in path.rglob("*") if file.is_file() and "_deletions" not in file.parts]
        made[name] = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    return made


KINDS_OF_SHARDS = ["mds", "zstd", "litdata", "hf", "lance"]


@settings(max_examples=100, deadline=None)
@given(changes=CHANGES, name=st.sampled_from(KINDS_OF_SHARDS), which=st.floats(0, 1, exclude_max=True))
def test_mutated_shards(
    shards: dict[str, dict[str, bytes]], changes: list[tuple[float, int]], name: str, which: float
) -> None:
    with folder() as at:
        files = shards[name]
        write_folder(at / "d.lance", files)
        mutate(at / "d.lance" / sorted(files)[int(which * len(files))], changes)
        read(at / "d.lance", kind="mds" if name == "zstd" else name)


# JSON

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["a.jpg", "", "../x", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "image_id", "category_id", "file_name", "area", "bbox", "caption", "name", "uid", "key"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
COCO = st.fixed_dictionaries({"images": st.lists(JSON, max_size=4)}, optional={"annotations": JSON, "categories": JSON})


@settings(max_examples=120, deadline=None)
@given(value=COCO, notes=st.lists(JSON, max_size=3), categories=st.lists(JSON, max_size=3))
def test_coco_of_any_values(value: dict[str, Any], notes: list[Any], categories: list[Any]) -> None:
    with folder() as at:
        (at / "a.jpg").write_bytes(b"x")
        (at / "c.json").write_text(json.dumps({"annotations": notes, "categories": categories, **value}))
        samples = read(at / "c.json", kind="coco")
        assert samples is None or len(samples) == len(value["images"])


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["path", "label", "caption", "key", "uid", "x"]), JSON), max_size=4)
)
def test_rows_of_any_values(rows: list[dict[str, Any]]) -> None:
    with folder() as at:
        (at / "t.jsonl").write_text("\n".join(map(json.dumps, [{"path": "a.jpg"}, *rows])))
        samples = read(at / "t.jsonl")
        assert samples is None or len(samples) == len(rows) + 1


@settings(max_examples=80, deadline=None)
@given(index=JSON, kind=st.sampled_from(["mds", "litdata"]), shard=JSON)
def test_indexes_of_any_values(index: Any, kind: str, shard: Any) -> None:
    with folder() as at:
        (at / "a.jpg").write_bytes(struct.pack("<II", 0, 8))
        word = "shards" if kind == "mds" else "chunks"
        first = {"format": "mds", "version": 2, "samples": 0, "raw_data": {"basename": "a.jpg"}, "filename": "a.jpg"}
        first |= {"column_names": shard, "column_encodings": shard, "column_sizes": shard, "chunk_size": shard}
        spec = {"data_format": index if isinstance(index, list) else [], "data_spec": json.dumps([1, index])}
        (at / "index.json").write_text(json.dumps({word: [first, shard][: 1 + (shard is not None)], "config": spec}))
        read(at, kind=kind)


@pytest.mark.parametrize("depth", [100, 400, 600, 900, 200_000])
def test_deep_json_is_named_everywhere(depth: int, tmp_path: Path) -> None:
    deep = "[" * depth + "]" * depth
    (tmp_path / "t.jsonl").write_text(f'{{"path": "a.jpg", "label": {deep}}}')
    (tmp_path / "c.json").write_text(f'{{"images": [{{"file_name": "a.jpg", "x": {deep}}}]}}')
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "index.json").write_text(f'{{"shards": [{{"column_names": {deep}}}]}}')
    for name, kind in (("t.jsonl", "table"), ("c.json", "coco"), ("d", "mds")):
        read(tmp_path / name, kind=kind)
