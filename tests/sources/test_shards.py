"""MDS and LitData, compared with their own readers."""

import io
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import jpeg, picture
from PIL import Image
from source_cases import Mds, litdata

from curate.errors import SourceError
from curate.samples import Sample
from curate.sources import Columns, open_sources
from curate.stored import read_stored


def read(path: Path, columns: Columns | None = None) -> list[Sample]:
    (source,) = open_sources([path], columns)
    return list(source.rows())


def error_of(path: Path, columns: Columns | None = None, kind: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        [list(source.rows()) for source in open_sources([path], columns, kind=kind)]
    return str(caught.value)


PHOTOGRAPHS = [jpeg(picture(seed)[0]) for seed in range(4)]


def write_mds(folder: Path, compression: str | None = None) -> Path:
    streaming = pytest.importorskip("streaming")
    columns = {"n": "int", "image": "jpeg", "raw": "pil", "array": "ndarray", "text": "str", "big": "uint64"}
    columns["x"] = "str_float"
    with streaming.MDSWriter(out=str(folder), columns=columns, compression=compression, size_limit=70_000) as out:
        for i, data in enumerate(PHOTOGRAPHS):
            image = Image.open(io.BytesIO(data))
            more = {"raw": image.copy(), "array": np.zeros(3), "text": f"caption {i}", "big": np.uint64(2**63)}
            out.write({"n": i, "image": image, "x": 0.5, **more})
    return folder


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_mds_is_read_as_by_streaming(tmp_path: Path) -> None:
    folder = write_mds(tmp_path / "mds")
    from streaming.base.format import reader_from_json

    index = json.loads((folder / "index.json").read_text())
    shards = [reader_from_json(str(folder), None, info) for info in index["shards"]]
    theirs = [shard[i] for shard in shards for i in range(len(shard))]
    samples = read(folder)
    assert len(shards) > 1
    assert [(row["n"], row["text"]) for row in theirs] == [(s.meta["n"], s.caption) for s in samples]
    for row, sample in zip(theirs, samples, strict=True):
        assert np.array_equal(np.asarray(row["image"]), pixels(sample.data))
        raw = (folder / sample.path).read_bytes()  # plain bytes of the shard: no feature of a manifest is needed
        assert raw[sample.offset : sample.offset + sample.size] == sample.data
    assert (samples[1].key, samples[1].meta) == ("1", {"n": 1, "big": 2**63, "x": "0.5"})


@pytest.mark.parametrize("compression", ["br", "bz2"])
def test_compressed_mds_holds_the_same(compression: str, tmp_path: Path) -> None:
    plain = read(write_mds(tmp_path / "plain"))
    packed = read(write_mds(tmp_path / "packed", compression))
    assert [(s.key, s.data, s.caption, s.meta) for s in packed] == [(s.key, s.data, s.caption, s.meta) for s in plain]


def test_mds_in_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Mds(None)(tmp_path / split)
        (tmp_path / split / "mds").rename(tmp_path / f"{split}-mds")
        (tmp_path / split).rmdir()
    assert [source.id for source in open_sources([tmp_path])] == ["train-mds", "val-mds"]


def fields_in_litdata(folder: Path) -> Path:
    """Write chunks of fields one after the other: what LitData does with types that Arrow does not have."""
    writer = pytest.importorskip("litdata.streaming.writer")
    out = writer.BinaryWriter(str(folder), chunk_size=2)
    for i in range(3):
        image = Image.open(io.BytesIO(PHOTOGRAPHS[i]))
        out[i] = {"image": image, "nested": {"caption": f"caption {i}", "array": np.zeros(2)}, "class": i}
    out.done()
    out.merge()
    return folder


@pytest.mark.filterwarnings("ignore")  # of torch and torchvision, over reading it back
def test_litdata_of_fields_is_read_as_by_litdata(tmp_path: Path) -> None:
    folder = fields_in_litdata(tmp_path)
    import litdata as library

    theirs = list(library.StreamingDataset(str(folder)))
    samples = read(folder, Columns(caption="nested.caption"))
    assert [(row["nested"]["caption"], str(row["class"])) for row in theirs] == [(s.caption, s.label) for s in samples]
    for sample in samples:
        raw = (folder / sample.path).read_bytes()
        assert raw[sample.offset : sample.offset + sample.size] == sample.data
        assert pixels(sample.data).shape == (96, 96, 3)


def test_litdata_is_read_as_by_litdata(tmp_path: Path) -> None:
    folder = litdata(tmp_path)
    import litdata as library

    theirs = list(library.StreamingDataset(str(folder)))
    samples = read(folder)
    assert [(row["image"], row["caption"], str(row["class"]), row["score"], row["flag"]) for row in theirs] == [
        (s.data, s.caption, s.label, s.meta["score"], s.meta["flag"]) for s in samples
    ]


def test_image_column_is_chosen_by_encoding_and_name(tmp_path: Path) -> None:
    folder = Mds(None)(tmp_path)
    assert "'caption' is no column of encoded images" in error_of(folder, Columns(path="caption"))
    assert [s.data for s in read(folder, Columns(path="image"))] == [s.data for s in read(folder)]
    assert "no column 'nope' (--label)" in error_of(folder, Columns(label="nope"))


def changed(folder: Path, **fields: Any) -> None:
    """Set fields of the first shard of an index."""
    index = json.loads((folder / "index.json").read_text())
    first = index.get("shards", index.get("chunks"))[0]
    first.update(fields)
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"raw_data": {"basename": "../x.mds"}}, "not in its folder"),
        ({"raw_data": {"basename": 7}}, "not in its folder"),
        ({"raw_data": {"basename": "gone.mds"}}, "gone.mds"),
        ({"samples": 7}, "the index says 7"),
        ({"samples": -1}, "said to hold -1 samples"),
        ({"samples": 10**30}, "said to hold"),
        ({"version": 3}, "not MDS 2"),
        ({"column_sizes": [None]}, "does not describe the columns"),
        ({"column_names": 5}, "does not describe the columns"),
        ({"zip_data": {"basename": "s.mds.snappy"}, "raw_data": {"basename": "gone"}}, "compressed in a way"),
    ],
)
def test_an_index_that_lies_is_named(fields: dict[str, Any], why: str, tmp_path: Path) -> None:
    folder = Mds(None)(tmp_path)
    changed(folder, **fields)
    assert why in error_of(folder)


def test_packed_chunks_of_litdata_are_refused_with_advice(tmp_path: Path) -> None:
    folder = litdata(tmp_path)
    index = json.loads((folder / "index.json").read_text())
    index["config"]["compression"] = "zstd"
    (folder / "index.json").write_text(json.dumps(index))
    assert "write it without" in error_of(folder)


def test_a_sample_whose_sizes_lie_is_counted(tmp_path: Path) -> None:
    folder = Mds(None)(tmp_path)
    path = folder / "shard.00000.mds"
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack("<I", data[4:8])
    data[start : start + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    samples = read(folder)
    assert [s.problem for s in samples][:2] == ["unreadable_file", ""]
    assert samples[0].data == b""


def test_a_cut_shard_is_named(tmp_path: Path) -> None:
    folder = Mds(None)(tmp_path)
    path = folder / "shard.00001.mds"
    path.write_bytes(path.read_bytes()[:-1])
    assert "shard.00001.mds" in error_of(folder)


def test_bytes_in_a_compressed_shard_are_found_again(tmp_path: Path) -> None:
    (source,) = open_sources([Mds("zstd")(tmp_path)])
    sample = next(source.rows(1))
    row = {"source": source.id, "path": sample.path, "offset": sample.offset, "size": sample.size}
    assert sample.path.endswith(".mds.zstd#image")
    assert read_stored(row, {source.id: source.root}) == sample.data
    with pytest.raises(OSError, match="there is no row 99"):
        read_stored({**row, "offset": 99}, {source.id: source.root})


def test_a_damaged_compressed_shard_leaves_no_memory_behind(tmp_path: Path) -> None:
    folder = Mds("zstd")(tmp_path)
    path = folder / "shard.00000.mds.zstd"
    path.write_bytes(path.read_bytes()[:-8])
    tracemalloc.start()
    try:
        assert path.name in error_of(folder)
        assert tracemalloc.get_traced_memory()[0] < 100_000_000  # a shard may be as large as 2 GiB
    finally:
        tracemalloc.stop()
