"""Pools whose embeddings are given by their sources: the whole engine, and no image anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
    for name in ("curate.engine.prepare.decode", "curate.engine.binding.decode", "curate.stored.decode"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("an image was read"))
    for name in ("load_image_encoder", "load_text_encoder"):
        monkeypatch.setattr(f"curate.engine.binding.{name}", lambda *_: pytest.fail("an encoder was loaded"))


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
    table = opened.frame(names)
    vectors = [pl.Series(view, opened.embeddings(view).tobytes().hex()[:0] or [r.tobytes().hex() for r in
               opened.embeddings(view)]) for view in ("image", "text")]  # fmt: skip
    return table.with_columns(vectors)


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
    urls = {world.uid(i): f"http://example.org/{world.seed}/{i}.jpg" for world in (FIRST, SECOND) for i in range(world.n)}
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
    assert (answer["reason"], answer["detail"]) == ("bad_embedding", "its vector, or its caption's, is zero or not finite")
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
