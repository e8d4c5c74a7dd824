"""The warm-up rule, the gates, and what a checkpoint decides again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from pictures import SHAPES, captioned_tar, jpeg, picture, write_folder, write_tar

import curate
from curate.engine import checkpoint
from curate.engine.gate import Gate
from curate.engine.voters import places
from curate.pool import Writer
from curate.scoring.calibrate import Threshold

OPTIONS = {"limits": {"batch_size": 32}, "clean": {"warmup": 128}, "dedup": {"epsilon": 0.001}}
WRONG = frozenset(int(i) for i in np.random.default_rng(0).choice(400, 60, replace=False))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pool of 400 captioned pictures, 60 of them with the caption of another."""
    base = tmp_path_factory.mktemp("captioned")
    captioned_tar(base / "s" / "0.tar", range(400), WRONG)
    curate.grow(base / "s", base / "pool", options=OPTIONS)
    return base / "pool"


def test_mismatched_captions_are_caught_and_few_good_ones_lost(captioned: Path) -> None:
    rows = curate.Pool.open(captioned).frame(["key", "reason"])
    wrong = rows["key"].cast(int).is_in(list(WRONG)).to_numpy()
    refused = (rows["reason"] == "caption_mismatch").to_numpy()
    assert refused[wrong].mean() > 0.6  # some wrong captions fit: there are few colours and shapes
    assert refused[~wrong].mean() < 0.08


def test_rows_are_held_back_during_warm_up_and_decided_again_at_the_checkpoint(captioned: Path) -> None:
    rows = curate.Pool.open(captioned).frame(["row", "decision", "reason", "history", "pvi", "pvi_arrival"])
    histories = [json.loads(history) for history in rows["history"]]
    held = [i for i, history in enumerate(histories) if history[0]["reason"] == "warmup"]
    assert held == list(range(128))  # four batches of 32: the warm-up asked for
    for i in held:
        assert histories[i][0]["decision"] == "hold"
        assert histories[i][1]["checkpoint"] == 5  # the fifth commit: four batches, then the checkpoint
        assert histories[i][-1]["decision"] == rows["decision"][i] != "hold"
    assert rows["pvi_arrival"][:128].is_null().all()
    assert rows["pvi_arrival"][128:].is_not_null().all()
    assert rows["pvi"].is_not_null().all()


def test_a_refusal_records_score_and_threshold(captioned: Path) -> None:
    rows = curate.Pool.open(captioned).frame(["reason", "history"]).filter(pl.col("reason") == "caption_mismatch")
    for history in rows["history"]:
        last = json.loads(history)[-1]
        assert last["pvi"] < last["thresholds"]["pvi"]


def test_too_few_rows_to_judge_are_admitted_at_the_end(tmp_path: Path) -> None:
    source = captioned_tar(tmp_path / "s" / "0.tar", range(20))
    done = curate.grow(source, tmp_path / "pool", options=OPTIONS)
    assert (done.admitted, done.refused) == (20, {})
    histories = [json.loads(h) for h in curate.Pool.open(tmp_path / "pool").frame(["history"])["history"]]
    assert all([event["decision"] for event in history] == ["hold", "admit"] for history in histories)


def test_captions_that_say_nothing_refuse_nothing(tmp_path: Path) -> None:
    words = ["alpha beta", "gamma delta", "epsilon zeta", "eta theta", "iota kappa"]
    rng = np.random.default_rng(0)
    members = []
    for seed in range(160):
        members += [(f"{seed:04d}.jpg", jpeg(picture(seed)[0])), (f"{seed:04d}.txt", rng.choice(words).encode())]
    write_tar(tmp_path / "s" / "0.tar", members)
    done = curate.grow(tmp_path / "s", tmp_path / "pool", options=OPTIONS)
    assert done.refused.get("caption_mismatch", 0) <= 0.05 * 160


def test_the_gate_can_be_turned_off(tmp_path: Path) -> None:
    source = captioned_tar(tmp_path / "s" / "0.tar", range(40), frozenset(range(0, 40, 4)))
    done = curate.grow(source, tmp_path / "pool", options=OPTIONS | {"clean": {"captions": False}})
    assert done.refused == {}
    assert (curate.Pool.open(tmp_path / "pool").frame(["decision"])["decision"] == "admit").all()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """Return a pool of 480 pictures in class folders, 5 % in the wrong one, and a class of 12; and the wrong keys."""
    base = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(1)
    wrong = set(rng.choice(480, 24, replace=False).tolist())
    files, keys = {}, set()
    for seed in range(480):
        label = SHAPES[seed % 4]
        name = f"{SHAPES[(seed + int(rng.integers(1, 4))) % 4] if seed in wrong else label}/{seed:04d}.jpg"
        files[name] = jpeg(picture(seed)[0])
        keys |= {name} if seed in wrong else set()
    files |= {f"rare/{seed}.jpg": jpeg(picture(seed)[0]) for seed in range(1000, 1012)}
    write_folder(base / "s", files)
    curate.grow(base / "s", base / "pool", options=OPTIONS | {"mend": {"relabel": False}})
    return base / "pool", keys


def test_wrong_labels_are_caught_and_few_good_ones_lost(labelled: tuple[Path, set[str]]) -> None:
    rows = curate.Pool.open(labelled[0]).frame(["key", "reason", "label"]).filter(pl.col("label") != "rare")
    wrong = rows["key"].is_in(sorted(labelled[1])).to_numpy()
    refused = (rows["reason"] == "label_noise").to_numpy()
    assert refused[wrong].mean() > 0.4
    assert refused[~wrong].mean() < 0.08


def test_a_small_class_is_never_refused_by_label(labelled: tuple[Path, set[str]]) -> None:
    rows = curate.Pool.open(labelled[0]).frame(["label", "reason"]).filter(pl.col("label") == "rare")
    assert rows.height == 12
    assert not (rows["reason"] == "label_noise").any()


def test_a_duplicate_is_promoted_when_what_it_duplicates_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two equal pictures has a wrong label and is admitted at arrival; the checkpoint swaps the two."""
    files = {f"{SHAPES[seed % 4]}/{seed:04d}.jpg": jpeg(picture(seed)[0]) for seed in range(160)}
    # A square among the circles, and its twin among the squares.
    files["circle/0000.jpg"] = files["square/9999.jpg"] = jpeg(picture(1001)[0])
    source = write_folder(tmp_path / "s", files)

    def only_the_first(engine: object, gate: Gate, scores: dict[str, np.ndarray], *rest: object) -> None:
        gate.classes = {0: Threshold(-float(scores["s1_label"][0]) + 1e-6, 0.1, 0.0, 1.0)}

    monkeypatch.setattr(checkpoint, "calibrate_gates", only_the_first)
    curate.grow(source, tmp_path / "pool", options=OPTIONS)
    rows = {row["key"]: row for row in curate.Pool.open(tmp_path / "pool").frame().iter_rows(named=True)}
    twin = rows["square/9999.jpg"]
    assert rows["circle/0000.jpg"]["reason"] == "label_noise"
    assert (twin["decision"], twin["duplicate_of"]) == ("admit", None)
    assert [event["reason"] for event in json.loads(twin["history"])] == ["exact_duplicate", "admitted"]


def test_the_newest_version_without_state_carries_the_last_one(captioned: Path) -> None:
    pool = curate.Pool.open(captioned)
    version, before = pool.version, pool.state()
    with Writer(captioned) as writer:
        pool.dataset.optimize.compact_files()
        assert writer.pool() is not None
    assert curate.Pool.open(captioned).version > version
    assert curate.Pool.open(captioned).state() == before


def test_held_rows_wait_through_a_checkpoint_that_labels_call_for(tmp_path: Path) -> None:
    captioned = captioned_tar(tmp_path / "a" / "0.tar", range(16))
    labelled = write_folder(
        tmp_path / "b", {f"{SHAPES[i % 4]}/{i:04d}.jpg": jpeg(picture(i)[0]) for i in range(20, 180)}
    )
    done = curate.grow([captioned, labelled], tmp_path / "pool", options=OPTIONS)
    rows = curate.Pool.open(tmp_path / "pool").frame(["row", "decision", "history"])
    assert done.refused.get("warmup", 0) == 0
    first = [json.loads(history) for history in rows.filter(pl.col("row") < 16)["history"]]
    assert all(events[0]["decision"] == "hold" and events[-1]["decision"] == "admit" for events in first)


def test_a_run_without_captions_does_not_end_the_warm_up(tmp_path: Path) -> None:
    labelled = write_folder(tmp_path / "b", {f"{SHAPES[i % 4]}/{i:04d}.jpg": jpeg(picture(i)[0]) for i in range(20)})
    curate.grow(labelled, tmp_path / "pool", options=OPTIONS)
    captioned = captioned_tar(tmp_path / "a" / "0.tar", range(100, 110))
    curate.grow(captioned, tmp_path / "pool")
    rows = curate.Pool.open(tmp_path / "pool").frame(["row", "history"]).filter(pl.col("row") >= 20)
    assert {json.loads(history)[0]["decision"] for history in rows["history"]} == {"hold"}


def test_of_equal_rows_that_are_held_back_one_is_counted(tmp_path: Path) -> None:
    members = []
    for copy in "ab":
        for seed in range(70):
            image, caption, _ = picture(seed)
            members += [(f"{copy}{seed:03d}.jpg", jpeg(image)), (f"{copy}{seed:03d}.txt", caption.encode())]
    write_tar(tmp_path / "s" / "0.tar", members)
    curate.grow(tmp_path / "s", tmp_path / "pool", options=OPTIONS)
    pool = curate.Pool.open(tmp_path / "pool")
    assert pool.state()["pairs"] == 70
    assert pool.frame(["counted"])["counted"].sum() == 70


def test_a_label_likelier_than_not_is_never_noise(labelled: tuple[Path, set[str]]) -> None:
    state = curate.Pool.open(labelled[0]).state()
    assert state["checkpoint"]["classes"]
    assert all(threshold["value"] <= -1.0 for threshold in state["checkpoint"]["classes"].values())


def test_gates_turned_on_later_judge_what_was_counted_before(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{SHAPES[i % 4]}/{i:04d}.jpg": jpeg(picture(i)[0]) for i in range(100)})
    off = OPTIONS | {"clean": {"warmup": 128, "labels": False}}
    curate.grow(source, tmp_path / "pool", options=off)
    assert curate.Pool.open(tmp_path / "pool").state()["labels"] == 100
    curate.grow(source, tmp_path / "pool", options={"clean": {"labels": True}}, change_recipe=True)
    state = curate.Pool.open(tmp_path / "pool").state()
    assert state["checkpoint"]["labels"] == 100
    assert state["checkpoint"]["classes"]


def test_a_duplicate_does_not_hear_what_it_duplicates_vouch_for_its_label() -> None:
    table = pl.DataFrame({"uid": ["a", "b", "c", "d"], "duplicate_of": [None, "a", "d", "a"]})
    # a and d vote; d was counted before it became a duplicate, so it leaves itself out
    assert places(table, np.array([0, 3])).tolist() == [0, 0, 1, 1]


def test_label_scores_of_a_run_that_died_after_a_checkpoint_are_those_of_one_that_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that vote are read again from the pool."""
    source = write_folder(tmp_path / "s", {f"{SHAPES[i % 4]}/{i:04d}.jpg": jpeg(picture(i)[0]) for i in range(200)})
    options = OPTIONS | {"clean": {"warmup": 64, "checkpoint_growth": 1.3}}
    columns = ["uid", "decision", "s1_label", "s1_label_arrival", "pvi_label", "history"]
    curate.grow(source, tmp_path / "straight", options=options)
    append, calls = Writer.append, []

    def dies_at_the_fifth(*args: object, **kwargs: object) -> object:
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return append(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", dies_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            curate.grow(source, tmp_path / "resumed", options=options)
    assert curate.Pool.open(tmp_path / "resumed").state()["checkpoint"]["labels"] >= 64
    curate.grow(source, tmp_path / "resumed", options=options)
    straight, resumed = (curate.Pool.open(tmp_path / name).frame(columns) for name in ("straight", "resumed"))
    assert resumed.equals(straight)
    assert straight["s1_label_arrival"].is_not_null().sum() > 50


def test_beyond_100_000_pairs_a_checkpoint_comes_at_every_doubling() -> None:
    def due(pairs: int, last: int) -> bool:
        done = SimpleNamespace(pairs=last, labels=0) if last else None
        state = SimpleNamespace(pairs=pairs, labels=0, checkpoint=done)
        recipe = SimpleNamespace(clean=SimpleNamespace(warmup=1000, checkpoint_growth=1.5))
        return checkpoint.is_due(SimpleNamespace(recipe=recipe, state=state))  # type: ignore[arg-type]

    assert [due(999, 0), due(1000, 0), due(134_999, 90_000), due(135_000, 90_000)] == [False, True, False, True]
    assert [due(150_000, 100_000), due(199_999, 100_000), due(200_000, 100_000)] == [False, False, True]
