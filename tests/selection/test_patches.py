"""Crops of a pool's images: which boxes, which of them, in which tiles, and what the manifest says."""

from __future__ import annotations

import io
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import jpeg, write_folder
from PIL import Image
from toys import ToyImage, toy_encoders

import curate
from curate.cleaning import measure
from curate.errors import PoolMismatchError, RecipeError, UsageError
from curate.manifest import CROPS, manifest_info
from curate.recipe import load_recipe
from curate.report import write_report
from curate.scoring.crops import crop_information
from curate.selection import Constraints, Quota
from curate_selectors.errors import SelectorError
from curate_selectors.information.patches import (
    OptiDelPatches,
    grid_boxes,
    keep_crops,
    random_boxes,
    tile_order,
)

METHOD = "optidel-patches"
ROWS, WIDE, HIGH = 80, 96, 72
HALF = np.array([WIDE // 2, HIGH // 2])
OPTIONS = {
    "limits": {"batch_size": 40},
    "dedup": {"epsilon": 1e-6, "phash": 0},
    "clean": {"labels": False, "min_contrast": 1.0, "min_sharpness": 0.0},
}


def quadrant(i: int) -> tuple[int, int]:
    """Return the corner of the part of picture i that says something."""
    return WIDE // 2 * (i % 2), HIGH // 2 * (i // 2 % 2)


def planted(i: int) -> Image.Image:
    """Return a picture of faint noise on grey, one quadrant of which holds a random pattern of colours."""
    rng = np.random.default_rng(i)
    pixels = 90 + rng.normal(0, 3, (HIGH, WIDE, 3))
    x, y = quadrant(i)
    pattern = rng.uniform(0, 255, (3, 3, 3)).repeat(HIGH // 6, 0).repeat(WIDE // 6, 1)
    pixels[y : y + HIGH // 2, x : x + WIDE // 2] = pattern
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def stored(i: int) -> bytes:
    """Return picture i as a file; every fifth lies on its side and says so."""
    stream, picture, exif = io.BytesIO(), planted(i), Image.Exif()
    if i % 5 == 0:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    picture.save(stream, "PNG", exif=exif)
    return stream.getvalue()


@pytest.fixture(scope="module", autouse=True)
def toys() -> object:
    import curate.selection.patches

    with toy_encoders(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(curate.selection.patches, "load_image_encoder", lambda name, *_: ToyImage())
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> curate.Pool:
    base = tmp_path_factory.mktemp("patches")
    rows = [
        {
            "file_name": f"{i:02d}.png",
            "boxes": [[*quadrant(i), WIDE // 2, HIGH // 2], [-9, 10.5, 60, 500]] if i % 3 else None,
        }
        for i in range(ROWS)
    ]
    files = {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    for i in range(ROWS):
        files[f"{i:02d}.png"] = stored(i)
    done = curate.grow(write_folder(base / "s", files), base / "pool", options=OPTIONS)
    assert done.admitted == ROWS
    return curate.Pool.open(base / "pool")


def cropped(pool: curate.Pool, out: Path, **options: object) -> pl.DataFrame:
    return curate.read_manifest(curate.select_from_pool(pool, out, method=METHOD, **options).manifest)


# --- from a pool


@pytest.mark.parametrize("images", [4, 99])
def test_the_crops_lie_where_the_images_say_something(images: int, pool: curate.Pool, tmp_path: Path) -> None:
    """Of an image's nine boxes four hold its pattern or a part of it, and five are noise."""
    rows = cropped(pool, tmp_path, budget=10, params={"images": images})
    at = rows.select(x="crop_x", y="crop_y").to_numpy()
    off = np.abs(at - [quadrant(int(key[:2])) for key in rows["key"]])
    assert rows.height == 40
    assert (off < HALF).all()


def test_the_budget_counts_tiles_of_four_crops_of_different_images(pool: curate.Pool, tmp_path: Path) -> None:
    for budget, tiles in ((7, 7), ("10%", 8), (0.05, 4), (0, 0)):
        done = curate.select_from_pool(pool, tmp_path, method=METHOD, budget=budget)
        rows = curate.read_manifest(done.manifest)
        assert (done.selected, done.nested, rows.height) == (4 * tiles, False, 4 * tiles)
        assert rows["tile"].to_list() == [i // 4 for i in range(4 * tiles)]
        assert rows["tile_slot"].to_list() == [0, 1, 2, 3] * tiles
        assert rows["rank"].to_list() == list(range(4 * tiles))
        assert all(len(set(tile)) == 4 for (tile,) in rows.group_by("tile").agg("uid").select("uid").iter_rows())
        assert done.bytes == rows.unique("uid")["size"].sum()


@pytest.mark.parametrize("proposer", ["grid", "random", "column"])
def test_boxes_lie_inside_the_image_and_apart(proposer: str, pool: curate.Pool, tmp_path: Path) -> None:
    rows = cropped(pool, tmp_path, budget=8, params={"proposer": proposer, "scales": [0.5, 0.45], "images": 9})
    assert rows.height == 32
    assert rows["inclusion_probability"].is_null().all() == (proposer == "random")
    x, y, w, h = (rows[name].to_numpy() for name in list(CROPS)[:4])
    assert min(x.min(), y.min()) >= 0
    assert min(w.min(), h.min()) > 0
    assert (x + w).max() <= WIDE
    assert (y + h).max() <= HIGH
    for (boxes,) in rows.group_by("uid").agg(box=pl.concat_list(list(CROPS)[:4])).select("box").iter_rows():
        covered = [np.zeros((HIGH, WIDE), bool) for _ in boxes]
        for mask, (left, top, width, height) in zip(covered, boxes, strict=True):
            mask[top : top + height, left : left + width] = True
        for i, one in enumerate(covered):
            assert all((one & two).sum() <= 0.25 * min(one.sum(), two.sum()) for two in covered[:i])
    if proposer == "column":
        given = {(*quadrant(i), WIDE // 2, HIGH // 2) for i in range(4)} | {(0, 10, 51, HIGH - 10)}
        assert set(zip(x.tolist(), y.tolist(), w.tolist(), h.tolist(), strict=True)) <= given
        assert all(int(key[:2]) % 3 for key in rows["key"])


@pytest.mark.parametrize("proposer", ["grid", "random"])
def test_equal_selections_give_equal_bytes(proposer: str, pool: curate.Pool, tmp_path: Path) -> None:
    def written(name: str, seed: int) -> dict[str, bytes]:
        options = {"params": {"proposer": proposer}, "seed": seed}
        curate.select_from_pool(pool, tmp_path / name, method=METHOD, budget=6, **options)
        return {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}

    assert written("a", 3) == written("b", 3)
    if proposer == "random":
        assert set(written("a", 3)) != set(written("c", 4))  # parts are named by their content


def test_the_score_is_that_of_the_stored_crops(pool: curate.Pool, tmp_path: Path) -> None:
    """Every image is cropped, so that the scores can be computed beside it, from the files."""
    rows = cropped(pool, tmp_path, budget=20, params={"images": 99, "threshold": -1e9})
    table = pool.frame(["uid", "key"])
    order = table["uid"].arg_sort().to_numpy()
    toy, crops, image = ToyImage(), [], []
    boxes = grid_boxes(WIDE, HIGH, (0.5,))
    keys = table["key"][order].to_list()
    for i, key in enumerate(keys):
        pixels = np.asarray(planted(int(key[:2])))
        crops += [toy.prepare(np.ascontiguousarray(pixels[y : y + h, x : x + w])) for x, y, w, h in boxes]
        image += [i] * len(boxes)
    x = toy.encode(crops).astype(np.float16).astype(np.float32)
    whole = pool.embeddings("image", order=order)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    bits = crop_information(whole, x, np.array(image))
    at = {(keys[i], *box): n for n, (i, box) in enumerate(zip(image, boxes.tolist() * ROWS, strict=True))}
    picked = [at[key, *box] for key, *box in rows.select("key", *list(CROPS)[:4]).iter_rows()]
    for name, values in bits.items():
        np.testing.assert_allclose(rows[name].to_numpy(), values[picked], atol=1e-3)


def test_a_file_that_is_gone_or_changed_is_left_out_and_counted(
    pool: curate.Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [root] = [Path(source["root"]) for source in pool.state()["sources"].values()]
    away = root.with_name("away")
    root.rename(away)
    try:
        shutil.copytree(away, root)
        (root / "03.png").unlink()
        (root / "04.png").write_bytes(jpeg(planted(77)))
        with caplog.at_level(logging.WARNING, logger="curate"):
            done = curate.select_from_pool(pool, tmp_path / "m", method=METHOD, budget=9, params={"images": 99})
    finally:
        shutil.rmtree(root)
        away.rename(root)
    assert "2 of 80 images are gone or have changed" in caplog.text
    rows, told = curate.read_manifest(done.manifest), manifest_info(done.manifest)["crops"]
    assert rows.height == 36
    assert not {"03.png", "04.png"} & set(rows["key"])
    assert (told["tiles"], told["images"], told["unread"]) == (9, 80, 2)
    assert (told["proposed"], told["encoded"]) == (80 * 9, 78 * 9)


def test_flat_crops_are_none_by_the_recipe(pool: curate.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, clear = pool.state(), 0
    for i in range(ROWS):
        pixels = np.asarray(planted(i))
        boxes = grid_boxes(WIDE, HIGH, (0.5,)).tolist()
        clear += sum(measure(np.ascontiguousarray(pixels[y : y + h, x : x + w])).contrast >= 15 for x, y, w, h in boxes)
    assert clear < 0.5 * 9 * ROWS
    state["recipe"]["clean"]["min_contrast"] = 15.0
    monkeypatch.setattr(curate.Pool, "state", lambda self: state)
    done = curate.select_from_pool(pool, tmp_path, method=METHOD, budget=4, params={"images": 99})
    assert manifest_info(done.manifest)["crops"]["encoded"] == clear
    state["recipe"]["clean"]["min_contrast"] = 256.0
    with pytest.raises(UsageError, match="there is no tile of 4 crops: 0 of 720 boxes"):
        curate.select_from_pool(pool, tmp_path, method=METHOD, budget=4, params={"images": 99})


def test_fewer_tiles_than_asked_are_told(pool: curate.Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="curate"):
        rows = cropped(pool, tmp_path, budget=10, params={"images": 1, "per_image": 3})
    assert rows.height == 28
    assert "10 tiles were asked for, and there are crops for 7" in caplog.text


def test_the_manifest_requires_a_reader_that_knows_crops(pool: curate.Pool, tmp_path: Path) -> None:
    rows = cropped(pool, tmp_path / "m", budget=4)
    info = manifest_info(tmp_path / "m")
    assert (info["required_features"], info["nested"]) == (["crops"], False)
    assert [rows.schema[name] for name in CROPS] == list(CROPS.values())
    assert info["columns"] == rows.columns
    curate.select_from_pool(pool, tmp_path / "whole", method="optidel", budget=4)
    assert manifest_info(tmp_path / "whole")["required_features"] == []
    assert not set(CROPS) & set(curate.read_manifest(tmp_path / "whole").columns)


def test_a_report_shows_each_image_once(pool: curate.Pool, tmp_path: Path) -> None:
    rows = cropped(pool, tmp_path / "m", budget=4, params={"images": 1})
    images = rows["uid"].n_unique()
    assert images < rows.height
    page = write_report(pool, tmp_path / "page.html", manifest=tmp_path / "m").read_text(encoding="utf-8")
    assert f'<dt>selected</dt><dd class="figure">{images}</dd>' in page
    assert f"shown are {images} images of {rows.height} crops" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "2MB"}, "copies no bytes; its budget is a share"),
        ({"budget": 81}, "a budget of 81 was asked, and there are 80 candidates"),
        ({"constraints": Constraints((Quota("label", 1),))}, "minima, maxima, rows to keep and groups are of images"),
        ({"constraints": Constraints(keep=("03.png",))}, "only rows to drop may be given"),
        ({"params": {"proposer": "column", "column": "nothing"}}, "no candidate has a column or metadata field"),
        ({"params": {"proposer": "column", "column": "key"}}, r"the boxes of .* are '.*png'; they must be \[\[x, y"),
    ],
)
def test_what_makes_no_sense_is_named(
    options: dict[str, object], words: str, pool: curate.Pool, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        cropped(pool, tmp_path, **{"budget": 5, **options})


def test_dropped_rows_are_not_cropped(pool: curate.Pool, tmp_path: Path) -> None:
    drop = tuple(f"{i:02d}.png" for i in range(0, ROWS, 2))
    rows = cropped(pool, tmp_path, budget=5, constraints=Constraints(drop=drop))
    assert rows.height == 20
    assert all(int(key[:2]) % 2 for key in rows["key"])


def test_crops_by_another_encoder_are_refused(
    pool: curate.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyImage, "fingerprint", "9" * 32)
    with pytest.raises(PoolMismatchError, match="fingerprint"):
        cropped(pool, tmp_path, budget=5)


def test_more_crops_than_memory_holds_are_refused(
    pool: curate.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = pool.state()
    state["recipe"]["limits"]["memory_gb"] = 1.6e-5  # 720 boxes of 12 float32 take .035 MB, 80 images .004
    monkeypatch.setattr(curate.Pool, "state", lambda self: state)
    with pytest.raises(UsageError, match="the embeddings of 720 crops take"):
        cropped(pool, tmp_path, budget=20)


def test_arrays_have_no_crops() -> None:
    with pytest.raises(UsageError, match="needs images: it reads images where they lie: `curate select POOL`"):
        curate.select(np.eye(4), method=METHOD, budget=2)


def test_a_recipe_sets_the_proposer(tmp_path: Path) -> None:
    table = '[select]\nmethod = "optidel-patches"\n[select.params]\nscales = [0.5, 0.3]\nproposer = '
    (tmp_path / "r.toml").write_text(table + '"grid"\n')
    assert load_recipe(tmp_path / "r.toml").select.params == {"scales": [0.5, 0.3], "proposer": "grid"}
    (tmp_path / "r.toml").write_text(table + '"sam"\n')
    with pytest.raises(RecipeError, match="proposer is 'sam'; it must be one of grid, random, column"):
        load_recipe(tmp_path / "r.toml")


# --- boxes, the choice, tiles


def test_boxes_by_hand() -> None:
    assert grid_boxes(100, 40, (0.5,)).tolist() == [[x, y, 50, 20] for y in (0, 10, 20) for x in (0, 25, 50)]
    assert grid_boxes(100, 40, (1.0,)).tolist() == [[0, 0, 100, 40]]
    assert grid_boxes(1, 1, (0.5, 0.1)).tolist() == [[0, 0, 1, 1]]


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.floats(0.05, 1), min_size=1, max_size=3))
def test_proposed_boxes_lie_inside_and_the_grid_covers(width: int, height: int, scales: list[float]) -> None:
    grid = grid_boxes(width, height, tuple(scales))
    for boxes in (grid, random_boxes(width, height, tuple(scales), 7, np.random.default_rng(0))):
        assert (boxes >= [0, 0, 1, 1]).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [width, height]).all()
    covered = np.zeros((height, width), bool)
    for x, y, w, h in grid:
        covered[y : y + h, x : x + w] = True
    assert covered.all()


def test_crops_by_hand() -> None:
    """The hardest behind the gate, then by pvi; the second of image 0 overlaps its first, a third is one too many."""
    made = OptiDelPatches(per_image=2, overlap=0.25, threshold=0.0)
    s1 = np.float32([5, 9, 8, 7, 6, 1, 9.5])
    pvi = np.float32([1, -1, 2, 1, 1, 1, -0.5])
    image = np.array([0, 0, 0, 0, 0, 1, 1])
    box = np.array([[20, 0, 8, 8], [0, 0, 8, 8], [0, 0, 8, 8], [2, 0, 8, 8], [6, 0, 8, 8], [0, 0, 8, 8], [9, 9, 8, 8]])
    assert keep_crops(made, s1, pvi, image, box, 9).tolist() == [2, 4, 5, 6]
    assert keep_crops(made, s1, pvi, image, box, 2).tolist() == [2, 4]


@pytest.mark.parametrize(
    ("image", "order"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([0, 0, 1, 2, 3, 0, 4, 5], [0, 2, 3, 4, 1, 6, 7, 5]),
        ([0, 0, 0, 0, 0], [0, 1, 2, 3]),
        ([0, 0, 1, 1], [0, 2, 1, 3]),
        ([0, 1, 2], []),
        ([], []),
    ],
)
def test_tiles_by_hand(image: list[int], order: list[int]) -> None:
    assert tile_order(np.array(image, dtype=np.int64)).tolist() == order


@pytest.mark.parametrize(
    "params",
    [
        {"proposer": "sam"}, {"scales": 0.5}, {"scales": []}, {"scales": [0]}, {"scales": [1.5]}, {"scales": "half"},
        {"images": 0}, {"proposals": 0}, {"per_image": 0}, {"overlap": -0.1}, {"overlap": 1.1},
    ],
    ids=str,
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(SelectorError):
        OptiDelPatches(**params)


# --- the score


def test_crops_are_judged_by_the_crops_of_other_images(rng: np.random.Generator) -> None:
    """Crops of one image that are equal, and unlike what their image tells, do not vouch for one another."""
    whole = rng.normal(size=(60, 3)).astype(np.float32)
    image = np.arange(60).repeat(8)
    crops = (whole[image] + 0.1 * rng.normal(size=(480, 3))).astype(np.float32)
    crops[:8] = -whole[0]
    bits = crop_information(whole, crops, image)
    assert bits["s1_crop"][:8].min() > bits["s1_crop"][8:].max()
    assert bits["pvi_crop"][:8].max() < 0 < bits["pvi_crop"][8:].mean()
    np.testing.assert_allclose(bits["pvi_crop"], bits["s0_crop"] - bits["s1_crop"], atol=1e-4)
    order = np.r_[8:480, 0:8]
    turned = crop_information(whole, crops[order], image[order])
    np.testing.assert_allclose(turned["s1_crop"], bits["s1_crop"][order], atol=1e-3)


def test_held_out_scores_equal_a_plain_fit(rng: np.random.Generator) -> None:
    """Every fifth image out: the family fitted on the rows of the others gives the same density."""
    from curate.scoring.gaussian import RIDGES, LinearGaussian, pair_sums, principal_components

    whole, image = rng.normal(size=(40, 4)).astype(np.float32), np.arange(40).repeat(3)
    crops = (whole[image] @ rng.normal(size=(4, 5)) + rng.normal(size=(120, 5))).astype(np.float32)
    x, y = principal_components(whole, 4)[image], principal_components(crops, 5)
    wanted = {}
    for ridge in RIDGES:
        wanted[ridge] = np.empty(120)
        for k in range(5):
            out = image % 5 == k
            wanted[ridge][out] = -LinearGaussian.fit(pair_sums(x[~out], y[~out]), ridge).predictive(x[out], y[out])
    best = min(wanted.values(), key=np.mean)
    np.testing.assert_allclose(crop_information(whole, crops, image)["s1_crop"], best, atol=1e-3)


@pytest.mark.parametrize("image", [[], [0], [1, 1, 1], [0, 1], [0, 0, 2]])
def test_few_crops_are_scored(image: list[int], rng: np.random.Generator) -> None:
    whole, crops = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(len(image), 4)).astype(np.float32)
    bits = crop_information(whole, crops, np.array(image, dtype=np.int64))
    assert all(values.shape == (len(image),) and np.isfinite(values).all() for values in bits.values())
