"""What was decided online comes out the same when the stored stream is decided once more."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pictures import captioned_tar, jpeg, picture, write_folder
from toys import toy_encoders
from typer.testing import CliRunner

import curate
from curate.cli import app
from curate.engine import replay as module
from curate.errors import PoolError, UsageError
from curate.pool import Pool, Writer

OPTIONS = {"limits": {"batch_size": 24}, "clean": {"warmup": 64, "checkpoint_growth": 1.2}}


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    with toy_encoders():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources, and a pool grown in three runs: captions, copies, broken files, a changed recipe, an evaluation set."""
    base = tmp_path_factory.mktemp("replay")
    captioned_tar(base / "one.tar", range(80), frozenset(range(0, 40, 10)))
    copies = {f"{i:03d}.jpg": jpeg(picture(i)[0], 85) for i in range(70, 100)}
    write_folder(base / "two", copies | {"broken.jpg": b"no image", "tiny.jpg": jpeg(picture(1)[0].resize((20, 20)))})
    write_folder(base / "three", {f"{i:03d}.jpg": jpeg(picture(i)[0]) for i in range(200, 212)})
    write_folder(base / "test", {f"{i}.jpg": jpeg(picture(i)[0]) for i in (3, 90, 205)})
    curate.grow(base / "one.tar", base / "pool", options=OPTIONS)
    curate.tag(base / "pool", "one")
    curate.grow(base / "two", base / "pool", guard=[base / "test"])
    changed: dict[str, Any] = OPTIONS | {"clean": OPTIONS["clean"] | {"caption_loss": 0.3, "min_side": 16}}
    curate.grow(base / "three", base / "pool", options=changed, change_recipe=True)
    return base


@pytest.fixture
def pool(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base / "pool", tmp_path / "pool")
    return tmp_path / "pool"


def test_the_same_stream_gives_the_same_decisions(base: Path) -> None:
    told = curate.replay(base / "pool")
    rows = Pool.open(base / "pool").frame(["reason"])
    assert {"admitted", "caption_mismatch", "near_duplicate", "eval_leak", "undecodable"} <= set(rows["reason"])
    assert (told["equal"], told["differing"], told["rows"], told["repeated"]) == (True, 0, rows.height, True)
    assert told["admitted"][0] == told["admitted"][1] == rows.filter(pl.col("reason") == "admitted").height
    assert "first" not in told


def test_labels_that_were_set_right_are_set_right_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(400) % 3
    x = rng.normal(size=(3, 16))[kind] * 2 + rng.normal(size=(400, 16))
    told = np.where(np.arange(400) % 25 == 7, (kind + 1) % 3, kind)
    data = curate.Arrays(x.astype(np.float32), columns={"label": [str(k) for k in told]}, name="a")
    curate.grow(data, tmp_path / "pool", options={"limits": {"batch_size": 50}})
    assert Pool.open(tmp_path / "pool").dataset.count_rows(filter="label_original IS NOT NULL") > 3
    found = curate.replay(tmp_path / "pool")
    assert (found["equal"], found["mended"], found["repeated"]) == (True, 0, True)


def test_neither_sources_nor_encoders_are_needed(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AssertionError

    for name in ("load_image_encoder", "open_sources"):
        monkeypatch.setattr(f"curate.engine.grow.{name}", gone)
    monkeypatch.setattr("curate.engine.binding.load_text_encoder", gone)
    assert curate.replay(pool)["equal"]


def test_a_pool_that_was_rolled_back_and_grown_again_is_repeated(base: Path, pool: Path) -> None:
    curate.rollback(pool, "one")
    curate.grow(base / "three", pool)
    told = curate.replay(pool)
    assert (told["equal"], told["repeated"], told["rows"]) == (True, True, 92)


def test_a_decision_that_does_not_follow_from_the_stream_is_found(pool: Path) -> None:
    with Writer(pool) as writer:
        opened = Pool.open(pool)
        rows = opened.frame(["uid", "decision", "reason"])
        at = int((rows["reason"] == "admitted").arg_true()[5])
        decisions = rows["decision"].to_list()
        decisions[at] = "refuse"
        state = opened.state()
        state["step"] += 1
        writer.update(opened, pa.table({"uid": rows["uid"].to_list(), "decision": decisions}), state)
    told = curate.replay(pool)
    assert (told["equal"], told["differing"], told["decided_otherwise"]) == (False, 1, 1)
    assert told["changed"] == {"refuse admitted → admit admitted": 1}
    assert (told["first"]["row"], told["first"]["decision"], told["first"]["decision_now"]) == (at, "refuse", "admit")


def test_after_a_takedown_what_is_left_is_replayed(pool: Path) -> None:
    curate.forget(pool, keys=["00007"])
    told = curate.replay(pool)
    assert (told["repeated"], told["rows"]) == (False, Pool.open(pool).rows)
    assert told["share"] < 0.05


def test_admitted_sets_are_compared_up_to_duplicates() -> None:
    rows = [("a", "admit", None), ("b", "refuse", "a"), ("c", "admit", None), ("d", "refuse", None)]
    was = pl.DataFrame(
        [(u, d, "r", t) for u, d, t in rows], schema=["uid", "decision", "reason", "duplicate_of"], orient="row"
    )
    was = was.with_row_index("row").with_columns(source=pl.lit("s"), key=pl.col("uid"))

    def differ(*admitted: str) -> float:
        now = was.select("uid", "reason", "duplicate_of").with_columns(
            decision=pl.when(pl.col("uid").is_in(admitted)).then(pl.lit("admit")).otherwise(pl.lit("refuse"))
        )
        return float(module._compared(was, now)["admitted_differ"])

    assert differ("a", "c") == 0
    assert differ("b", "c") == 0  # the other one of two equal rows
    assert differ("a") == 0.5
    assert differ("a", "c", "d") == pytest.approx(1 / 3, abs=1e-6)


def test_another_order_is_measured_and_told(base: Path) -> None:
    told = curate.replay(base / "pool", order="shuffle", seed=1)
    assert told["decided_otherwise"] == sum(told["changed"].values()) == round(told["share"] * told["rows"])
    assert 0 < told["share"] < 0.5
    command = ["replay", str(base / "pool"), "--order", "shuffle", "--seed", "1"]
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout) == told  # the same order again
    assert "decided otherwise" in CliRunner().invoke(app, command).stdout


def test_what_cannot_be_replayed_is_a_named_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="arrival, shuffle"):
        curate.replay(base / "pool", order="sorted")
    with pytest.raises(PoolError, match="no pool"):
        curate.replay(tmp_path)
