"""What is exported is opened by those it is made for: the same samples come out, byte for byte."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from exports.material import contents, folder_rows, manifest, tar_rows

from curate.exports import export
from curate.manifest import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore")  # the consumers' own


def rows_of(base: Path) -> list[dict[str, Any]]:
    return read_manifest(base / "m").to_dicts()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_webdataset_iterates_the_tars(tars: Path, tmp_path: Path) -> None:
    import webdataset

    done = export(tars / "m", "webdataset", tmp_path / "out", shard_size=12_000)
    rows = rows_of(tars)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert names[0] == "00000000.tar"
    assert len(names) == done.files > 4
    urls = f"{tmp_path}/out/{{00000000..{len(names) - 1:08d}}}.tar"
    seen = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [one["__key__"] for one in seen] == [row["key"] for row in rows]
    assert [sha256(one["jpg"]) for one in seen] == [row["sha256"] for row in rows]
    assert [one["txt"].decode() for one in seen] == [row["caption"] for row in rows]
    told = [json.loads(one["json"]) for one in seen]
    assert [one["uid"] for one in told] == [row["uid"] for row in rows]
    assert [one["label"] for one in told] == [row["label"] for row in rows]
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    assert sizes == {name: sum(one["__url__"].endswith(name) for one in seen) for name in names}


def test_load_dataset_opens_the_tars(tars: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    export(tars / "m", "webdataset", tmp_path / "out", shard_size=12_000)
    files = str(tmp_path / "out" / "*.tar")
    seen = load_dataset("webdataset", data_files={"train": files}, split="train", cache_dir=str(tmp_path / "cache"))
    rows = rows_of(tars)
    assert seen["txt"][:] == [row["caption"] for row in rows]
    assert seen[0]["jpg"].size == (96, 96)
    assert [one["uid"] for one in seen["json"]] == [row["uid"] for row in rows]


def test_load_dataset_opens_the_folder(photos: Path, tmp_path: Path) -> None:
    from datasets import ClassLabel, load_dataset
    from datasets import Image as ImageFeature

    export(photos / "m", "hf", tmp_path / "out", shard_size=8_000)
    seen = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    rows = rows_of(photos)
    assert isinstance(seen.features["image"], ImageFeature)
    assert isinstance(seen.features["label"], ClassLabel)
    assert seen.features["label"].names == sorted({row["label"] for row in rows})
    assert [seen.features["label"].int2str(i) for i in seen["label"]] == [row["label"] for row in rows]
    for name in ("uid", "key", "caption", "weight", "rank", "pvi", "width", "group"):
        assert seen[name][:] == [row[name] for row in rows]
    assert seen[0]["image"].size == (96, 96)
    raw = seen.cast_column("image", ImageFeature(decode=False))
    assert [sha256(one["bytes"]) for one in raw["image"]] == [row["sha256"] for row in rows]
    assert len(list((tmp_path / "out" / "data").iterdir())) > 2


def test_rows_without_labels_have_no_classes(tmp_path: Path) -> None:
    from datasets import Value, load_dataset

    rows = [row | {"label": None} for row in folder_rows(tmp_path / "photos", range(3))]
    folder = manifest(tmp_path / "m", rows, {"photos": tmp_path / "photos"})
    export(folder, "hf", tmp_path / "out")
    seen = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(seen.features["label"], Value)
    assert seen["label"][:] == [None, None, None]


def test_mosaic_streaming_iterates_the_shards(tars: Path, tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming with its dependencies")
    export(tars / "m", "mds", tmp_path / "out", shard_size=12_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        streaming.base.util.clean_stale_shared_memory()
        seen = list(streaming.StreamingDataset(local=str(tmp_path / "out"), shuffle=False, batch_size=1))
    rows = rows_of(tars)
    assert [sha256(one["image"]) for one in seen] == [row["sha256"] for row in rows]
    assert [one["group"] for one in seen] == [""] * len(rows)
    for name in ("uid", "caption", "label", "rank", "weight", "pvi"):
        assert [one[name] for one in seen] == [row[name] for row in rows]


def test_mds_equals_what_mosaics_own_writer_writes(tars: Path, tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming with its dependencies")
    export(tars / "m", "mds", tmp_path / "ours")
    rows = [row | {"group": ""} for row in rows_of(tars)]
    kinds = {str: "str", int: "int", float: "float64"}
    names = [name for name in rows[0] if name not in ("path", "offset", "size")]
    columns = {"image": "bytes"} | {name: kinds[type(rows[0][name])] for name in names}
    with streaming.MDSWriter(out=str(tmp_path / "theirs"), columns=columns, progress_bar=False) as writer:
        for row in rows:
            data = (tars / "tars" / row["path"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
            writer.write({"image": data} | {name: row[name] for name in names})
    ours, theirs = contents(tmp_path / "ours"), contents(tmp_path / "theirs")
    assert ours["shard.00000.mds"] == theirs["shard.00000.mds"]
    assert json.loads(ours["index.json"]) == json.loads(theirs["index.json"])


def test_litdata_iterates_the_chunks(tars: Path, tmp_path: Path) -> None:
    import litdata

    export(tars / "m", "litdata", tmp_path / "out", shard_size=12_000)
    dataset = litdata.StreamingDataset(str(tmp_path / "out"), shuffle=False)
    rows = rows_of(tars)
    assert len(dataset) == len(rows)
    seen = list(dataset)
    assert [sha256(bytes(one["image"])) for one in seen] == [row["sha256"] for row in rows]
    for name in ("uid", "caption", "label", "rank", "weight"):
        assert [one[name] for one in seen] == [row[name] for row in rows]
    assert dataset[17]["uid"] == rows[17]["uid"]


def test_lance_opens_the_table(tars: Path, tmp_path: Path) -> None:
    import lance

    export(tars / "m", "lance", tmp_path / "out", shard_size=12_000)
    table = lance.dataset(str(tmp_path / "out"))
    assert table.version == 1
    assert len(table.get_fragments()) > 3
    seen = table.to_table().to_pylist()
    rows = rows_of(tars)
    assert [sha256(one.pop("image")) for one in seen] == [row["sha256"] for row in rows]
    kept = [{name: value for name, value in row.items() if name not in ("path", "offset", "size")} for row in rows]
    assert seen == kept


def test_pycocotools_loads_the_annotations(photos: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export(photos / "m", "coco", tmp_path / "all.json")
    coco = COCO(str(tmp_path / "all.json"))
    rows = rows_of(photos)
    assert len(coco.getImgIds()) == len(rows)
    for image, row in zip(coco.loadImgs(coco.getImgIds()), rows, strict=True):
        assert sha256(Path(image["file_name"]).read_bytes()) == row["sha256"]
        (found,) = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert coco.loadCats(found["category_id"])[0]["name"] == row["label"]
        assert found["bbox"] == [0, 0, 96, 96]
        assert found["caption"] == row["caption"]
    circles = coco.getImgIds(catIds=coco.getCatIds(catNms=["circle"]))
    assert len(circles) == sum(row["label"] == "circle" for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]


def test_imagefolder_reads_copies_and_links(photos: Path, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    rows = rows_of(photos)
    for form in ("copy", "symlinks"):
        export(photos / "m", form, tmp_path / form)
        seen = ImageFolder(str(tmp_path / form))
        assert seen.classes == sorted({row["label"] for row in rows})
        found = sorted((sha256(Path(path).read_bytes()), seen.classes[label]) for path, label in seen.samples)
        assert found == sorted((row["sha256"], row["label"]) for row in rows)
    assert all(path.is_symlink() for path in (tmp_path / "symlinks").rglob("*.jpg"))


@pytest.mark.parametrize("seen", ["files", "archives"])
def test_open_clips_table_names_images_and_captions(seen: str, photos: Path, tars: Path, tmp_path: Path) -> None:
    import csv

    base = photos if seen == "files" else tars
    done = export(base / "m", "open-clip-csv", tmp_path / "train.csv")
    with (tmp_path / "train.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    rows = rows_of(base)
    assert [line["title"] for line in lines] == [row["caption"] for row in rows]
    assert [sha256(Path(line["filepath"]).read_bytes()) for line in lines] == [row["sha256"] for row in rows]
    assert (tmp_path / "train-images").exists() == (seen == "archives")
    assert done.files == (len(rows) if seen == "archives" else 0)


@pytest.mark.slow
def test_open_clips_own_training_runs_an_epoch(tmp_path: Path) -> None:
    """`open_clip_train.main`, as its users start it: a tiny model on the CPU. (Its reader of tars asks for an older
    webdataset: it takes the mark at a tar's end, which webdataset 1.0 yields, for a file.)
    """
    folder = manifest(tmp_path / "m", tar_rows(tmp_path / "tars", "0.tar", range(200)), {"0.tar": tmp_path / "tars"})
    export(folder, "open-clip-csv", tmp_path / "train.csv")
    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(model))
    code = (
        "import sys, open_clip\n"
        "open_clip.add_model_config(sys.argv[1])\n"
        "from open_clip_train.main import main\n"
        "main(sys.argv[2:])"
    )
    settings = "--dataset-type csv --model tiny --batch-size 20 --epochs 1 --workers 0 --device cpu --warmup 1 --name x"
    arguments = ["--train-data", str(tmp_path / "train.csv"), "--logs", str(tmp_path / "logs"), *settings.split()]
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "tiny.json"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Train Epoch: 0 [200/200 (100%)]" in (tmp_path / "logs" / "x" / "out.log").read_text()
    assert (tmp_path / "logs" / "x" / "checkpoints" / "epoch_1.pt").exists()
