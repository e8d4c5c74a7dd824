"""A selection from a pool: what it needs, what it keeps to, what its manifest says; the recipe and the command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pictures import SHAPES, jpeg, picture, write_folder

import curate
from curate.cli.commands import _setting
from curate.errors import RecipeError, UsageError
from curate.manifest import manifest_info
from curate.recipe import Recipe, load_recipe
from curate.selection import Constraints, Quota
from curate.selection.candidates import PoolCandidates
from curate.selection.settings import quota_tables, settings
from curate_selectors.infogrowth import InfoGrowth

ROOT = Path(__file__).parents[2]
ROWS = 48
OPTIONS = {
    "limits": {"batch_size": 16},
    "dedup": {"epsilon": 1e-4},
    "source": {"label": "shape", "group": "patient"},
    "clean": {"labels": False},
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> curate.Pool:
    """48 labelled pictures of 12 patients, with the site and the size of each as metadata."""
    base = tmp_path_factory.mktemp("select")
    rows = [
        {"file_name": f"{i:02d}.jpg", "shape": picture(i)[2], "patient": f"p{i // 4:02d}", "site": "NS"[i % 3 == 0]}
        for i in range(ROWS)
    ]
    files = {row["file_name"]: jpeg(picture(i)[0]) for i, row in enumerate(rows)}
    source = write_folder(base / "s", {**files, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    done = curate.grow(source, base / "pool", options=OPTIONS)
    assert done.admitted == ROWS
    return curate.Pool.open(base / "pool")


def chosen(pool: curate.Pool, out: Path, **options: object) -> pl.DataFrame:
    return curate.read_manifest(curate.select_from_pool(pool, out, **options).manifest)


def test_the_default_of_all_rows_seen_brings_no_duplicate_back(tmp_path: Path) -> None:
    """A duplicate has a gain, measured before it was refused; a rare class would hand it out by its share."""
    rows = [{"file_name": f"{i:02d}.jpg", "shape": "ab"[i >= 20]} for i in range(26)]
    files = {f"{i:02d}.jpg": jpeg(picture(i if i < 22 else 21)[0]) for i in range(26)}
    source = write_folder(tmp_path / "s", {**files, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    options = {**OPTIONS, "source": {"label": "shape"}}
    assert curate.grow(source, tmp_path / "pool", options=options).admitted == 22
    pool = curate.Pool.open(tmp_path / "pool")
    seen = chosen(pool, tmp_path / "m", method="default", candidates="all", budget=22)
    assert seen["label"].value_counts().sort("label")["count"].to_list() == [20, 2]


# --- needs


def test_a_score_that_the_pool_lacks_is_computed_and_nothing_is_stored(pool: curate.Pool) -> None:
    version, scores = pool.version, {}
    source = PoolCandidates(pool, "admitted", None)
    scores = source._computed("el2n")
    expected = curate.score(pool.embeddings("image"), "probe", labels=pool.frame(["label"])["label"].to_list())
    order = pool.frame(["uid"])["uid"].arg_sort().to_numpy()
    np.testing.assert_allclose(scores["el2n"], expected["el2n"][order], atol=1e-5)
    assert "el2n" not in curate.Pool.open(pool.path).columns
    assert curate.Pool.open(pool.path).version == version


def test_embeddings_beyond_the_memory_limit_are_read_by_tiles(
    pool: curate.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = [("semdedup", {"clusters": 3}), ("kcenter", {"parts": 3}), ("density", {"hashes": 8})]
    whole = [chosen(pool, tmp_path / "m", method=m, params=p, budget=20) for m, p in ways]
    monkeypatch.setattr("curate.selection.candidates._MOST", 0.0)
    monkeypatch.setattr(curate.Pool, "embeddings", None)
    tiled = [chosen(pool, tmp_path / "m", method=m, params=p, budget=20) for m, p in ways]
    assert all(one["uid"].equals(other["uid"]) for one, other in zip(whole, tiled, strict=True))
    with pytest.raises(TypeError):  # what needs them whole reads them whole
        chosen(pool, tmp_path / "m", method="kcenter", budget=20)


def test_a_stored_score_is_read(pool: curate.Pool, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(pool.path, tmp_path / "pool")
    curate.score_pool(tmp_path / "pool", ["novelty"])
    source = PoolCandidates(curate.Pool.open(tmp_path / "pool"), "admitted", None)
    scores: dict[str, np.ndarray] = {}
    assert source._read("novelty", scores)
    np.testing.assert_array_equal(scores["novelty"], source.table["novelty"].to_numpy())
    assert not source._read("leverage", scores)


def test_what_a_method_needs_and_nobody_has_is_named(pool: curate.Pool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'metaclip' needs captions: give captions="):
        curate.select_from_pool(pool, tmp_path, method="metaclip", budget=5)
    with pytest.raises(UsageError, match=r"'dsir' needs .*--target POOL"):
        curate.select_from_pool(pool, tmp_path, method="dsir", budget=5)


def test_a_target_comes_from_a_file_or_a_pool_and_its_digest_is_told(pool: curate.Pool, tmp_path: Path) -> None:
    np.save(tmp_path / "aim.npy", pool.embeddings("image")[:5])
    for target in (tmp_path / "aim.npy", pool.path):
        done = curate.select_from_pool(pool, tmp_path / "m", method="dsir", budget=5, target=target)
        assert done.selected == 5
        info = manifest_info(done.manifest)
        assert info["target"]["rows"] == (5 if target.suffix else ROWS)
        assert str(tmp_path) not in json.dumps(info)


# --- candidates


def test_leaks_of_an_evaluation_set_are_never_chosen(tmp_path: Path) -> None:
    """Six pictures of twelve are in an evaluation set; one duplicates another of the rest."""
    images = [jpeg(picture(i)[0]) for i in range(12)]
    source = write_folder(tmp_path / "s", {f"{i:02d}.jpg": image for i, image in enumerate([*images, images[8]])})
    held_out = write_folder(tmp_path / "e", {f"{i}.jpg": images[i] for i in range(6)})
    curate.grow(source, tmp_path / "pool", options={"dedup": {"epsilon": 1e-4}}, guard=[str(held_out)])
    rows = chosen(curate.Pool.open(tmp_path / "pool"), tmp_path / "m", method="random", budget="100%", candidates="all")
    reasons = rows["reason"].value_counts().sort("reason").rows()
    assert reasons == [("admitted", 6), ("exact_duplicate", 1)]
    with pytest.raises(UsageError, match=r"'00\.jpg' must be kept and is no candidate"):
        chosen(
            curate.Pool.open(tmp_path / "pool"),
            tmp_path / "m",
            budget=2,
            candidates="all",
            constraints=Constraints(keep=("00.jpg",)),
        )


# --- constraints


def test_constraints_hold_and_are_told(pool: curate.Pool, tmp_path: Path) -> None:
    keys = pool.frame(["uid", "key", "source"])
    keep = (keys["uid"][3], f"{keys['source'][7]}:{keys['key'][7]}", keys["key"][11])
    given = Constraints(
        (Quota("label", 2, 6), Quota("site", min=5, value="S")),
        keep=keep,
        drop=("00.jpg", "nowhere.jpg"),
        group="patient",
        group_rule="at-most:2",
    )
    with pytest.raises(UsageError, match=r"no candidate has a column or metadata field 'patient'; there are: .*site"):
        curate.select_from_pool(pool, tmp_path / "m", budget=15, constraints=given)
    given = Constraints(given.quotas, keep, given.drop, "group", given.group_rule)
    done = curate.select_from_pool(pool, tmp_path / "m", budget=15, method="kcenter", constraints=given)
    rows = curate.read_manifest(done.manifest)
    site = {f"{i:02d}.jpg": "NS"[i % 3 == 0] for i in range(ROWS)}
    assert rows.height == 15
    assert done.candidates == ROWS - 1
    assert {"03.jpg", "07.jpg", "11.jpg"} <= set(rows["key"])
    assert "00.jpg" not in set(rows["key"])
    assert rows["group"].value_counts()["count"].max() <= 2
    assert all(2 <= n <= 6 for n in rows["label"].value_counts()["count"])
    assert sum(site[key] == "S" for key in rows["key"]) >= 5
    info = manifest_info(done.manifest)
    assert info["constraints"]["keep"]["rows"] == 3
    assert info["nested"] is done.nested is False


def test_whole_patients_are_taken(pool: curate.Pool, tmp_path: Path) -> None:
    rows = chosen(pool, tmp_path, budget=14, method="random", constraints=Constraints(group="group"))
    assert sorted(rows["group"].value_counts()["count"]) == [4, 4, 4]


def test_rows_to_keep_must_be_candidates(pool: curate.Pool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'99\.jpg' must be kept and is no candidate; `curate why"):
        curate.select_from_pool(pool, tmp_path, budget=5, constraints=Constraints(keep=("99.jpg",)))


# --- the manifest


def test_nested_is_told_and_holds(pool: curate.Pool, tmp_path: Path) -> None:
    large = curate.select_from_pool(pool, tmp_path / "a", method="kcenter", budget=20)
    small = curate.select_from_pool(pool, tmp_path / "b", method="kcenter", budget=9)
    assert manifest_info(large.manifest)["nested"]
    assert curate.read_manifest(large.manifest)["uid"][:9].equals(curate.read_manifest(small.manifest)["uid"])


@pytest.mark.parametrize(("method", "params"), [("facility-location", {"parts": 3}), ("craig", {})])
def test_what_is_not_nested_is_told(pool: curate.Pool, tmp_path: Path, method: str, params: dict[str, int]) -> None:
    done = curate.select_from_pool(pool, tmp_path, method=method, budget=9, params=params)
    assert manifest_info(done.manifest)["nested"] is done.nested is False


def test_horvitz_thompson_weights_estimate_a_total_without_bias(pool: curate.Pool, tmp_path: Path) -> None:
    total = pool.frame(["size"])["size"].sum()
    estimates = []
    for seed in range(60):
        rows = chosen(pool, tmp_path, method="random", budget=12, seed=seed)
        np.testing.assert_allclose(rows["ht_weight"], 1 / rows["inclusion_probability"])
        estimates.append(float((rows["ht_weight"] * rows["size"]).sum()))
    assert abs(np.mean(estimates) - total) < 4 * np.std(estimates) / np.sqrt(60)


def test_a_deterministic_method_has_no_horvitz_thompson_weights(pool: curate.Pool, tmp_path: Path) -> None:
    rows = chosen(pool, tmp_path, method="kcenter", budget=12)
    assert "ht_weight" not in rows.columns
    assert "epoch_odd" not in rows.columns


def test_a_probability_that_no_formula_gives_is_null(pool: curate.Pool, tmp_path: Path) -> None:
    rows = chosen(pool, tmp_path, method="random", budget=12, constraints=Constraints((Quota("label", 2),)))
    assert rows["inclusion_probability"].null_count() == 12


def test_epochs_see_what_gives_most_first_and_then_the_rest(pool: curate.Pool, tmp_path: Path) -> None:
    rows = chosen(pool, tmp_path, method="infogrowth", budget=ROWS)
    gain = rows["gain"].to_numpy()
    w = np.clip(gain / np.quantile(pool.frame(["gain"])["gain"].to_numpy(), InfoGrowth().quantile), 0, 1)
    np.testing.assert_allclose(rows["epoch_odd"], w, rtol=1e-5)
    np.testing.assert_allclose(rows["epoch_even"], np.maximum(0.1, 1 - w), rtol=1e-5, atol=1e-6)


def test_two_selections_give_the_same_bytes_and_another_choice_another_digest(
    pool: curate.Pool, tmp_path: Path
) -> None:
    given = Constraints((Quota("label", max=5),), drop=("01.jpg",))
    infos = []
    for name, seed, rows in (("a", 0, "admitted"), ("b", 0, "admitted"), ("c", 1, "admitted"), ("d", 0, "all")):
        options = {"seed": seed, "candidates": rows, "constraints": given}
        curate.select_from_pool(pool, tmp_path / name, method="random", budget=9, **options)
        infos.append((tmp_path / name / "manifest.json").read_bytes())
    assert infos[0] == infos[1]
    digests = [json.loads(info)["select_digest"] for info in infos]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


# --- the recipe


RECIPE = """
[select]
method = "kcenter"
budget = "12"
keep = "{keep}"
group = "group"
group_rule = "at-most:3"

[select.params]
block = 64

[[select.constraint]]
column = "label"
min = 2

[[select.constraint]]
column = "label"
value = "circle"
max = 3
"""


def test_a_recipe_composes_method_parameters_and_constraints(pool: curate.Pool, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("05.jpg\n\n06.jpg\n")
    (tmp_path / "r.toml").write_text(RECIPE.format(keep=tmp_path / "keep.txt"))
    recipe = load_recipe(tmp_path / "r.toml")
    assert recipe.digest() == Recipe().digest()  # many selections come from one pool
    rows = chosen(pool, tmp_path / "m", **settings(recipe.select))
    assert {"05.jpg", "06.jpg"} <= set(rows["key"])
    counts = dict(rows["label"].value_counts().iter_rows())
    assert counts["circle"] <= 3
    assert min(counts.get(shape, 0) for shape in SHAPES[1:]) >= 2
    info = manifest_info(tmp_path / "m")
    assert info["params"]["block"] == 64
    assert str(tmp_path) not in json.dumps(info)


BAD = [
    ('[select]\nmethod = "kcenter"\n[select.params]\n\nblok = 3', 5, "select.params.blok does not fit: .*no parameter"),
    ('[select]\nmethod = "kcenter"\n[select.params]\nblock = 1.5', 4, "must be a whole number"),
    ("[select]\nparams = 3", 2, "select.params is 3; it must be of type dict"),
    ('[select]\ngroup_rule = "half"', 2, "select.group_rule is 'half'"),
    ("[[select.constraint]]\ncolumn = 'a'\nmin = 1\n[[select.constraint]]\nmin = 1", 4, "names no column"),
    ("[[select.constraint]]\ncolumn = 'a'\nmin = 1\n[[select.constraint]]\ncolumn = 'b'\n\nmin = -1", 7, "at least 0"),
    ("[[select.constraint]]\ncolumn = 'a'\nleast = 1", 3, "is unknown; a constraint has: column, value, min, max"),
    ("[[select.constraint]]\ncolumn = 'a'", 1, "neither min nor max"),
    ("[[select.constraint]]\ncolumn = 'a'\nmin = 3\nmax = 2", 4, "it must be at least min, 3"),
    ("[[select.constraint]]\ncolumn = 3", 2, "must be of type str"),
    ("[select]\nconstraint = [3]", 2, "must be a table"),
    ("[select.constraint]\ncolumn = 'a'", 1, "select.constraint is .* it must be of type list"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD)
def test_what_does_not_fit_is_named_with_its_line(text: str, line: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RecipeError, match=rf"line {line}: .*{message}"):
        load_recipe(tmp_path / "r.toml")


def test_a_recipe_comes_back_from_its_dict(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(keep=""))
    recipe = load_recipe(tmp_path / "r.toml")
    assert Recipe().replace(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_a_file_of_keys_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UsageError, match=r"nothing\.txt cannot be read"):
        settings(Recipe().replace({"select": {"keep": "nothing.txt"}}).select)


# --- the command line


def test_options_for_quotas() -> None:
    assert quota_tables(["label=3", "label:a=1"], ["label=5", "site:x:y=2"]) == [
        {"column": "label", "min": 3, "max": 5},
        {"column": "label", "value": "a", "min": 1},
        {"column": "site", "value": "x:y", "max": 2},
    ]
    for text in ("label", "=3", "label=x", "label=-1", "label=1.5"):
        with pytest.raises(UsageError, match="write COLUMN=N"):
            quota_tables([text], [])


def test_the_command_line_takes_what_the_recipe_does(pool: curate.Pool, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("05.jpg\n")
    (tmp_path / "r.toml").write_text(RECIPE.format(keep=tmp_path / "keep.txt"))
    options = ["--recipe", tmp_path / "r.toml", "--method", "random", "--budget", 10, "--min", "site:S=4"]
    options += ["--max", "label=4", "--group-rule", "at-most:1", "--drop", tmp_path / "drop.txt", "--json"]
    (tmp_path / "drop.txt").write_text("00.jpg\n")
    command = [sys.executable, "-m", "curate", "select", pool.path, "--out", tmp_path / "m", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["method"], answer["selected"], answer["nested"]) == ("random", 10, False)
    rows = curate.read_manifest(tmp_path / "m")
    assert rows["group"].n_unique() == 10
    assert "05.jpg" in rows["key"].to_list()
    assert max(rows["label"].value_counts()["count"]) <= 4


def test_the_command_line_takes_lists() -> None:
    assert _setting("levels=[10,3]", lists=True) == ("levels", [10, 3])
    assert _setting("levels=[10,3]") == ("levels", "[10,3]")
    for text, value in (("a=3", 3), ("a=0.5", 0.5), ("a=true", True), ('a="3"', "3"), ("a=x", "x"), ("a=null", "null")):
        assert _setting(text, lists=True) == ("a", value)


def test_each_source_tells_what_of_it_was_seen(pool: curate.Pool, tmp_path: Path) -> None:
    done = curate.select_from_pool(pool, tmp_path / "m", method="random", budget=5)
    (source,) = manifest_info(done.manifest)["sources"]
    uids = sorted(pool.frame(["uid"])["uid"].to_list())
    assert source["candidates"] == ROWS
    assert source["digest"] == hashlib.sha256("".join(uids).encode()).hexdigest()
    assert curate.verify(done.manifest).passed


def test_a_manifest_is_not_written_into_a_pool_and_an_empty_one_is_told(
    pool: curate.Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="is a pool; give the manifest a folder of its own"):
        curate.select_from_pool(pool, pool.path, budget=3)
    assert not (Path(str(pool.path)) / "manifest.json").exists()
    assert curate.select_from_pool(pool, tmp_path / "none", budget=0).selected == 0
    assert "takes none of 48 candidates" in caplog.text
