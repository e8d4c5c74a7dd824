"""What people decide holds against gates and duplicates, moves the statistics, and survives all that follows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import write_tar
from planted_world import NumberEncoder, captioned, encoders, label, png, said

import curate
from curate.errors import KeyNotFoundError, UsageError
from curate.pool import Pool
from curate.scoring.moments import ClassMoments

ROWS = 400
OPTIONS = {"limits": {"batch_size": 32}, "clean": {"warmup": 96, "checkpoint_growth": 1.6}, "mend": {"relabel": False}}
RNG = np.random.default_rng(3)
MISCAPTIONED = {int(i): int(i + RNG.integers(1, 399)) for i in RNG.choice(np.arange(10, 360), 60, replace=False)}
MISLABELLED = {int(i): label(int(i + RNG.integers(1, 4))) for i in RNG.choice(np.arange(10, 360), 40, replace=False)}
COPY = 380  # shows what 0 does


def members(seeds: range) -> list[tuple[str, bytes]]:
    wrong = {seed: said(other) for seed, other in MISCAPTIONED.items()}
    return captioned(seeds, {COPY: 0}, wrong, MISLABELLED)


@pytest.fixture(scope="module", autouse=True)
def text_encoder() -> Iterator[NumberEncoder]:
    with encoders() as text:
        yield text


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("review")
    write_tar(base / "s" / "0.tar", members(range(ROWS)))
    curate.grow(base / "s", base / "pool", options=OPTIONS)
    return base / "pool"


@pytest.fixture
def pool(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "pool"))


def found(pool: Path) -> dict[str, tuple[str, str, str]]:
    rows = Pool.open(pool).frame(["key", "decision", "reason", "label"])
    return {key: (decision, reason, label) for key, decision, reason, label in rows.iter_rows()}


def of(pool: Path, reason: str) -> list[str]:
    """Return the keys of the rows refused for a reason, the worst pair first."""
    rows = Pool.open(pool).frame(["key", "reason", "pvi"])
    return rows.filter(rows["reason"] == reason).sort("pvi")["key"].to_list()


def assert_label_sums_are_those_of_the_rows(pool: Path) -> None:
    opened = Pool.open(pool)
    state, rows = opened.state(), opened.frame(["counted", "label"])
    counted, labels = rows["counted"].to_numpy(), ClassMoments.zeros(64)
    number = np.array([state["classes"].index(name) for name in rows["label"]])
    labels.add(opened.embeddings("image")[counted], number[counted], len(state["classes"]))
    saved = opened.sums(state["checkpoint"]["sums"]["labels"])
    for key, value in labels.arrays().items():
        np.testing.assert_allclose(saved[key], value, atol=1e-9 * max(1.0, np.abs(value).max()))
    assert state["labels"] == labels.count.sum()


def test_keep_drop_and_relabel_hold_and_the_statistics_follow(pool: Path, tmp_path: Path) -> None:
    captions, labels, before = of(pool, "caption_mismatch"), of(pool, "label_noise"), found(pool)
    assert len(captions) > 5
    assert len(labels) > 5
    assert before[f"{COPY:04d}"][1] == "exact_duplicate"
    true = label(int(labels[0]))
    done = curate.review(
        pool,
        [
            {"key": "0000", "action": "drop"},
            {"key": f"{COPY + 1:04d}", "action": "drop"},
            {"key": captions[0], "action": "keep"},
            {"key": labels[0], "action": "relabel", "label": true},
            {"key": labels[1], "action": "relabel", "label": before[labels[1]][2]},
        ],
    )
    after = found(pool)
    assert (done.keep, done.drop, done.relabel, done.clear) == (1, 2, 2, 0)
    assert after["0000"][:2] == after[f"{COPY + 1:04d}"][:2] == ("refuse", "reviewed")
    assert after[f"{COPY:04d}"][1] == "exact_duplicate"  # no copy steps in for what was dropped
    assert after[captions[0]][:2] == ("admit", "admitted")
    assert after[labels[0]] == ("admit", "admitted", true)
    assert after[labels[1]] == ("admit", "admitted", before[labels[1]][2])  # the gate has no more to say
    assert done.changed == sum(before[key][:2] != after[key][:2] for key in before)
    assert_label_sums_are_those_of_the_rows(pool)
    told = curate.why(pool, labels[0])
    assert told["label_original"] == before[labels[0]][2]
    assert [e["reason"] for e in told["history"] if e["decision"] == "review"] == ["relabel"]
    assert curate.log(pool)[0]["what"] == "review"
    curate.select_from_pool(pool, tmp_path / "m", method="random", budget="100%", candidates="all")
    assert not {"0000", f"{COPY + 1:04d}"} & set(curate.read_manifest(tmp_path / "m")["key"])


def test_a_duplicate_is_kept_against_its_twin(pool: Path) -> None:
    curate.review(pool, [{"key": f"{COPY:04d}", "action": "keep"}])
    kept = Pool.open(pool).find(f"{COPY:04d}")
    assert (kept["decision"], kept["duplicate_of"]) == ("admit", None)
    assert 0 < kept["gain_image"] < 0.5  # measured beside its twin
    assert found(pool)["0000"][:2] == ("admit", "admitted")


def test_what_follows_obeys_and_a_cleared_sample_is_decided_again(pool: Path, tmp_path: Path) -> None:
    captions = of(pool, "caption_mismatch")
    curate.review(pool, [{"key": "0007", "action": "drop"}, {"key": captions[0], "action": "keep"}])
    write_tar(tmp_path / "more" / "1.tar", members(range(ROWS, 2 * ROWS)))
    assert curate.grow(tmp_path / "more", pool, options=OPTIONS).seen == ROWS  # with checkpoints of its own
    grown = found(pool)
    assert grown["0007"][:2] == ("refuse", "reviewed")
    assert grown[captions[0]][0] == "admit"
    assert Pool.open(pool).dataset.count_rows(filter="review IS NOT NULL") == 2
    curate.review(pool, [{"key": "0007", "action": "clear"}, {"key": captions[0], "action": "clear"}])
    cleared = found(pool)
    assert cleared["0007"][0] == "admit"
    assert cleared[captions[0]][:2] == ("refuse", "caption_mismatch")
    assert curate.replay(pool)["reviewed"] == 0


def test_verdict_and_label_stay_beside_each_other(pool: Path) -> None:
    worst, other = of(pool, "caption_mismatch")[:2]
    curate.review(pool, [{"key": worst, "action": "keep"}, {"key": "0008", "action": "drop"}])
    curate.review(pool, [{"key": key, "action": "relabel", "label": "east"} for key in (worst, "0008")])
    assert found(pool)[worst] == ("admit", "admitted", "east")
    assert found(pool)["0008"] == ("refuse", "reviewed", "east")
    done = curate.review(pool, [{"key": other, "action": "relabel", "label": "west"}, {"key": other, "action": "keep"}])
    assert (done.keep, done.relabel) == (1, 1)
    assert found(pool)[other] == ("admit", "admitted", "west")
    curate.review(pool, [{"key": worst, "action": "relabel", "label": label(int(worst))}])
    if int(worst) not in MISLABELLED:  # a label that was put back is no mended one
        assert Pool.open(pool).find(worst)["label_original"] is None
    assert_label_sums_are_those_of_the_rows(pool)


def test_what_is_no_longer_kept_is_judged_again(pool: Path) -> None:
    before = found(pool)
    copy = f"{COPY:04d}"
    curate.review(pool, [{"key": copy, "action": "keep"}])
    curate.review(pool, [{"key": copy, "action": "clear"}])
    assert found(pool)[copy] == before[copy]
    assert Pool.open(pool).find(copy)["duplicate_of"] == Pool.open(pool).find("0000")["uid"]


def test_copies_of_what_was_dropped_are_not_wanted(pool: Path, tmp_path: Path) -> None:
    curate.review(pool, [{"key": "0007", "action": "drop"}])
    again = [("again.png", png(7)), ("again.txt", said(7).encode()), ("new.png", png(901))]
    write_tar(tmp_path / "more" / "c.tar", again)
    curate.grow(tmp_path / "more", pool, options=OPTIONS)
    rows = found(pool)
    assert rows["again"][:2] == ("refuse", "reviewed")
    assert rows["new"][0] == "admit"
    assert "0007, which a reviewer dropped" in curate.why(pool, "again")["detail"]
    curate.review(pool, [{"key": "0007", "action": "clear"}])
    assert found(pool)["0007"][:2] == ("admit", "admitted")


def test_a_bounded_pool_keeps_what_must_be_kept(tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "0.tar", members(range(ROWS)))
    options = OPTIONS | {"limits": {"batch_size": 32, "max_kept": 150}}
    curate.grow(tmp_path / "s", tmp_path / "pool", options=options)
    crowded = of(tmp_path / "pool", "budget")[:20]
    curate.review(tmp_path / "pool", [{"key": key, "action": "keep"} for key in crowded])
    write_tar(tmp_path / "more" / "1.tar", members(range(ROWS, ROWS + 200)))
    curate.grow(tmp_path / "more", tmp_path / "pool", options=options)
    rows = found(tmp_path / "pool")
    assert {rows[key][0] for key in crowded} == {"admit"}
    assert sum(row[0] == "admit" for row in rows.values()) <= 150
    with pytest.raises(UsageError, match="leaves room for 88"):
        curate.review(tmp_path / "pool", [{"key": f"{i:04d}", "action": "keep"} for i in range(20, 120)])


def test_a_label_on_a_row_that_is_not_in_the_sums_leaves_the_caption_sums_alone(tmp_path: Path) -> None:
    items = [item for item in members(range(160)) if not item[0].startswith("0005") or not item[0].endswith("cls")]
    write_tar(tmp_path / "s" / "0.tar", items)
    options = OPTIONS | {"clean": {**OPTIONS["clean"], "min_contrast": 1.0, "min_sharpness": 0.0}}
    curate.grow(tmp_path / "s", tmp_path / "pool", options=options)
    counted = Pool.open(tmp_path / "pool").find("0005")["counted"]
    pairs = Pool.open(tmp_path / "pool").state()["pairs"]
    curate.review(tmp_path / "pool", [{"key": "0005", "action": "relabel", "label": "east"}])
    assert Pool.open(tmp_path / "pool").find("0005")["counted"] == counted
    assert Pool.open(tmp_path / "pool").state()["pairs"] == pairs


def test_a_label_where_there_was_none_enters_the_sums(tmp_path: Path) -> None:
    unlabelled = [item for item in members(range(120)) if not item[0].startswith("0005") or item[0].endswith("png")]
    write_tar(tmp_path / "s" / "0.tar", [item for item in unlabelled if not item[0].endswith("txt")])
    curate.grow(tmp_path / "s", tmp_path / "pool", options=OPTIONS)
    assert not Pool.open(tmp_path / "pool").find("0005")["counted"]
    curate.review(tmp_path / "pool", [{"key": "0005", "action": "relabel", "label": "sideways"}])
    row = Pool.open(tmp_path / "pool").find("0005")
    assert (row["label"], row["label_original"], row["counted"], row["decision"]) == ("sideways", None, True, "admit")
    rows = Pool.open(tmp_path / "pool").frame(["label"])["label"]
    assert rows.null_count() == 0
    assert_label_sums_are_those_of_the_rows(tmp_path / "pool")


def test_a_review_that_cannot_be_is_refused_whole(pool: Path) -> None:
    version = Pool.open(pool).version
    bad: list[tuple[list[dict[str, str]], type[Exception], str]] = [
        ([], UsageError, "holds no decision"),
        ([{"action": "drop"}], UsageError, "decision 1 of the review names no sample"),
        ([{"key": "0001", "action": "drop"}, {"key": "0002", "action": "eat"}], UsageError, r"decision 2 .*'eat'"),
        ([{"key": "0001", "action": "relabel"}], UsageError, "gives no label"),
        ([{"key": "9999", "action": "drop"}], KeyNotFoundError, "9999"),
    ]
    for decisions, error, words in bad:
        with pytest.raises(error, match=words):
            curate.review(pool, decisions)
    assert Pool.open(pool).version == version


def test_the_command_reads_a_table(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("key,action,label\n0003,drop,\n0004,relabel,west\n")
    run = [sys.executable, "-c", "from planted_world import encoders\nfrom curate.__main__ import main\n"
           "import sys\nwith encoders():\n    sys.exit(main())"]  # fmt: skip
    done = subprocess.run(
        [*run, "review", str(pool), str(tmp_path / "d.csv"), "--json"],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
        env={"PYTHONPATH": "../kernels:../selectors:..:.", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drop"] == 1
    assert found(pool)["0004"][2] == "west"
