"""Mending: what a gate refused gets a better caption or label, is judged like any other, and tells what it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pictures import write_tar
from planted_world import NumberEncoder, encoders, label, numbers, png, read_numbers, said

import curate
from curate.engine import captioning
from curate.errors import EncoderError
from curate.pool import Pool, Writer
from curate.scoring.moments import ClassMoments, PairMoments

ROWS = 480
OPTIONS = {"limits": {"batch_size": 32}, "clean": {"warmup": 96, "checkpoint_growth": 1.6}}
RNG = np.random.default_rng(3)
MISCAPTIONED = {int(i): int(i + RNG.integers(1, 399)) for i in RNG.choice(ROWS, 72, replace=False)}
MISLABELLED = {int(i): label(int(i + RNG.integers(1, 4))) for i in RNG.choice(ROWS, 48, replace=False)}
MARKER = "zqxvkjwpt"  # behind the numbers of one wrong caption, so that a search finds it


@pytest.fixture(scope="module", autouse=True)
def text_encoder() -> Iterator[NumberEncoder]:
    with encoders() as text:
        yield text


def members(seeds: Sequence[int], helpful: bool = True, start: int = 0) -> list[tuple[str, bytes]]:
    """Return pictures with several captions each, where `helpful` the true one among them, and labels."""
    out = []
    for seed in seeds:
        wrong = said(MISCAPTIONED[seed]) if seed in MISCAPTIONED else None
        if seed == FORGOTTEN:
            wrong = f"{wrong} {MARKER}"
        others = [said(9000 + 2 * seed), *([said(seed)] if helpful and wrong else []), said(9001 + 2 * seed)]
        captions = json.dumps({"caption": [wrong or said(seed), *others]}).encode()
        name = f"{seed + start:05d}"
        out += [(f"{name}.png", png(seed)), (f"{name}.json", captions)]
        out += [(f"{name}.cls", (MISLABELLED.get(seed) or label(seed)).encode())]
    return out


FORGOTTEN = min(MISCAPTIONED)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tar(tmp_path_factory.mktemp("mend") / "s" / "0.tar", members(range(ROWS)))


@pytest.fixture(scope="module")
def mended(source: Path) -> Path:
    curate.grow(source, source.parent.parent / "pool", options=OPTIONS)
    return source.parent.parent / "pool"


@pytest.fixture
def copy(mended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mended, tmp_path / "pool"))


def table(pool: Path) -> pl.DataFrame:
    """Return the rows with the truth: their seed, caption and label as they ought to be."""
    rows = Pool.open(pool).frame()
    seeds = rows["key"].cast(int).to_list()
    truth = {"seed": seeds, "said": [said(seed) for seed in seeds], "is": [label(seed) for seed in seeds]}
    return rows.with_columns(**{name: pl.Series(values) for name, values in truth.items()})


def entries(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in json.loads(row["history"]) if entry["decision"] == "mend"]


def test_wrong_captions_give_way_to_the_true_one_among_the_alternatives(mended: Path) -> None:
    rows = table(mended)
    wrong = rows.filter(pl.col("seed").is_in(list(MISCAPTIONED)))
    changed = rows.filter(pl.col("caption_original").is_not_null())
    assert (wrong["caption"] == wrong["said"]).mean() > 0.95
    assert (changed["caption"] == changed["said"]).mean() > 0.98
    assert (changed["decision"] == "admit").mean() > 0.9
    for row in changed.iter_rows(named=True):
        assert row["caption_original"] != row["caption"]
        assert row["caption"] in row["alternatives"]
        assert row["mend_tried"] == ["alternatives"]


def test_good_captions_are_not_lost_more_often_because_others_were_mended(mended: Path) -> None:
    good = table(mended).filter(~pl.col("seed").is_in(list(MISCAPTIONED)))
    assert (good["caption"] == good["said"]).mean() > 0.98
    assert (good["reason"] == "caption_mismatch").mean() < 0.08


def test_flipped_labels_are_set_right_where_that_is_sure(mended: Path) -> None:
    rows = table(mended)
    changed = rows.filter(pl.col("label_original").is_not_null())
    wrong = rows.filter(pl.col("seed").is_in(list(MISLABELLED)))
    assert (changed["label"] == changed["is"]).mean() > 0.95
    assert (wrong["label"] == wrong["is"]).mean() > 0.8
    assert changed["label_original"].to_list() == [MISLABELLED.get(seed) for seed in changed["seed"]]


def test_the_history_tells_rectifier_scores_and_threshold(mended: Path) -> None:
    rows = table(mended).filter(pl.col("caption_original").is_not_null() | pl.col("label_original").is_not_null())
    for row in rows.iter_rows(named=True):
        for entry in entries(row):
            if entry["reason"] == "alternatives":
                assert entry["pvi_before"] < entry["thresholds"]["pvi"] <= entry["pvi"]
            else:
                assert entry["reason"] == "relabel"
                assert entry["s1_label_before"] > entry["s1_label"] <= entry["thresholds"]["s1_label"]
                assert entry["confidence"] >= 0.9
        assert len({entry["reason"] for entry in entries(row)}) == len(entries(row)) >= 1


def test_why_and_manifest_show_what_became_of_a_caption(mended: Path, tmp_path: Path) -> None:
    uid, key, true = table(mended).filter(pl.col("caption_original").is_not_null())["uid", "key", "said"].row(0)
    answer = curate.why(mended, uid)
    assert (answer["caption"], answer["mended"][0]["reason"]) == (true, "alternatives")
    assert answer["caption_original"].startswith(said(MISCAPTIONED[int(key)]))
    curate.select_from_pool(mended, tmp_path / "m", method="random", budget="100%")
    manifest = curate.read_manifest(tmp_path / "m")
    stored = table(mended).filter(pl.col("decision") == "admit")
    expected = dict(stored["uid", "caption"].iter_rows())
    assert dict(manifest["uid", "caption"].iter_rows()) == expected
    assert dict(manifest["uid", "label"].iter_rows()) == dict(stored["uid", "label"].iter_rows())


def assert_sums_are_those_of_the_stored_rows(pool: Path) -> None:
    opened = Pool.open(pool)
    state, rows = opened.state(), opened.frame(["counted", "label", "caption", "embedded"])
    image, text = opened.embeddings("image"), opened.embeddings("text")
    fresh = np.array(NumberEncoder().encode(rows["caption"].to_list())).astype(np.float16).astype(np.float32)
    assert np.array_equal(text, fresh)  # every vector is that of the caption beside it
    counted = rows["counted"].to_numpy()
    pairs, labels = PairMoments.zeros(64, 8), ClassMoments.zeros(64)
    pairs.add(image[counted], text[counted])
    number = np.array([state["classes"].index(name) for name in rows["label"]])
    labels.add(image[counted], number[counted], len(state["classes"]))
    for name, scratch in (("pairs", pairs.arrays()), ("labels", labels.arrays())):
        saved = opened.sums(state["checkpoint"]["sums"][name])
        for key, value in scratch.items():
            np.testing.assert_allclose(saved[key], value, atol=1e-9 * max(1.0, np.abs(value).max()))
    assert (state["pairs"], state["labels"]) == (pairs.n, labels.count.sum())


def test_the_sums_are_those_of_the_stored_rows(mended: Path) -> None:
    assert_sums_are_those_of_the_stored_rows(mended)


def test_a_takedown_subtracts_the_mended_pair_and_leaves_nothing_of_the_first(copy: Path) -> None:
    row = Pool.open(copy).find(f"{FORGOTTEN:05d}")
    assert row["caption_original"].endswith(MARKER)
    found = [path for path in copy.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    assert found
    relabelled = table(copy).filter(pl.col("label_original").is_not_null())["uid"][0]
    assert curate.forget(copy, keys=[row["uid"], relabelled]).forgotten == len({row["uid"], relabelled})
    assert_sums_are_those_of_the_stored_rows(copy)
    assert not [path for path in copy.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]


def test_only_fragments_that_hold_such_rows_are_rewritten_in_columns_of_some_rows(tmp_path: Path) -> None:
    captioned = write_tar(tmp_path / "0.tar", members(range(96)))
    curate.grow(captioned, tmp_path / "pool", options={"limits": {"batch_size": 32}}, finish=False)
    before = Pool.open(tmp_path / "pool")
    with Writer(tmp_path / "pool") as writer:
        uids = before.frame(["uid"])["uid"].to_list()
        text = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(16, dtype=np.float16)), 8)
        some = (np.array([3, 70]), pa.table({"caption": ["new", None], "text": text}))
        state = before.state() | {"step": before.state()["step"] + 1}
        writer.update(before, pa.table({"uid": uids, "detail": ["judged"] * 96}), state, [some])
    after = Pool.open(tmp_path / "pool")
    captions = before.frame(["caption"])["caption"].to_list()
    captions[3], captions[70] = "new", None
    vectors = before.embeddings("text")
    vectors[[3, 70]] = 1
    assert after.frame(["caption"])["caption"].to_list() == captions
    assert np.array_equal(after.embeddings("text"), vectors)
    assert (after.frame(["detail"])["detail"] == "judged").all()
    old, new = ([file_of(part, "text") for part in pool.dataset.get_fragments()] for pool in (before, after))
    assert [ours == theirs for ours, theirs in zip(old, new, strict=True)] == [False, True, False]


def file_of(fragment: Any, column: str) -> str:
    """Return the data file in which a fragment keeps a column."""
    number = [field.name() for field in fragment._ds.lance_schema.fields()].index(column)
    field = fragment._ds.lance_schema.fields()[number].id()
    return next(str(file.path) for file in fragment.data_files() if field in file.fields)


def test_nothing_is_tried_twice(source: Path, copy: Path, text_encoder: NumberEncoder, tmp_path: Path) -> None:
    before, version = len(text_encoder.read), Pool.open(copy).version
    curate.grow(source, copy)
    assert (len(text_encoder.read), Pool.open(copy).version) == (before, version)
    more = write_tar(tmp_path / "more.tar", members(range(ROWS, ROWS + 64)))
    curate.grow(more, copy)
    tried = Pool.open(copy, version).frame(["mend_tried", "alternatives"]).filter(pl.col("mend_tried").is_not_null())
    assert tried.height > 60
    assert not set(tried["alternatives"].explode()) & set(text_encoder.read[before:])
    assert table(copy).filter((pl.col("row") >= ROWS) & pl.col("mend_tried").is_not_null()).height
    assert table(copy)["mend_tried"].list.len().max() == 1


def test_without_rectifiers_wrong_rows_stay_refused(source: Path, tmp_path: Path) -> None:
    off = {"mend": {"alternatives": False, "relabel": False}}
    curate.grow(source, tmp_path / "pool", options=OPTIONS | off)
    rows = table(tmp_path / "pool")
    assert rows["caption_original"].null_count() == rows["label_original"].null_count() == ROWS
    wrong = rows.filter(pl.col("seed").is_in(list(MISCAPTIONED)))
    assert (wrong["reason"] == "caption_mismatch").mean() > 0.8


class Crash(BaseException):
    """Stands for a process that stops at once."""


STEPS = [("update", 2, False), ("append", 9, True), ("update", 5, True), ("update", 6, False), ("_save", 33, False)]


@pytest.mark.parametrize(("name", "call", "after"), STEPS)
def test_a_crash_at_any_commit_changes_nothing(
    source: Path, mended: Path, tmp_path: Path, name: str, call: int, after: bool
) -> None:
    original, count = getattr(Writer, name), 0

    def dies(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count == call and not after:
            raise Crash
        result = original(*args, **kwargs)
        if count == call:
            raise Crash
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, name, dies)
        with pytest.raises(Crash):
            curate.grow(source, tmp_path / "pool", options=OPTIONS)
    curate.grow(source, tmp_path / "pool", options=OPTIONS)
    assert Pool.open(tmp_path / "pool").frame().equals(Pool.open(mended).frame())
    ours, theirs = (Pool.open(path).state()["checkpoint"]["sums"] for path in (tmp_path / "pool", mended))
    digests = [{part: name.rpartition("-")[2] for part, name in sums.items()} for sums in (ours, theirs)]
    assert digests[0] == digests[1]


SCRIPT = """
import json, sys, curate
from planted_world import encoders
with encoders():
    curate.grow(sys.argv[1], sys.argv[2], options=json.loads(sys.argv[3]))
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(source: Path, mended: Path, tmp_path: Path) -> None:
    pool, kills, rng = tmp_path / "pool", 0, np.random.default_rng(4)
    command = [sys.executable, "-c", SCRIPT, str(source), str(pool), json.dumps(OPTIONS)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    for _ in range(3):
        before = committed(pool)
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
        while process.poll() is None and committed(pool) < before + 6:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.2)))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    curate.grow(source, pool, options=OPTIONS)
    assert kills >= 2
    assert Pool.open(pool).frame().equals(Pool.open(mended).frame())


def committed(pool: Path) -> int:
    versions = pool / "samples.lance" / "_versions"
    return len(list(versions.glob("*.manifest"))) if versions.is_dir() else 0


def test_a_mended_copy_is_a_duplicate(source: Path, copy: Path, tmp_path: Path) -> None:
    """A kept picture again, with a wrong caption and its true one among the alternatives."""
    kept = table(copy).filter((pl.col("decision") == "admit") & pl.col("caption_original").is_null())["seed"].to_list()
    kept = [seed for seed in kept if seed not in MISLABELLED][:40]
    out = []
    for seed in kept:
        captions = json.dumps({"caption": [said(seed + 4001), said(seed)]}).encode()
        out += [(f"1{seed:04d}.png", png(seed)), (f"1{seed:04d}.json", captions)]
    curate.grow(write_tar(tmp_path / "copies.tar", out), copy)
    rows = Pool.open(copy).frame().filter(pl.col("source").str.ends_with("copies.tar"))
    changed = rows.filter(pl.col("caption_original").is_not_null())
    assert changed.height > 15
    assert (changed["reason"] == "exact_duplicate").all()
    twins = [Pool.open(copy).find(uid)["key"] for uid in changed["duplicate_of"]]
    assert [twin[-4:] for twin in twins] == [key[-4:] for key in changed["key"]]


# A captioner


class Reader:
    """A captioner that reads the numbers off its pictures, and counts them; it may be held up."""

    fingerprint, batch = "d" * 32, 8

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def caption(self, images: Sequence[np.ndarray]) -> list[str]:
        assert self.go.wait(60)
        made = [read_numbers(image) for image in images]
        self.asked += made
        return made


@pytest.fixture(scope="module")
def unhelpful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source of which no alternative is true."""
    return write_tar(tmp_path_factory.mktemp("reader") / "0.tar", members(range(240), helpful=False))


READING = OPTIONS | {"mend": {"captioner": "hf:reader"}}


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setattr(captioning, "load_captioner", lambda name: made)
    return made


def near(caption: str, seed: int) -> bool:
    return bool(np.abs(np.array([float(word) for word in caption.split()]) - numbers(seed)).max() < 0.5)


def test_a_captioner_describes_what_no_alternative_does(unhelpful: Path, reader: Reader, tmp_path: Path) -> None:
    curate.grow(unhelpful, tmp_path / "pool", options=READING)
    rows = table(tmp_path / "pool")
    wrong = rows.filter(pl.col("seed").is_in(list(MISCAPTIONED)))
    changed = rows.filter(pl.col("caption_original").is_not_null())
    assert np.mean([near(caption, seed) for caption, seed in wrong["caption", "seed"].iter_rows()]) > 0.85
    assert (changed.filter(~pl.col("seed").is_in(list(MISLABELLED)))["decision"] == "admit").mean() > 0.9
    assert {tuple(tried) for tried in changed["mend_tried"]} == {("alternatives", f"captioner {'d' * 32}")}
    made = [entry for row in changed.iter_rows(named=True) for entry in entries(row)]
    steps = {entry["checkpoint"] for entry in made if entry["reason"].startswith("captioner")}
    assert steps == {Pool.open(tmp_path / "pool").state()["step"]}  # in the last checkpoint alone
    assert len(reader.asked) < 120  # only what was refused


def test_the_stream_does_not_wait_for_the_captioner(unhelpful: Path, reader: Reader, tmp_path: Path) -> None:
    reader.go.clear()
    seen = []

    def progress(done: int, total: int | None) -> None:
        seen.append(done)
        if done == 240:  # the whole stream went by while not one caption was made
            assert not reader.asked
            reader.go.set()

    curate.grow(unhelpful, tmp_path / "pool", options=READING, progress=progress)
    assert seen[-1] == 240
    assert Pool.open(tmp_path / "pool").frame(["caption_original"])["caption_original"].is_not_null().sum() > 20


def test_a_killed_run_captions_nothing_twice(unhelpful: Path, reader: Reader, tmp_path: Path) -> None:
    curate.grow(unhelpful, tmp_path / "straight", options=READING)
    straight, calls = len(reader.asked), 0
    update = Writer.update

    def dies_at_the_last(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == len(checkpoints):
            raise Crash
        return update(*args, **kwargs)

    checkpoints = [entry for entry in curate.log(tmp_path / "straight") if entry["what"] == "checkpoint"]
    reader.asked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "update", dies_at_the_last)
        with pytest.raises(Crash):
            curate.grow(unhelpful, tmp_path / "killed", options=READING)
    (cache,) = (tmp_path / "killed" / "captions").iterdir()
    cache.write_bytes(cache.read_bytes() + b'{"sha256": "cut o')
    curate.grow(unhelpful, tmp_path / "killed", options=READING)
    assert len(reader.asked) == len(set(reader.asked))
    assert len(reader.asked) <= straight + 8
    assert Pool.open(tmp_path / "killed").frame().equals(Pool.open(tmp_path / "straight").frame())
    curate.forget(tmp_path / "killed", keys=["00001"])
    assert not list((tmp_path / "killed" / "captions").iterdir())


def test_what_is_gone_since_stays_refused(unhelpful: Path, reader: Reader, tmp_path: Path) -> None:
    moved = Path(shutil.copy(unhelpful, tmp_path / "0.tar"))

    def progress(done: int, total: int | None) -> None:
        if done == 240:
            moved.unlink()
            reader.go.set()

    reader.go.clear()
    done = curate.grow(moved, tmp_path / "pool", options=READING, progress=progress)
    assert done.refused["caption_mismatch"] > 10


def test_what_a_captioner_raises_ends_the_run(unhelpful: Path, reader: Reader, tmp_path: Path) -> None:
    def fails(images: object) -> list[str]:
        raise ValueError("out of words")

    reader.caption = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(ValueError, match="out of words"):
        curate.grow(unhelpful, tmp_path / "pool", options=READING)


def test_a_cache_that_cannot_be_written_ends_no_run(unhelpful: Path, reader: Reader, tmp_path: Path) -> None:
    curate.grow(unhelpful, tmp_path / "straight", options=READING)
    append = captioning.Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "a" in mode and self.parent.name == "captions":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return append(self, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioning.Path, "open", full)
        curate.grow(unhelpful, tmp_path / "pool", options=READING)
    assert Pool.open(tmp_path / "pool").frame().equals(Pool.open(tmp_path / "straight").frame())


@pytest.mark.parametrize("damage", [b"\xff\xfe{", b'"ab"', b"{}", b'{"sha256": "x", "caption": 5}', b"[" * 100_000])
def test_a_damaged_line_of_the_cache_is_passed_over(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "of-a-model.jsonl"
    file.write_bytes(damage + b'\n{"sha256": "y", "caption": "z"}\n')
    assert captioning._read(file) == {"y": "z"}


def test_a_captioner_is_loaded_for_who_needs_it_only(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = []

    def load(name: str) -> Reader:
        threads.append(threading.current_thread())
        raise EncoderError("no such captioner")

    monkeypatch.setattr(captioning, "load_captioner", load)
    good = write_tar(tmp_path / "0.tar", [part for i in range(8) for part in members([1000 + i])])
    curate.grow(good, tmp_path / "good", options=READING)
    assert threads == []
    with pytest.raises(EncoderError, match="no such captioner"):
        curate.grow(source, tmp_path / "pool", options=READING)
    assert threads
    assert threading.main_thread() not in threads
