"""Scores as columns of a pool: right rows, right values, and nothing else changes."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pictures import SHAPES, jpeg, picture, write_folder
from PIL import Image

import curate
from curate.errors import CurateError, PoolError, PoolLockedError, UsageError
from curate.pool import QUALITY, Pool, Writer
from curate.scores.pools import pool_rows
from curate.scores.registry import make_score
from curate.scores.table import SCORES
from curate_kernels.arrays import unit_rows

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "limits": {"batch_size": 32},
    "clean": {"warmup": 64, "min_class": 8},
    "source": {"label": "shape", "caption": "words"},
    "dedup": {"epsilon": 0.001},
}
ROWS = 120
ODD = ("a.b", "a`b", "grösse, in mm", "s/n")


def entries(seeds: range, bad: bool = False) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Return pictures by name and their metadata: a caption, a label, an age that follows the shape, and a site."""
    files, rows = {}, []
    for seed in seeds:
        image, caption, shape = picture(seed)
        name = f"{seed:04d}.jpg"
        files[name] = jpeg(image)
        rows.append(
            {
                "file_name": name,
                "words": None if seed % 30 == 29 else caption,
                "shape": None if seed % 30 == 19 else shape,
                "age": None if seed % 30 == 9 else 10.0 * SHAPES.index(shape) + seed % 7,
                "arrival": float(seed % 13),
                **dict.fromkeys(ODD, float(seed)),
            }
        )
    if bad:
        flat = io.BytesIO()
        Image.new("RGB", (96, 96), (120, 130, 140)).save(flat, "PNG")
        files |= {"broken.jpg": b"no picture", "flat.png": flat.getvalue(), "twin.jpg": files["0000.jpg"]}
        rows += [rows[0] | {"file_name": name} for name in ("broken.jpg", "flat.png", "twin.jpg")]
    return files, rows


def write(folder: Path, files: dict[str, bytes], rows: list[dict[str, Any]]) -> Path:
    write_folder(folder, files)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a source and its pool: 120 pictures, a broken one, a blank one and a copy."""
    base = tmp_path_factory.mktemp("scored")
    source = write(base / "s", *entries(range(ROWS), bad=True))
    curate.grow(source, base / "pool", options=OPTIONS)
    return base


@pytest.fixture
def pool(grown: Path, tmp_path: Path) -> Path:
    """Return a copy of the pool, to be scored."""
    shutil.copytree(grown / "pool", tmp_path / "pool")
    return tmp_path / "pool"


def column(pool: Path, name: str) -> Any:
    values = Pool.open(pool).frame([name])[name]
    return values.fill_null(math.nan).to_numpy()


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "curate", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)


def fixed(pool: Pool) -> tuple[Any, ...]:
    """Return all that a score must leave alone."""
    names = [
        n for n in pool.columns if n not in ("image", "text") and pool.dataset.schema.field(n).type != pa.float32()
    ]
    views = [pool.embeddings(view).tobytes() for view in ("image", "text")]
    return (
        pool.state_name(),
        pool.state(),
        pool.frame(names).to_dicts(),
        pool.frame(["gain", "pvi_arrival"]).to_dicts(),
        views,
    )


def test_every_row_is_scored_and_nothing_else_changes(pool: Path) -> None:
    before = Pool.open(pool)
    kept = fixed(before)
    done = curate.score_pool(pool, ["density", "novelty", "captions", "anomaly"])
    after = Pool.open(pool)
    assert fixed(after) == kept
    assert (done.rows, done.version) == (ROWS + 3, after.version)
    assert after.version > before.version
    assert fixed(Pool.open(pool, version=before.version)) == kept
    frame = after.frame(["key", "decision", "density", "novelty", "anomaly", "caption", "caption_words"])
    refused = frame.filter(pl.col("decision") != "admit")
    assert refused.height >= 3
    scored = frame.filter(pl.col("key") != "broken.jpg")
    assert scored.height == ROWS + 2
    assert all(scored[name].null_count() == 0 for name in ("density", "novelty", "anomaly"))
    broken = frame.row(by_predicate=pl.col("key") == "broken.jpg", named=True)
    assert [broken[n] for n in ("density", "novelty", "anomaly")] == [None] * 3
    assert broken["caption_words"] == 9  # the caption is there
    assert (frame["caption_words"].is_null() == frame["caption"].is_null()).all()
    assert frame.filter(pl.col("key") == "twin.jpg")["novelty"][0] == pytest.approx(0, abs=1e-3)
    known = frame["density"].drop_nulls()
    assert done.columns["density"] == {"rows": ROWS + 2, "mean": pytest.approx(known.mean(), abs=1e-4)}


@pytest.mark.parametrize(
    "name",
    ["align", "anomaly", "bayes", "column", "density", "density-kde", "density-knn", "hard-negative", "leverage",
     "mislabel", "novelty", "probe", "vinfo", "vinfo-self", "vinfo-vote", "captions"],
)  # fmt: skip
def test_values_are_those_of_the_arrays_read_from_the_pool(grown: Path, name: str) -> None:
    """Every row kept and counted on both sides: then a pool and plain arrays must agree."""
    opened = Pool.open(grown / "pool")
    table = opened.frame(["caption", "label", "meta", "embedded"])
    ages = [json.loads(meta).get("age") for meta in table["meta"]]
    params = {"column": "age"} if name == "column" else {}
    every = table["embedded"].to_numpy()
    rows = pool_rows(opened, {"image", "text", "caption", "column"})
    same = {f: getattr(rows, f) for f in rows.__slots__} | {"kept": every, "counted": every}
    expected = make_score(name, **params).compute(type(rows)(**same))
    found = curate.score(
        opened.embeddings("image"), name, text=opened.embeddings("text"), captions=table["caption"].to_list(),
        labels=table["label"].to_list(), columns={"age": ages}, **params,
    )  # fmt: skip
    assert list(found) == list(expected)
    slack = 0.05 if name == "vinfo-self" else 2e-4  # 122 rows of 1280 dimensions, in float32
    for key, values in found.items():
        np.testing.assert_allclose(values, expected[key], rtol=2e-4, atol=slack, err_msg=key)


def test_columns_hold_what_the_score_gave_row_by_row(pool: Path) -> None:
    opened = Pool.open(pool)
    expected = make_score("density-knn", k=3).compute(pool_rows(opened, {"image"}))["density_knn"]
    curate.score_pool(pool, ["density-knn"], params={"k": 3})
    np.testing.assert_array_equal(column(pool, "density_knn"), expected)
    image = unit_rows(opened.embeddings("image"))
    kept = (opened.frame(["decision"])["decision"] == "admit").to_numpy()
    sim = image @ image[kept].T
    sim[np.flatnonzero(kept), np.arange(kept.sum())] = -np.inf
    brute = (-np.sort(-sim, axis=1))[:, :3].mean(axis=1)
    brute[~image.any(axis=1)] = np.nan
    np.testing.assert_allclose(column(pool, "density_knn"), brute, atol=1e-5)


def test_what_is_scored_twice_is_replaced(pool: Path) -> None:
    curate.score_pool(pool, ["density-knn"], params={"k": 1})
    first, names = column(pool, "density_knn"), Pool.open(pool).columns
    curate.score_pool(pool, ["density-knn"], params={"k": 9})
    second = column(pool, "density_knn")
    assert Pool.open(pool).columns == names
    assert np.nanmean(second) < np.nanmean(first)
    curate.score_pool(pool, ["density-knn"], params={"k": 1})
    np.testing.assert_array_equal(column(pool, "density_knn"), first)


def test_a_pool_grows_on_after_it_was_scored(pool: Path, grown: Path, tmp_path: Path) -> None:
    curate.score_pool(pool, ["novelty", "captions"])
    before = column(pool, "novelty")
    more = write(tmp_path / "t", *entries(range(ROWS, ROWS + 80)))
    done = curate.grow(more, pool, options=OPTIONS)
    opened = Pool.open(pool)
    assert done.seen == 80
    assert opened.state()["checkpoint"]["batches"] == opened.state()["batches"]  # a checkpoint came after it
    assert opened.columns.count("novelty") == 1
    novelty = column(pool, "novelty")
    np.testing.assert_array_equal(novelty[: ROWS + 3], before)
    assert np.isnan(novelty[ROWS + 3 :]).all()
    curate.score_pool(pool, ["novelty", "captions"])
    again = column(pool, "novelty")
    assert np.isnan(again).sum() == 1
    assert (again[: ROWS + 3] <= before + 1e-6).sum() > ROWS  # more kept rows are never farther
    plain = tmp_path / "plain"
    shutil.copytree(grown / "pool", plain)
    curate.grow(more, plain, options=OPTIONS)
    names = ["uid", "decision", "reason", "duplicate_of", "history", "pvi", "gain", "s1_label"]
    assert Pool.open(plain).frame(names).equals(opened.frame(names))  # scores decided nothing
    assert Pool.open(plain).state_name().partition("-")[0] == opened.state_name().partition("-")[0]


def test_a_kill_between_the_two_commits_leaves_a_pool_that_works(pool: Path, tmp_path: Path) -> None:
    opened = Pool.open(pool)
    kept = fixed(opened)
    opened.dataset.add_columns(pa.schema([pa.field("novelty", pa.float32())]))  # what add_scores does first
    half = Pool.open(pool)
    assert fixed(half) == kept
    assert np.isnan(column(pool, "novelty")).all()
    curate.grow(write(tmp_path / "t", *entries(range(ROWS, ROWS + 8))), pool, options=OPTIONS)
    assert curate.score_pool(pool, ["novelty"]).columns["novelty"]["rows"] == ROWS + 2 + 8


def test_a_score_that_fails_changes_nothing(pool: Path) -> None:
    version = Pool.open(pool).version
    with pytest.raises(UsageError, match="target set"):
        curate.score_pool(pool, ["novelty", "vas"])
    assert Pool.open(pool).version == version
    assert "novelty" not in Pool.open(pool).columns


def test_the_engine_s_own_scores_may_be_computed_anew(pool: Path) -> None:
    before = Pool.open(pool).frame(["pvi", "s1_label"])
    done = curate.score_pool(pool, ["vinfo"])
    assert set(done.columns) == {c[0] for c in SCORES["vinfo"].columns}
    after = Pool.open(pool).frame(["pvi", "s1_label", "key", "caption", "label"])
    has = after["key"] != "broken.jpg"
    assert (after["pvi"].is_not_null() == (has & after["caption"].is_not_null())).all()
    assert (after["s1_label"].is_not_null() == (has & after["label"].is_not_null())).all()
    both = before["pvi"].is_not_null()
    assert np.corrcoef(before.filter(both)["pvi"], after.filter(both)["pvi"])[0, 1] > 0.9


def test_why_shows_the_score(pool: Path) -> None:
    curate.score_pool(pool, ["novelty"])
    expected = Pool.open(pool).frame(["key", "novelty"]).filter(pl.col("key") == "0007.jpg")["novelty"][0]
    answer = curate.why(pool, "0007.jpg")
    assert answer["scores"]["novelty"] == pytest.approx(expected, abs=1e-4)
    assert "novelty" not in curate.why(pool, "broken.jpg")["scores"]


# Targets


def test_a_target_may_be_a_pool_or_an_npy_file(pool: Path, grown: Path, tmp_path: Path) -> None:
    curate.score_pool(pool, ["normsim", "vas", "importance", "knn-shapley"], target=grown / "pool")
    names = ["normsim_2", "normsim_inf", "vas", "importance"]
    by_pool = Pool.open(pool).frame(names)
    assert column(pool, "normsim_inf")[0] == pytest.approx(1, abs=1e-3)  # it is in the target itself
    assert np.isfinite(column(pool, "shapley_knn")).sum() > 100
    target = tmp_path / "wanted.npy"
    np.save(target, Pool.open(grown / "pool").embeddings("image", where="decision = 'admit'"))
    curate.score_pool(pool, ["normsim", "vas", "importance"], target=target)
    for name in names:
        np.testing.assert_allclose(column(pool, name), by_pool[name].fill_null(math.nan).to_numpy(), rtol=1e-5)
    with pytest.raises(UsageError, match="target set has no labels"):
        curate.score_pool(pool, ["knn-shapley"], target=target)


def test_targets_that_do_not_fit_are_named(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "small.npy", np.ones((4, 7), np.float32))
    np.save(tmp_path / "flat.npy", np.ones(7, np.float32))
    np.save(tmp_path / "nothing.npy", np.zeros((2, Pool.open(pool).state()["image"]["dim"]), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name, message in (
        ("text.npy", "text.npy cannot be read"),
        ("gone.npy", "gone.npy cannot be read"),
        ("flat.npy", "flat.npy cannot be read"),
        ("objects.npy", "objects.npy cannot be read"),
        ("small.npy", "7 dimensions"),
        ("nothing.npy", "holds no embedding"),
    ):
        with pytest.raises(UsageError, match=message):
            curate.score_pool(pool, ["vas"], target=tmp_path / name)
    with pytest.raises(PoolError, match="no pool at"):
        curate.score_pool(pool, ["vas"], target=tmp_path / "nowhere")


def test_a_target_pool_of_another_encoder_is_named(pool: Path, grown: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(grown / "pool", other)
    with Writer(other) as writer:
        opened = Pool.open(other)
        state = opened.state()
        state["image"]["fingerprint"] = "f" * 32
        writer.touch(opened, state | {"step": state["step"] + 1})
    with pytest.raises(UsageError, match="has another image encoder"):
        curate.score_pool(pool, ["vas"], target=other)


# Images read again


def test_quality_is_measured_where_the_images_lie(tmp_path: Path) -> None:
    files, rows = entries(range(12), bad=True)
    source = write(tmp_path / "s", files, rows)
    curate.grow(source, tmp_path / "pool", options=OPTIONS)
    at_growth = Pool.open(tmp_path / "pool").frame(["key", *QUALITY])
    curate.score_pool(tmp_path / "pool", ["quality"])
    first = Pool.open(tmp_path / "pool").frame(["key", *QUALITY, "quality_aspect"])
    assert first.select("key", *QUALITY).equals(at_growth)
    assert first.filter(pl.col("quality_aspect").is_null())["key"].to_list() == ["broken.jpg"]
    (tmp_path / "s" / "0003.jpg").unlink()
    (tmp_path / "s" / "0004.jpg").write_bytes(files["0005.jpg"])
    done = curate.score_pool(tmp_path / "pool", ["quality"])
    again = Pool.open(tmp_path / "pool").frame(["key", *QUALITY, "quality_aspect"])
    missing = again.filter(pl.col("quality_aspect").is_null())["key"].to_list()
    assert missing == ["0003.jpg", "0004.jpg", "broken.jpg"]
    assert done.columns["quality_aspect"]["rows"] == 12
    assert again.select("key", *QUALITY).equals(at_growth)  # what was measured at growth is not forgotten


# Names of columns


@pytest.mark.parametrize("name", ["label", "arrival"])
def test_a_column_that_is_another_score_s_is_not_overwritten(pool: Path, name: str) -> None:
    version = Pool.open(pool).version
    with pytest.raises(UsageError, match=rf"column would write the column '\w+_{name}', which is (vinfo|the engine)'s"):
        curate.score_pool(pool, ["column"], params={"column": name})
    assert Pool.open(pool).version == version


def test_a_column_that_holds_something_else_is_not_overwritten(pool: Path) -> None:
    Pool.open(pool).dataset.add_columns({"novelty": "'text'"})
    with pytest.raises(UsageError, match="'novelty', which holds something else"):
        curate.score_pool(pool, ["novelty"])


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_metadata_make_names_that_the_table_can_hold(pool: Path, name: str) -> None:
    done = curate.score_pool(pool, ["column"], params={"column": name})
    frame = Pool.open(pool).frame()
    assert len(done.columns) == 3
    assert all(frame[column].is_not_null().sum() > 100 for column in done.columns)


def test_a_metadata_column_is_scored_where_it_has_a_value(pool: Path) -> None:
    done = curate.score_pool(pool, ["column"], params={"column": "age"})
    assert set(done.columns) == {"s0_age", "s1_age", "pvi_age"}
    frame = Pool.open(pool).frame(["key", "meta", "pvi_age", "decision", "counted"])
    lacks = [json.loads(meta).get("age") is None for meta in frame["meta"]]
    assert frame.filter(pl.Series(lacks))["pvi_age"].null_count() == sum(lacks) == 4
    rest = frame.filter(~pl.Series(lacks) & pl.col("pvi_age").is_null())
    assert set(rest["key"]) <= {"broken.jpg", "flat.png", "twin.jpg"} | set(frame.filter(~pl.col("counted"))["key"])
    with pytest.raises(UsageError, match=r"no column 'colour'; there are: a\.b, .*age, arrival"):
        curate.score_pool(pool, ["column"], params={"column": "colour"})


def test_prompts_need_the_tower_of_the_images(pool: Path) -> None:
    with pytest.raises(CurateError, match="prompts need an open_clip model"):
        curate.score_pool(pool, ["prompts"], params={"positive": "a", "negative": "b"})


def test_embeddings_beyond_the_limit_are_not_loaded(pool: Path) -> None:
    with Writer(pool) as writer:
        opened = Pool.open(pool)
        state = opened.state()
        state["recipe"]["limits"]["memory_gb"] = 0.0001
        writer.touch(opened, state | {"step": state["step"] + 1})
    with pytest.raises(UsageError, match=r"limits\.memory_gb"):
        curate.score_pool(pool, ["novelty"])
    assert curate.score_pool(pool, ["captions"]).columns["caption_words"]["rows"] > 100


# Calls


def test_scores_without_pool_name_or_parameter_are_named(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no pool at"):
        curate.score_pool(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    for names, params, message in (
        ([], {}, "no score was named"),
        (["magic"], {}, "no score is called 'magic'"),
        (["novelty", "magic"], {}, "no score is called 'magic'"),
        (["novelty"], {"k": 3}, "has no parameter k"),
        (["novelty", "vas"], {"k": 3}, "none of novelty, vas has a parameter k"),
        (["density-knn", "novelty"], {"k": "x"}, "whole number"),
    ):
        with pytest.raises(UsageError, match=message):
            curate.score_pool(pool, names, params=params)


def test_parameters_go_to_the_scores_that_have_them(pool: Path) -> None:
    curate.score_pool(pool, ["density-knn", "novelty", "vinfo-vote"], params={"k": 2})
    alone = make_score("density-knn", k=2).compute(pool_rows(Pool.open(pool), {"image"}))["density_knn"]
    np.testing.assert_array_equal(column(pool, "density_knn"), alone)


def test_a_locked_pool_is_not_scored(pool: Path) -> None:
    with Writer(pool):
        with pytest.raises(PoolLockedError, match="is being written by process"):
            curate.score_pool(pool, ["novelty"])
        done = command("score", pool, "--name", "novelty")
    assert done.returncode == 4
    assert "is being written by process" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_prints_one_json_object(pool: Path) -> None:
    done = command("score", pool, "--name", "density-knn", "--name", "novelty", "--set", "k=3", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert set(answer) == {"pool", "version", "rows", "columns", "seconds"}
    assert (answer["pool"], answer["rows"]) == (str(pool), ROWS + 3)
    assert set(answer["columns"]) == {"density_knn", "novelty"}
    assert answer["columns"]["novelty"]["rows"] == ROWS + 2
    alone = make_score("density-knn", k=3).compute(pool_rows(Pool.open(pool), {"image"}))["density_knn"]
    np.testing.assert_array_equal(column(pool, "density_knn"), alone)
    told = command("score", pool, "--name", "column", "--column", "age", "--set", "kind=numeric")
    assert told.returncode == 0, told.stderr
    assert "s0_age" in told.stdout
    assert f"{ROWS + 3}" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "magic"], "no score is called 'magic'"),
        (["--name", "density-knn", "--set", "k"], "write KEY=VALUE"),
        (["--name", "density-knn", "--set", "=3"], "write KEY=VALUE"),
        (["--name", "density-knn", "--set", "k=x"], "k of 'density-knn' is 'x'; it must be a whole number"),
        (["--name", "density-knn", "--set", "k=2.5"], "must be a whole number"),
        (["--name", "density-kde", "--set", "bandwidth=NaN"], "must be a finite number"),
        (["--name", "negclip", "--set", "temperature=true"], "must be a finite number"),
        (["--name", "column"], "needs column; give --set column="),
        (["--name", "novelty", "--column", "age"], "has no parameter column"),
        (["--name", "head", "--set", "file=x", "--set", "title=2024"], "'\"2024\"'"),
        (["--name", "head", "--set", "file=nothing.safetensors"], "nothing.safetensors cannot be read"),
        (["--name", "vas"], "--target POOL or --target FILE.npy"),
        (["--name", "vas", "--target", "gone.npy"], "gone.npy cannot be read"),
        (["--name", "negclip"], "one space"),
    ],
)
def test_the_command_names_what_is_wrong(grown: Path, arguments: list[str], message: str) -> None:
    from typer.testing import CliRunner

    from curate.cli import app

    result = CliRunner().invoke(app, ["score", str(grown / "pool"), *arguments])
    assert isinstance(result.exception, UsageError)
    assert (result.exception.exit_code, message in str(result.exception)) == (2, True), result.exception


def test_quotes_keep_a_number_a_text(pool: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    dim = Pool.open(pool).state()["image"]["dim"]
    save_file({"weight": np.ones((1, dim), np.float32)}, tmp_path / "head.safetensors")
    done = command(
        "score", pool, "--name", "head", "--set", f"file={tmp_path}/head.safetensors", "--set", 'title="2024"'
    )
    assert done.returncode == 0, done.stderr
    assert "head_2024" in Pool.open(pool).columns


def test_the_list_of_scores_is_printed() -> None:
    rows = json.loads(command("methods", "--scores", "--json").stdout)
    assert [row["name"] for row in rows] == list(SCORES)
    assert all(set(row) == {"name", "columns", "needs", "summary", "paper"} for row in rows)
    table = command("methods", "--scores")
    assert table.returncode == 0
    assert "vinfo-vote" in table.stdout
