"""Shards that appear while we look."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from pictures import captioned_tar, jpeg, picture, write_tar

import curate
from curate.engine.follow import Shards, follow
from curate.errors import SourceError, UsageError
from curate.pool import Writer

SMALL = {"limits": {"batch_size": 16}, "clean": {"captions": False, "labels": False}}


def shard(path: Path, seeds: range) -> None:
    write_tar(path, [(f"{i:03d}.jpg", jpeg(picture(i)[0])) for i in seeds])


def test_a_shard_is_complete_when_it_stopped_changing(tmp_path: Path) -> None:
    shards, path = Shards(tmp_path), tmp_path / "0.tar"
    path.write_bytes(b"half")
    assert shards.complete() == {}
    path.write_bytes(b"half and the rest")
    assert shards.complete() == {}
    assert list(shards.complete()) == [path]


def test_tables_beside_tars_are_no_shards(tmp_path: Path) -> None:
    for name in ("0.tar", "0.parquet", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    shards = Shards(tmp_path)
    shards.complete()
    assert [path.name for path in shards.complete()] == ["0.tar"]


def test_a_folder_that_is_gone_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot follow"):
        follow(tmp_path / "nothing", tmp_path / "pool")


def test_bad_and_unfinished_shards_do_not_end_the_following(tmp_path: Path) -> None:
    source, stop = tmp_path / "in", threading.Event()
    source.mkdir()
    (source / "bad.tar").write_bytes(b"this is no tar")
    (source / "empty.tar").touch()
    shard(source / "good.tar", range(3))
    seen: list[dict[str, object]] = []

    def status(figures: dict[str, object]) -> None:
        seen.append(figures)
        if figures["rounds"]:
            stop.set()

    follow(source, tmp_path / "pool", every=0.1, stop=stop, status=status, options=SMALL)
    assert (seen[-1]["rows"], seen[-1]["failed_shards"]) == (3, 1)


def test_a_pool_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    source, stop = tmp_path / "in", threading.Event()
    shard(source / "0.tar", range(3))
    curate.grow(source / "0.tar", tmp_path / "pool", options=SMALL)
    shard(source / "1.tar", range(3, 5))
    writer = Writer(tmp_path / "pool")
    writer.__enter__()
    looks = 0

    def status(figures: dict[str, object]) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            writer.__exit__(None, None, None)
        if figures["rounds"]:
            stop.set()

    last = follow(source, tmp_path / "pool", every=0.1, stop=stop, status=status, options=SMALL)
    assert last is not None
    assert last.total["rows"] == 5


def test_a_port_in_use_is_a_named_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="give another"):
            follow(tmp_path, tmp_path / "pool", metrics_port=int(taken.getsockname()[1]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_shards_are_taken_in_as_they_appear_and_metrics_tell(tmp_path: Path) -> None:
    source, pool, port = tmp_path / "in", tmp_path / "pool", free_port()
    source.mkdir()
    shard(source / "0.tar", range(4))
    stop, seen, metrics = threading.Event(), [], []

    def status(figures: dict[str, object]) -> None:
        if figures["shards"] == 1 and not (source / "1.tar").exists():
            shard(source / "1.tar", range(4, 9))
        if figures["shards"] == 2:
            metrics.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
            stop.set()
        seen.append(figures["rows"])

    last = follow(source, pool, every=0.1, stop=stop, status=status, metrics_port=port, options=SMALL)
    assert last is not None
    assert last.total["rows"] == seen[-1] == 9
    assert "curate_rows 9.0" in metrics[0]
    assert "curate_shards 2.0" in metrics[0]
    whole = tmp_path / "whole"
    curate.grow(source, whole, options=SMALL)
    columns = ["uid", "decision", "reason"]
    assert curate.Pool.open(pool).frame(columns).equals(curate.Pool.open(whole).frame(columns))


@pytest.mark.slow
def test_sigterm_ends_a_follower_cleanly(tmp_path: Path) -> None:
    source, pool = tmp_path / "in", tmp_path / "pool"
    source.mkdir()
    shard(source / "0.tar", range(3))
    command = [sys.executable, "-m", "curate", "grow", str(source), "--pool", str(pool), "--follow", "--every", "0.2"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert '"rows": 3' in process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert curate.Pool.open(pool).rows == 3


def test_images_alone_are_said_not_to_be_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = Shards(tmp_path)
    assert shards.complete() == {}
    assert not caplog.text
    (tmp_path / "a.jpg").write_bytes(b"image")
    assert shards.complete() == shards.complete() == {}
    assert caplog.text.count("nothing else is followed") == 1


def test_rows_that_wait_are_named_where_none_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    captioned_tar(tmp_path / "in" / "0.tar", range(8))
    stop = threading.Event()

    def status(figures: dict[str, object]) -> None:
        if figures["rounds"]:
            stop.set()

    follow(tmp_path / "in", tmp_path / "pool", every=0.01, stop=stop, status=status)
    with pytest.raises(UsageError, match="8 are held back: `curate grow` without --follow"):
        curate.select_from_pool(tmp_path / "pool", tmp_path / "m", budget=2)
