"""COCO files, as pycocotools reads them."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pictures import write_folder

from curate.errors import SourceError
from curate.samples import Sample, Source
from curate.sources import Columns, open_sources

IMAGES = [{"id": i, "file_name": f"{i:03d}.jpg", "width": 40, "height": 30} for i in (3, 1, 2, 9)]
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]


def note(number: int, image: int, category: int, area: float | None, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": [0, 0, 5, 4], "iscrowd": 0, **more} | (
        {} if area is None else {"area": area}
    )


INSTANCES = {
    "info": {},
    "images": IMAGES,
    "annotations": [
        note(1, 3, 1, 100, segmentation=[[0, 0, 5, 0, 5, 4]]),
        note(2, 3, 18, 60, segmentation={"counts": [1, 2], "size": [30, 40]}),
        note(3, 3, 18, 70),
        note(4, 1, 17, None),
        note(5, 1, 18, 20),
        note(6, 1, 18, 0),
        note(7, 2, 17, 10),
        note(8, 2, 18, 10),
    ],
    "categories": CATEGORIES,
}
CAPTIONS = {
    "images": IMAGES,
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "A dog. "},
        {"id": 2, "image_id": 3, "caption": "Two people"},
        {"id": 3, "image_id": 1, "caption": "An animal."},
    ],
}


def coco(
    folder: Path, value: Any, name: str = "annotations/instances_train2017.json", images: str = "train2017"
) -> Path:
    files = {f"{images}/{image['file_name']}": str(image["id"]).encode() for image in IMAGES}
    write_folder(folder, {name: json.dumps(value).encode(), **files})
    return folder / name


def only(path: Path, columns: Columns | None = None) -> Source:
    (source,) = open_sources([path], columns)
    return source


def read(path: Path, columns: Columns | None = None) -> list[Sample]:
    return list(only(path, columns).rows())


def test_the_label_is_the_category_of_the_largest_area(tmp_path: Path) -> None:
    path = coco(tmp_path, INSTANCES)
    samples = read(path)
    assert [(s.key, s.label, s.meta.get("categories")) for s in samples] == [
        ("003.jpg", "dog", ["dog", "person"]),  # 130 pixels in two boxes against 100 in one
        ("001.jpg", "dog", ["dog", "cat"]),  # 20 pixels, twice, against a box of 5 x 4
        ("002.jpg", "cat", ["cat", "dog"]),  # equal in all: the lower id
        ("009.jpg", None, None),
    ]
    assert [(s.path, s.data) for s in samples[:2]] == [("train2017/003.jpg", b"3"), ("train2017/001.jpg", b"1")]
    assert samples[0].meta == {"id": 3, "width": 40, "height": 30, "categories": ["dog", "person"]}


def test_categories_are_those_that_pycocotools_finds(tmp_path: Path) -> None:
    reader = pytest.importorskip("pycocotools.coco")
    path = coco(tmp_path, INSTANCES)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = reader.COCO(str(path))
    for sample in read(path):
        notes = theirs.loadAnns(theirs.getAnnIds(imgIds=[sample.meta["id"]]))
        names = {theirs.cats[one["category_id"]]["name"] for one in notes}
        assert set(sample.meta.get("categories", [])) == names  # type: ignore[arg-type]


def test_the_first_caption_is_the_caption(tmp_path: Path) -> None:
    samples = read(coco(tmp_path, CAPTIONS, "annotations/captions_train2017.json"))
    assert [(s.caption, s.alternatives, s.label) for s in samples] == [
        ("Two people", (), None),
        ("A dog.", ("An animal.",), None),
        (None, (), None),
        (None, (), None),
    ]
    assert "captions" not in samples[1].meta


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("annotations/instances_val.json", "val"),
        ("annotations/instances_val.json", "images/val"),
        ("annotations/instances_val.json", "images"),
        ("annotations.coco.json", "."),
        ("train/labels.json", "train"),
        ("all.json", "images"),
    ],
)
def test_images_are_found_by_convention(name: str, images: str, tmp_path: Path) -> None:
    assert [s.problem for s in read(coco(tmp_path, INSTANCES, name, images))] == [""] * 4


def test_images_elsewhere_are_named(tmp_path: Path) -> None:
    path = coco(tmp_path / "a", INSTANCES, images="../elsewhere")
    with pytest.raises(SourceError, match="--images"):
        open_sources([path])
    samples = read(path, Columns(images=str(tmp_path / "elsewhere")))
    assert (samples[0].path, samples[0].problem) == (str(tmp_path / "elsewhere" / "003.jpg"), "")


def test_a_folder_of_several_files_of_one_split_is_refused(tmp_path: Path) -> None:
    coco(tmp_path, INSTANCES)
    assert only(tmp_path).kind == "coco"
    coco(tmp_path, CAPTIONS, "annotations/captions_train2017.json")
    with pytest.raises(SourceError, match="several COCO files of the same images"):
        open_sources([tmp_path])
    assert only(tmp_path / "annotations" / "captions_train2017.json").id == "annotations/captions_train2017.json"
    (images,) = open_sources([tmp_path], kind="folder")
    assert images.kind == "folder"


def test_bad_entries_are_counted(tmp_path: Path) -> None:
    images = [*IMAGES[:1], 7, {"file_name": "gone.jpg"}, {"id": 1}, IMAGES[0], {"file_name": "../../x.jpg"}]
    images += [{"id": [], "file_name": ["a"]}, {"file_name": "https://host/x.jpg"}]
    notes = [5, {"image_id": []}, {"image_id": 3, "category_id": {}}, note(1, 3, 1, float("nan")), note(2, 3, 99, 10)]
    value = {"images": images, "annotations": notes, "categories": [3, {"id": 1, "name": "x"}, {"id": 2}]}
    samples = read(coco(tmp_path, value))
    assert [(s.key, s.problem) for s in samples] == [
        ("003.jpg", ""),
        ("#1", "missing_file"),
        ("gone.jpg", "missing_file"),
        ("#3", "missing_file"),
        ("003.jpg", "duplicate_key"),
        ("../../x.jpg", "outside_root"),
        ("#6", "missing_file"),
        ("https://host/x.jpg", "outside_root"),
    ]
    assert samples[0].label == "x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"images": [', "cannot read"),
        ('{"images": [], "annotations": ' + "[" * 100_000, "nested too deeply"),
        ('{"info": {}, "pictures": []}', "no list of images"),
    ],
)
def test_broken_file_is_named(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SourceError, match=why):
        open_sources([tmp_path / "c.json"], kind="coco")


def test_a_json_file_of_another_form_is_of_no_kind(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": 1}')
    with pytest.raises(SourceError, match="unknown kind"):
        open_sources([tmp_path / "c.json"])
    with pytest.raises(SourceError, match="no JSON file of COCO's form"):
        open_sources([tmp_path / "c.json"], kind="coco")
