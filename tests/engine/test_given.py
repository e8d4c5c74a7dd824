"""Pools whose embeddings are given by their sources: the whole engine, and no image anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from embedded import World, write_clip_retrieval, write_datacomp
from pictures import jpeg, picture, write_folder
from toys import ToyText, toy_encoders

import curate
from curate.encoders import load_image_encoder, spread_epsilon
from curate.engine.follow import follow
from curate.errors import EncoderError, PoolMismatchError, UsageError
from curate.pool import Writer
from curate.report import write_report

OPTIONS: dict[str, Any] = {"limits": {"batch_size": 32}, "clean": {"warmup": 64, "checkpoint_growth": 1.4}}
WRONG = range(5, 200, 10)
NEAR = {i: i - 150 for i in range(160, 200, 4)}
FIRST = World(200, 1, WRONG, NEAR)
SECOND = World(120, 2)


@pytest.fixture(autouse=True)
def no_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("curate.engine.examine.decode", "curate.engine.binding.decode", "curate.stored.decode"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("an image was read"))
    for name in ("grow.load_image_encoder", "binding.load_text_encoder"):
        monkeypatch.setattr(f"curate.engine.{name}", lambda *_: pytest.fail("an encoder was loaded"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of metadata, the second with vectors that are none and an image of the first; and their pool."""
    base = tmp_path_factory.mktemp("given")
    write_datacomp(base / "meta", "00000000", FIRST)
    image, text = SECOND.vectors()
    image[7], text[8] = np.nan, 0.0
    table = SECOND.table()
    shas = table["sha256"].to_pylist()
    shas[9], image[9], text[9] = FIRST.sha256(0), *(side[0] for side in FIRST.vectors())
    table = table.set_column(table.column_names.index("sha256"), "sha256", [shas])
    write_datacomp(base / "meta", "00000001", SECOND, packed=True, table=table, l14_img=image, l14_txt=text)
    curate.grow(base / "meta", base / "pool", options=OPTIONS)
    return base


def rows_of(pool: Path) -> pl.DataFrame:
    names = ["uid", "row", "batch", "decision", "reason", "detail", "duplicate_of", "history", "counted", "pvi", "gain"]
    opened = curate.Pool.open(pool)
    vectors = [pl.Series(view, [row.tobytes() for row in opened.embeddings(view)]) for view in ("image", "text")]
    return opened.frame(names).with_columns(vectors)


def manifest_of(pool: Path) -> dict[str, bytes]:
    out = pool.parent / f"{pool.name}-subset"
    curate.select_from_pool(pool, out, method="infogrowth", budget="20%")
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_planted_rows_are_found(base: Path) -> None:
    table = curate.Pool.open(base / "pool").frame(["row", "uid", "decision", "reason", "detail", "duplicate_of", "pvi"])
    reasons = dict(table.select("row", "reason").iter_rows())
    twins = dict(table.select("row", "duplicate_of").iter_rows())
    assert {i for i, reason in reasons.items() if reason == "near_duplicate"} == set(NEAR)
    assert all(twins[i] == FIRST.uid(other) for i, other in NEAR.items())
    assert (reasons[209], twins[209]) == ("exact_duplicate", FIRST.uid(0))
    assert [reasons[207], reasons[208]] == ["bad_embedding"] * 2
    caught = [i for i in range(320) if reasons[i] == "caption_mismatch"]
    assert len(set(WRONG).difference(NEAR).intersection(caught)) >= 0.8 * len(set(WRONG).difference(NEAR))
    assert len(set(caught).difference(WRONG)) <= 16
    assert set(reasons.values()) == {
        "admitted", "near_duplicate", "exact_duplicate", "bad_embedding", "caption_mismatch",
    }  # fmt: skip


def test_vectors_are_stored_as_unit_rows_of_float16(base: Path) -> None:
    pool = curate.Pool.open(base / "pool")
    state = pool.state()
    for view, x in zip(("image", "text"), FIRST.vectors(), strict=True):
        rows = x.astype(np.float16).astype(np.float64)
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).astype(np.float16)
        assert np.array_equal(pool.embeddings(view)[:200], rows.astype(np.float32))  # type: ignore[arg-type]
        assert (state[view]["name"], state[view]["dim"]) == ("precomputed:l14", 48)
    assert (state["image"]["epsilon"], state["text"]["epsilon"]) == (0.05, 0.02)


def test_a_manifest_names_uid_and_url(base: Path, tmp_path: Path) -> None:
    curate.select_from_pool(base / "pool", tmp_path / "m", method="clip-score", budget="20%")
    rows = curate.read_manifest(tmp_path / "m")
    urls = {
        world.uid(i): f"http://example.org/{world.seed}/{i}.jpg" for world in (FIRST, SECOND) for i in range(world.n)
    }
    assert rows.height > 40
    assert rows["key"].equals(rows["uid"])
    assert rows["url"].to_list() == [urls[uid] for uid in rows["uid"]]
    assert set(rows.select("path", "offset", "size").iter_rows()) == {("", 0, 0)}
    image, text = (side.astype(np.float16).astype(float) for side in FIRST.vectors())
    sim = np.einsum("ij,ij->i", image, text)
    order = [i for uid in rows["uid"] for i in range(FIRST.n) if FIRST.uid(i) == uid]
    assert order == sorted(order, key=lambda i: -sim[i])
    with pytest.raises(UsageError, match="stored bytes, which no image of given embeddings has"):
        curate.select_from_pool(base / "pool", tmp_path / "m", budget="1MB")


def test_the_same_again_writes_nothing(base: Path) -> None:
    version = curate.Pool.open(base / "pool").version
    done = curate.grow(base / "meta", base / "pool", options=OPTIONS)
    assert (done.version, done.known, done.seen) == (version, 320, 320)


def test_replay_report_why_and_scores_work_without_images(base: Path, tmp_path: Path) -> None:
    told = curate.replay(base / "pool")
    assert (told["equal"], told["repeated"]) == (True, True)
    answer = curate.why(base / "pool", SECOND.uid(7))
    assert (answer["reason"], answer["detail"]) == (
        "bad_embedding",
        "its vector, or its caption's, is zero or not finite",
    )
    assert curate.why(base / "pool", FIRST.uid(164))["duplicate_of"]["uid"] == FIRST.uid(14)
    write_report(base / "pool", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "precomputed:l14" in text
    assert "data:image/jpeg" not in text
    scored = curate.score_pool(base / "pool", ["align", "density"])
    assert scored.columns["align"]["rows"] == 318


@pytest.mark.parametrize("call", [1, 3, 7])
@pytest.mark.parametrize("name", ["append", "update"])
def test_a_crash_at_a_commit_changes_nothing(base: Path, tmp_path: Path, name: str, call: int) -> None:
    class Crash(BaseException):
        pass

    calls, original = 0, getattr(Writer, name)

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Crash
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, name, wrapped)
        if name == "append" or call < 3:
            with pytest.raises(Crash):
                curate.grow(base / "meta", tmp_path / "pool", options=OPTIONS)
    curate.grow(base / "meta", tmp_path / "pool", options=OPTIONS)
    assert rows_of(tmp_path / "pool").equals(rows_of(base / "pool"))
    assert manifest_of(tmp_path / "pool") == manifest_of(base / "pool")


def test_kill_9_changes_nothing(base: Path, tmp_path: Path) -> None:
    pool, kills = tmp_path / "pool", 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[limits]\nbatch_size = 32\n[clean]\nwarmup = 64\ncheckpoint_growth = 1.4\n")
    command = [sys.executable, "-m", "curate", "grow", str(base / "meta"), "--pool", str(pool), "--recipe", str(recipe)]
    for _ in range(1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started, before = time.monotonic(), _committed(pool)
        while process.poll() is None and _committed(pool) <= before + 1 and time.monotonic() - started < 60:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    curate.grow(base / "meta", pool, recipe=recipe)
    assert kills
    assert rows_of(pool).equals(rows_of(base / "pool"))


def _committed(pool: Path) -> int:
    versions = pool / "samples.lance" / "_versions"
    return len(list(versions.glob("*.manifest"))) if versions.is_dir() else 0


# Which embeddings a pool takes in


def test_the_other_set_is_asked_for_once(tmp_path: Path) -> None:
    write_datacomp(tmp_path / "meta", "0", World(40))
    pool = tmp_path / "pool"
    curate.grow(tmp_path / "meta", pool, options=OPTIONS | {"encode": {"image": "precomputed:b32"}})
    assert curate.Pool.open(pool).state()["image"]["name"] == "precomputed:b32"
    write_datacomp(tmp_path / "meta", "1", World(40, 1))
    done = curate.grow(tmp_path / "meta", pool)
    assert (done.known, done.admitted, curate.Pool.open(pool).embeddings("text").shape) == (40, 40, (80, 24))
    with pytest.raises(PoolMismatchError, match=r"holds precomputed:b32 in 32 dimensions.*gives l14 embeddings"):
        curate.grow(tmp_path / "meta", pool, options={"encode": {"image": "precomputed:l14"}})


def test_nameless_embeddings_are_named_by_who_knows(tmp_path: Path) -> None:
    write_datacomp(tmp_path / "meta", "0", World(40))
    clip = write_clip_retrieval(tmp_path / "clip", World(40, 1), 2)
    curate.grow(tmp_path / "meta", tmp_path / "pool", options=OPTIONS)
    with pytest.raises(PoolMismatchError, match=r"clip gives nameless .* say so with --encoder precomputed:l14"):
        curate.grow(clip, tmp_path / "pool")
    done = curate.grow(clip, tmp_path / "pool", options={"encode": {"image": "precomputed:l14"}})
    assert (done.admitted, done.total["rows"]) == (40, 80)
    curate.grow(clip, tmp_path / "other", options=OPTIONS)
    assert curate.Pool.open(tmp_path / "other").state()["image"]["name"] == "precomputed"
    with pytest.raises(PoolMismatchError, match="holds precomputed in 48 dimensions"):
        curate.grow(tmp_path / "meta", tmp_path / "other")


def test_what_does_not_go_together_is_named(tmp_path: Path) -> None:
    write_datacomp(tmp_path / "meta", "0", World(40))
    write_folder(tmp_path / "images", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(3)})
    np.save(tmp_path / "x.npy", np.eye(48))
    for sources, options, why in (
        (["meta", "images"], {}, r"meta/0\.npz gives embeddings and images images"),
        (["meta", "x.npy"], {}, r"gives l14 embeddings .* captions in 48.*nameless embeddings .*no captions"),
        (["meta"], {"encode": {"image": "open_clip:ViT-B-32/x"}}, "which open_clip:ViT-B-32/x cannot make of it"),
        (["meta"], {"encode": {"image": "builtin"}}, "which builtin cannot make of it"),
        (["images"], {"encode": {"image": "precomputed"}}, "images gives images, and the encoder is precomputed"),
    ):
        with pytest.raises(UsageError, match=why):
            curate.grow([tmp_path / name for name in sources], tmp_path / "no", options=options)
    assert not (tmp_path / "no" / "samples.lance").exists()
    with pytest.raises(EncoderError, match="were given by their source"):
        load_image_encoder("precomputed:l14")


def test_pools_of_images_and_of_embeddings_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_datacomp(tmp_path / "meta", "0", World(40))
    write_folder(tmp_path / "images", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(3)})
    curate.grow(tmp_path / "meta", tmp_path / "given", options=OPTIONS)
    with pytest.raises(UsageError, match="images gives images, and the encoder is precomputed:l14"):
        curate.grow(tmp_path / "images", tmp_path / "given")
    with pytest.raises(PoolMismatchError, match="images gives images, and the pool holds embeddings"):
        curate.grow(tmp_path / "meta", tmp_path / "given", guard=[tmp_path / "images"])
    monkeypatch.undo()
    with toy_encoders():
        curate.grow(tmp_path / "images", tmp_path / "seen")
        with pytest.raises(PoolMismatchError, match=r"holds builtin in 12 dimensions; meta/0\.npz gives l14"):
            curate.grow(tmp_path / "meta", tmp_path / "seen")


def test_captions_without_vectors_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.engine.binding.load_text_encoder", lambda name, *_: ToyText())
    x, columns = World(40).vectors()[0], {"caption": [f"{i} red" for i in range(40)]}
    curate.grow(curate.Arrays(x, columns=columns), tmp_path / "pool", options=OPTIONS)
    pool = curate.Pool.open(tmp_path / "pool")
    assert (pool.state()["text"]["name"], pool.embeddings("text").any(axis=1).sum()) == ("builtin", 40)
    version = pool.version
    assert curate.grow(curate.Arrays(x, columns=columns), tmp_path / "pool").version == version
    with pytest.raises(PoolMismatchError, match=r"encode\.text"):
        curate.grow(curate.Arrays(x, text=x), tmp_path / "pool", options={"encode": {"text": "precomputed"}})


def test_arrays_need_no_table(tmp_path: Path) -> None:
    x, text = World(80).vectors()
    done = curate.grow(curate.Arrays(x, text=text), tmp_path / "pool", options=OPTIONS)
    assert (done.admitted, set(curate.Pool.open(tmp_path / "pool").frame(["caption"])["caption"])) == (80, {""})
    more = curate.grow(curate.Arrays(np.concatenate([x, x[:5] + 1]), text=text[[*range(80), *range(5)]]), done.pool)
    assert (more.known, more.admitted) == (80, 5)


# What else a pool does


def test_vectors_that_were_mended_are_taken_in(tmp_path: Path) -> None:
    image, _ = World(40).vectors()
    image[3] = 0.0
    write_datacomp(tmp_path / "meta", "0", World(40), l14_img=image)
    assert curate.grow(tmp_path / "meta", tmp_path / "pool", options=OPTIONS).refused == {"bad_embedding": 1}
    write_datacomp(tmp_path / "meta", "0", World(40))
    done = curate.grow(tmp_path / "meta", tmp_path / "pool")
    assert (done.known, done.admitted, done.total["admitted"]) == (39, 1, 40)


def test_an_evaluation_set_of_embeddings_is_kept_out(tmp_path: Path) -> None:
    world = World(60)
    write_datacomp(tmp_path / "meta", "0", world)
    np.save(tmp_path / "test.npy", world.vectors()[0][[4, 7]] * 3.0)
    done = curate.grow(tmp_path / "meta", tmp_path / "pool", options=OPTIONS, guard=[tmp_path / "test.npy"])
    assert done.refused == {"eval_leak": 2}
    np.save(tmp_path / "other.npy", np.eye(5))
    with pytest.raises(PoolMismatchError, match=r"48 dimensions.*images in 5 dimensions"):
        curate.grow(tmp_path / "meta", tmp_path / "pool", guard=[tmp_path / "other.npy"])


def test_a_takedown_bars_rows_by_name_and_by_what_is_told_of_their_bytes(tmp_path: Path) -> None:
    world = World(80, 3, near={70: 10})
    write_datacomp(tmp_path / "meta", "0", world)
    curate.grow(tmp_path / "meta", tmp_path / "pool", options=OPTIONS)
    done = curate.forget(tmp_path / "pool", keys=[world.uid(10)], refill=True)
    assert (done.forgotten, done.refilled) == (1, 1)
    assert curate.forget(tmp_path / "pool", url_domains=["example.org"]).forgotten == 79
    write_datacomp(tmp_path / "meta", "0", world, packed=True)
    again = curate.grow(tmp_path / "meta", tmp_path / "pool")
    assert (again.admitted, again.refused) == (0, {"forgotten": 80})


def test_a_manifest_without_urls_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", World(40).vectors()[0])
    curate.grow(tmp_path / "x.npy", tmp_path / "pool", options=OPTIONS)
    curate.select_from_pool(tmp_path / "pool", tmp_path / "m", budget=10)
    assert curate.read_manifest(tmp_path / "m")["url"].null_count() == 10


# The distance of near duplicates


def unit(x: Any) -> Any:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_the_distance_is_the_default_unless_distinct_rows_lie_within_it() -> None:
    rng = np.random.default_rng(0)
    apart = unit(rng.normal(size=(300, 64)))
    assert spread_epsilon(0.05, apart) == 0.05
    copies = np.concatenate([apart[:200], unit(apart[:40] + rng.normal(0, 0.005, (40, 64)))])
    assert spread_epsilon(0.05, copies) == 0.05  # true copies are a mode of their own
    alike = unit(rng.normal(size=64) + rng.normal(0, 0.25, (256, 64)))
    found = spread_epsilon(0.05, alike)
    sim = alike @ alike.T - 2 * np.eye(256)
    assert 0.005 < found < 0.05
    assert (1 - sim.max(axis=1) < found).mean() <= 0.03
    assert spread_epsilon(0.05, apart[:5]) == 0.02
    assert spread_epsilon(0.05, np.zeros((300, 8), np.float32)) == 0.02


def test_the_distance_of_the_recipe_goes_before(tmp_path: Path) -> None:
    world = World(40, near={30: 2})
    write_datacomp(tmp_path / "meta", "0", world)
    expected: list[tuple[float, dict[str, int]]] = [(0.0, {"near_duplicate": 1}), (1e-4, {})]
    for epsilon, refused in expected:
        pool = tmp_path / str(epsilon)
        done = curate.grow(tmp_path / "meta", pool, options=OPTIONS | {"dedup": {"epsilon": epsilon}})
        assert done.refused == refused
        assert curate.Pool.open(pool).state()["image"]["epsilon"] == (epsilon or 0.05)


@pytest.mark.parametrize("late", [".npz", ".parquet"])
def test_a_shard_whose_halves_come_apart_is_taken_in_once(tmp_path: Path, late: str) -> None:
    source, stop = tmp_path / "in", threading.Event()
    halves = write_datacomp(tmp_path / "made", "0", World(40)).with_suffix(late)
    source.mkdir()
    for file in halves.parent.iterdir():
        if file != halves:
            file.rename(source / file.name)
    seen: list[dict[str, Any]] = []

    def status(figures: dict[str, Any]) -> None:
        seen.append(figures)
        if figures["failed_shards"] and halves.exists():
            halves.rename(source / halves.name)
        if figures["rows"]:
            stop.set()

    follow(source, tmp_path / "pool", every=0.05, stop=stop, status=status, options=OPTIONS)
    rows = curate.Pool.open(tmp_path / "pool").frame(["source", "uid"])
    assert rows["uid"].to_list() == [World(40).uid(i) for i in range(40)]
    assert set(rows["source"]) == {"in/0.npz"}
