"""One small collection of every kind of source, with rows that are bad on purpose, as real writers write it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pictures import write_folder, write_tar

from curate.sources import Columns

IMAGES = {f"{name}.jpg": f"bytes of {name}".encode() for name in "abcd"}


@dataclass(frozen=True)
class Case:
    """make: writes the collection and returns its path; problems: of its rows in order; change: alters one file.

    empty: writes one without rows, None where a folder of that kind cannot be told from others without rows
    """

    kind: str
    make: Callable[[Path], Path]
    problems: tuple[str, ...]
    change: Callable[[Path], None]
    empty: Callable[[Path], Path] | None = None
    columns: Columns = field(default_factory=Columns)


def touch(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        os.utime(path / name if name else path, ns=(1, 1))

    return change


def tar(folder: Path) -> Path:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(folder / "00000.tar")) as sink:
        for key, data in enumerate(IMAGES.values()):
            sink.write({"__key__": str(key), "jpg": data, "txt": f"caption {key}", "json": {"n": key}})
        sink.write({"__key__": "text", "txt": "no image"})
    pl.DataFrame({"key": ["9", "1"], "status": ["failed_to_download", "success"]}).write_parquet(
        folder / "00000.parquet"
    )
    return folder / "00000.tar"


def empty_tar(folder: Path) -> Path:
    return write_tar(folder / "0.tar", [])


def image_folder(folder: Path) -> Path:
    write_folder(
        folder, {f"train/{'cat' if i % 2 else 'dog'}/{name}": data for i, (name, data) in enumerate(IMAGES.items())}
    )
    (folder / "train" / "dog" / "gone.jpg").symlink_to(folder / "nowhere")
    return folder


def metadata_folder(folder: Path) -> Path:
    write_folder(folder / "f", IMAGES)
    rows = ["b.jpg,bee", "gone.jpg,x", "../out.jpg,x", "b.jpg,again", "a.jpg,"]
    (folder / "f" / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    return folder / "f"


def empty_metadata(folder: Path) -> Path:
    (folder / "metadata.csv").write_text("file_name,text\n")
    return folder


def path_table(folder: Path) -> Path:
    write_folder(folder, IMAGES)
    rows = [*IMAGES, None, "b.jpg", "gone.jpg"]
    pl.DataFrame({"filepath": rows, "title": [f"title {i}" for i in range(len(rows))]}).write_csv(
        folder / "t.tsv", separator="\t"
    )
    return folder / "t.tsv"


def empty_table(folder: Path) -> Path:
    (folder / "t.csv").write_text("path,label\n")
    return folder / "t.csv"


def features() -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.List(datasets.Value("string")),
            "key": datasets.Value("string"),
        }
    )


def dataset(rows: list[int]) -> Any:
    import datasets

    images = [{"bytes": data, "path": None} for data in IMAGES.values()]
    images += [{"bytes": None, "path": "beside.jpg"}, {"bytes": None, "path": "../out.jpg"}, None]
    columns = {
        "image": [*images, images[0]],
        "label": [0, 1, -1, 0, 1, 0, 1, 1],
        "caption": [[f"one {i}", f"two {i}"] for i in range(8)],
        "key": ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k0"],
    }
    return datasets.Dataset.from_dict({n: [v[i] for i in rows] for n, v in columns.items()}, features=features())


HF_PROBLEMS = ("", "", "", "", "", "outside_root", "missing_image", "duplicate_key")


def hf_parquet(folder: Path) -> Path:
    features()
    write_folder(folder, {"data/beside.jpg": b"beside"})
    dataset([*range(8)]).to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"), batch_size=3)
    return folder


def empty_parquet(folder: Path) -> Path:
    features()
    dataset([]).to_parquet(str(folder / "train.parquet"))
    return folder / "train.parquet"


def hf_saved(folder: Path) -> Path:
    features()
    dataset([0, 1, 2, 3, 6, 7]).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def lance_table(folder: Path) -> Path:
    import lance
    import pyarrow as pa

    table = pa.table({"image": [*IMAGES.values(), None, b"last"], "label": list("abcdef")})
    lance.write_dataset(table, folder / "t.lance", max_rows_per_file=4)
    lance.dataset(folder / "t.lance").delete("label = 'b'")
    return folder / "t.lance"


def change_lance(path: Path) -> None:
    import lance

    lance.dataset(path).delete("label = 'c'")


def empty_lance(folder: Path) -> Path:
    import lance
    import pyarrow as pa

    lance.write_dataset(pa.table({"image": pa.array([], pa.binary())}), folder / "t.lance")
    return folder / "t.lance"


def coco(folder: Path) -> Path:
    write_folder(folder / "train2017", IMAGES)
    images = [{"id": i, "file_name": name} for i, name in enumerate([*IMAGES, "gone.jpg", "a.jpg", "../x.jpg"])]
    value = {"images": images, "annotations": [], "categories": []}
    write_folder(folder, {"annotations/instances_train2017.json": json.dumps(value).encode()})
    return folder / "annotations" / "instances_train2017.json"


def empty_coco(folder: Path) -> Path:
    (folder / "c.json").write_text('{"images": [], "annotations": []}')
    return folder / "c.json"


class Mds:
    """compression: of MDS shards, None for none."""

    def __init__(self, compression: str | None) -> None:
        self._compression = compression
        self.__name__ = f"mds_{compression}"

    def __call__(self, folder: Path) -> Path:
        streaming = pytest.importorskip("streaming")
        columns = {"image": "bytes", "caption": "str", "label": "int", "meta": "json", "key": "str", "score": "float32"}
        with streaming.MDSWriter(
            out=str(folder / "mds"), columns=columns, compression=self._compression, size_limit=450
        ) as out:
            for i, data in enumerate([*IMAGES.values(), b"again"]):
                more = {"meta": {"n": [i]}, "key": f"k{i % 4}", "score": np.float32(i / 2)}
                out.write({"image": data, "caption": f"caption {i}", "label": i % 2, **more})
        return folder / "mds"


def empty_mds(folder: Path) -> Path:
    (folder / "index.json").write_text('{"shards": [], "version": 2}')
    return folder


def litdata(folder: Path) -> Path:
    writer = pytest.importorskip("litdata.streaming.writer")
    out = writer.BinaryWriter(str(folder), chunk_size=2)
    for i, data in enumerate([*IMAGES.values(), b"again"]):
        out[i] = {
            "image": data,
            "caption": f"caption {i}",
            "class": i,
            "score": i / 2,
            "flag": True,
            "key": f"k{i % 4}",
        }
    out.done()
    out.merge()
    return folder


def empty_litdata(folder: Path) -> Path:
    (folder / "index.json").write_text('{"chunks": [], "config": {"data_format": []}}')
    return folder


CASES = [
    Case("tar", tar, ("", "", "", "", "missing_image", "download_failed"), touch(""), empty_tar),
    Case("folder", image_folder, ("", "", "", "", "missing_file"), touch("train/cat/b.jpg")),
    Case(
        "folder",
        metadata_folder,
        ("", "missing_file", "outside_root", "duplicate_key", "", "", ""),
        touch("metadata.csv"),
        empty_metadata,
    ),
    Case(
        "table", path_table, ("", "", "", "", "missing_file", "duplicate_key", "missing_file"), touch(""), empty_table
    ),
    Case("coco", coco, ("", "", "", "", "missing_file", "duplicate_key", "outside_root"), touch(""), empty_coco),
    Case("hf", hf_parquet, HF_PROBLEMS, touch("data/beside.jpg"), empty_parquet),
    Case("hf", hf_saved, ("", "", "", "", "missing_image", "duplicate_key"), touch("data-00000-of-00001.arrow")),
    Case("mds", Mds(None), ("", "", "", "", "duplicate_key"), touch("shard.00001.mds"), empty_mds),
    Case("mds", Mds("zstd"), ("", "", "", "", "duplicate_key"), touch("shard.00001.mds.zstd")),
    Case("mds", Mds("gz"), ("", "", "", "", "duplicate_key"), touch("index.json")),
    Case("litdata", litdata, ("", "", "", "", "duplicate_key"), touch("chunk-0-1.bin"), empty_litdata),
    Case("lance", lance_table, ("", "", "", "missing_image", ""), change_lance, empty_lance),
]
