"""Folders as Hugging Face `datasets` lays them out, compared with what it reads."""

import gc
import io
import warnings
from pathlib import Path
from typing import Any

import pytest
from pictures import write_folder
from PIL import Image

from curate.errors import SourceError
from curate.sources import open_sources

datasets = pytest.importorskip("datasets")


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    return stream.getvalue()


PNG = png()


def lay(folder: Path, *images: str, **metadata: str) -> Path:
    """Write images, and metadata files: text by path with `__` for a slash, `.csv` implied."""
    texts = {f"{name.replace('__', '/')}.csv": text.encode() for name, text in metadata.items()}
    return write_folder(folder, {**dict.fromkeys(images, PNG), **texts})


def theirs(folder: Path, cache: Path) -> set[tuple[Any, ...]]:
    datasets.disable_progress_bars()
    found = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # `datasets` leaves metadata files open
        loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(cache))
        gc.collect()
    for split, rows in loaded.items():
        names = getattr(rows.features.get("label"), "names", [])
        for row in rows.cast_column("image", datasets.Image(decode=False)):
            label = names[row["label"]] if row.get("label") is not None else None
            path = Path(row["image"]["path"]).relative_to(folder).as_posix()
            found.add((split, path, label, row.get("text")))
    return found


def ours(folder: Path) -> set[tuple[Any, ...]]:
    (source,) = open_sources([folder])
    return {(s.meta.get("split", "train"), s.path, s.label, s.caption) for s in source.rows() if not s.problem}


LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "plain": (("a.png", "sub/b.png"), {}),
    "classes": (("cat/a.png", "dog/b.png", "dog/c.png"), {}),
    "splits": (("train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "test/dog/d.png"), {}),
    "names of splits": (("training/x/a.png", "training/y/b.png", "dev/y/c.png", "eval/x/d.png"), {}),
    "deeper": (("x/cat/a.png", "x/dog/b.png"), {}),
    "one class": (("cat/a.png", "cat/b.png"), {}),
    "metadata": (("b.png", "a.png"), {"metadata": "file_name,text\nb.png,bee\na.png,ay\n"}),
    "classes and metadata": (
        ("cat/a.png", "dog/b.png"),
        {"metadata": "file_name,text\ncat/a.png,ay\ndog/b.png,bee\n"},
    ),
    "metadata in splits": (
        ("train/a.png", "test/a.png"),
        {"train__metadata": "file_name,text\na.png,ay\n", "test__metadata": "file_name,text\na.png,bee\n"},
    ),
    "metadata in folders": (
        ("train/x/a.png", "train/y/a.png"),
        {"train__x__metadata": "file_name,text\na.png,ay\n", "train__y__metadata": "file_name,text\na.png,bee\n"},
    ),
    "another name": (("a.png",), {"metadata": "image_file_name,text\na.png,hi\n"}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_read_as_by_datasets(name: str, tmp_path: Path) -> None:
    images, metadata = LAYOUTS[name]
    folder = lay(tmp_path / "f", *images, **metadata)
    assert ours(folder) == theirs(folder, tmp_path / "cache")


def test_the_nearest_metadata_counts_and_the_other_is_a_repeat(tmp_path: Path) -> None:
    near, far = "file_name,text\nb.png,inner\n", "file_name,text\na.png,ay\nsub/b.png,outer\n"
    folder = lay(tmp_path, "a.png", "sub/b.png", metadata=far, sub__metadata=near)
    (source,) = open_sources([folder])
    assert [(s.key, s.caption, s.problem) for s in source.rows()] == [
        ("sub/b.png", "inner", ""),
        ("a.png", "ay", ""),
        ("sub/b.png", "outer", "duplicate_key"),
    ]


def test_other_images_of_a_row_are_no_samples(tmp_path: Path) -> None:
    table = "left_file_name,right_file_name,text\na.png,b.png,hi\n"
    (source,) = open_sources([lay(tmp_path, "a.png", "b.png", "c.png", metadata=table)])
    samples = list(source.rows())
    assert [(s.key, s.caption, s.meta) for s in samples] == [
        ("a.png", "hi", {"right_file_name": "b.png"}),
        ("c.png", None, {}),
    ]


def test_splits_without_classes_have_no_labels(tmp_path: Path) -> None:
    assert ours(lay(tmp_path, "train/a.png", "val/b.png")) == {
        ("train", "train/a.png", None, None),
        ("validation", "val/b.png", None, None),
    }


def test_every_seek_is_exact_over_several_metadata_files(tmp_path: Path) -> None:
    table = "file_name,text\na.png,x\ngone.png,y\na.png,z\n"
    folder = lay(tmp_path, "train/a.png", "test/a.png", "test/c.png", train__metadata=table, test__metadata=table)
    (source,) = open_sources([folder])
    samples = list(source.rows())
    assert [s.problem for s in samples] == ["", "missing_file", "duplicate_key"] * 2 + [""]
    assert [s.meta["split"] for s in samples] == ["test"] * 3 + ["train"] * 3 + ["test"]
    for start in range(len(samples) + 1):
        assert list(source.rows(start)) == samples[start:]


def test_nested_metadata_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"secret.png": PNG})
    table = "file_name\n../../secret.png\n../a.png\n"
    (source,) = open_sources([lay(tmp_path / "f", "a.png", "sub/b.png", sub__metadata=table)])
    assert [(s.path, s.problem) for s in source.rows()][:2] == [
        (str(tmp_path / "secret.png"), "outside_root"),
        ("a.png", ""),
    ]


def test_two_metadata_files_in_a_sub_folder_are_refused(tmp_path: Path) -> None:
    folder = lay(tmp_path, "sub/a.png", sub__metadata="file_name\na.png\n")
    (folder / "sub" / "metadata.jsonl").write_text('{"file_name": "a.png"}')
    with pytest.raises(SourceError, match="sub has several metadata files"):
        open_sources([folder])
