"""Decode processes: the same results as threads, and what one image does to its process costs that image only."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import jpeg, picture, write_folder
from toys import toy_encoders

import curate
from curate.cleaning import Quality
from curate.crops import Crop
from curate.engine import decoders as module
from curate.engine.arrivals import Arrival
from curate.engine.decoders import Decoders
from curate.engine.examine import Examined, Terms, examine
from curate.engine.prepare import prepared_batches
from curate.errors import PoolMismatchError, WorkerError
from curate.recipe import CleanTable, Recipe
from curate.samples import Sample

CROP = Crop(16, 24)
TERMS = Terms(1_000_000, 24, CleanTable())
GOOD = [jpeg(picture(seed)[0]) for seed in range(6)]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRY", "fatal")


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture
def started(fatal: None) -> Iterator[Decoders]:
    before = children()
    decoders = Decoders(1, TERMS, CROP, 2.0)
    yield decoders
    decoders.close()
    assert children() <= before


def same(one: Examined, other: Examined) -> bool:
    if one.crop is None or other.crop is None:
        return one == other
    return one.as_dict() == other.as_dict() and np.array_equal(one.crop, other.crop)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_process_that_does_not_start_holds_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = sorted(os.listdir("/proc/self/fd"))
    for owner, name in ((os, "memfd_create"), (os, "truncate"), (module.mmap, "mmap"), (subprocess, "Popen"),
                        (module.socket, "socketpair")):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            with pytest.raises(WorkerError, match="does not start"):
                Decoders(1, TERMS, CROP, 2.0)
        assert sorted(os.listdir("/proc/self/fd")) == before, name


def test_processes_give_what_threads_give() -> None:
    images = [*GOOD, b"", b"no image", GOOD[0][:500], jpeg(picture(0)[0].resize((10, 10)))]
    decoders = Decoders(2, TERMS, CROP, 20.0)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(decoders.examine, images * 3))
    finally:
        decoders.close()
    here = [examine(data, TERMS, CROP) for data in images] * 3
    assert all(map(same, found, here))
    assert [one.reason for one in here[:10]] == [""] * 6 + ["undecodable"] * 3 + ["too_small"]
    assert isinstance(found[0].quality, Quality)
    assert found[0].crop is not None
    assert found[0].crop.shape == (16, 24, 3)


def test_what_kills_or_hangs_its_process_costs_itself_only(fatal: None) -> None:
    decoders = Decoders(2, TERMS, CROP, 2.0)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(decoders.examine, [GOOD[0], b"!KILL", GOOD[1], b"!HANG", GOOD[2]]))
    finally:
        decoders.close()
    assert [one.reason for one in found] == ["", "decoder_crash", "", "decode_timeout", ""]
    assert "signal 9" in found[1].detail
    assert "2 s" in found[3].detail
    assert all(same(found[i], examine(GOOD[i // 2], TERMS, CROP)) for i in (0, 2, 4))


def test_image_whose_process_died_once_is_kept(started: Decoders, tmp_path: Path) -> None:
    found = started.examine(b"!ONCE" + os.fsencode(tmp_path / "mark") + b"\n" + GOOD[0])
    assert (tmp_path / "mark").exists()
    assert same(found, examine(GOOD[0], TERMS, CROP))


def test_process_killed_from_outside_costs_nothing(started: Decoders) -> None:
    assert started.examine(GOOD[0]).reason == ""
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    assert [started.examine(data).reason for data in GOOD] == [""] * 6


def test_fault_of_our_own_ends_the_run_and_refuses_nothing(started: Decoders) -> None:
    with pytest.raises(WorkerError, match="NotImplementedError: a bug"):
        started.examine(b"!ERROR")


def test_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRY", "no_such_module")
    decoders = Decoders(1, TERMS, CROP, 20.0)
    with pytest.raises(WorkerError, match=r"does not start.*exit status 1.*workers = 0"):
        decoders.examine(GOOD[0])
    decoders.close()


class Place:
    id, root, kind, fingerprint, count = "s", "/", "folder", "0", None


class Encoder:
    """Only what preparing needs."""

    name, crop = "none", CROP

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        return CROP(pixels)


def arrivals(images: list[bytes], size: int) -> Iterator[list[Arrival]]:
    samples = [Sample("s", str(i), f"{i}", 0, 0, data) for i, data in enumerate(images)]
    rows = [Arrival(sample, f"{i:032x}", "", Place, i) for i, sample in enumerate(samples)]
    yield from (rows[i : i + size] for i in range(0, len(rows), size))


def shown(batches: Iterator[list[object]]) -> list[list[tuple[object, ...]]]:
    return [[(p.arrival.uid, p.reason, p.pixel_hash, p.quality, p.crop is None or p.crop.tobytes()) for p in batch]
            for batch in batches]  # fmt: skip


def test_batches_keep_their_order_whoever_decodes(fatal: None) -> None:
    images = [*GOOD, b"!KILL", *GOOD[::-1], b"rubbish"]
    threads, processes = (
        shown(prepared_batches(arrivals(images, 5), Encoder(), Recipe().replace({"encode": {"workers": count}})))
        for count in (0, 2)
    )
    assert [len(batch) for batch in processes] == [5, 5, 4]
    assert processes[1][1][1] == "decoder_crash"
    assert threads[1][1][1] == "undecodable"  # the mark is no image, where nothing acts on it
    del processes[1][1], threads[1][1]
    assert processes == threads


def test_small_streams_start_no_process_and_long_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    monkeypatch.setattr("curate.engine.prepare.Decoders", lambda count, *given: counts.append(count) or 1 / 0)
    assert len(list(prepared_batches(arrivals(GOOD, 4), Encoder(), Recipe()))) == 2
    with pytest.raises(ZeroDivisionError):
        list(prepared_batches(arrivals([b""] * 300, 100), Encoder(), Recipe()))
    assert len(counts) == 1
    assert counts[0] >= 1


def test_batches_closed_halfway_leave_no_process(fatal: None) -> None:
    before = children()
    batches = prepared_batches(
        arrivals([*GOOD, b"!HANG", *GOOD], 6), Encoder(), Recipe().replace({"encode": {"workers": 1}})
    )
    assert len(next(batches)) == 6
    assert children() > before
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 5  # not the 20 seconds that the hanging image has
    assert children() == before


SCRIPT = """
import sys, time, psutil
from curate.crops import Crop
from curate.engine import decoders
from curate.engine.examine import Terms
from curate.recipe import CleanTable
decoders.ENTRY = "fatal"
crew = decoders.Decoders(1, Terms(1_000_000, 0, CleanTable()), Crop(16, 24), {seconds})
assert crew.examine(b"").reason == "undecodable"
print(*[child.pid for child in psutil.Process().children()], flush=True)
crew.examine(b"!HANG") if {hang} else time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_their_parent_however_it_ends(number: signal.Signals) -> None:
    """Also one that hangs when its parent is killed: it ends itself after twice the time that an image has."""
    hang = number == signal.SIGKILL
    paths = [ROOT, ROOT / "kernels", ROOT / "selectors", ROOT / "tests"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    code = SCRIPT.format(seconds=1.0 if hang else 20.0, hang=hang)
    before = shared_memory()
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 1
        time.sleep(0.2)
        parent.send_signal(number)
        parent.wait(10)
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if running(pid)]
    assert not [name for name in shared_memory() - before if "curate" in name]


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_pool_goes_on_decoding_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of reduced and of whole pixels never mix; a pool from before there was a choice holds whole ones."""
    folder = write_folder(tmp_path / "pictures", {f"{seed}.jpg": data for seed, data in enumerate(GOOD)})
    with toy_encoders():
        curate.grow(folder, tmp_path / "pool")
        with pytest.raises(PoolMismatchError, match=r"encode\.decode: 'full' != 'reduced'.*grow a new pool"):
            curate.grow(folder, tmp_path / "pool", options={"encode": {"decode": "full"}}, change_recipe=True)
        assert curate.grow(folder, tmp_path / "pool", options={"encode": {"workers": 0}}).known == len(GOOD)
    pool = curate.Pool.open(tmp_path / "pool")
    assert "workers" not in pool.state()["recipe"]["encode"]
    read = curate.Pool._read_state
    monkeypatch.setattr(curate.Pool, "_read_state", lambda *given: read(*given).replace(b'"decode":"reduced",', b""))
    assert pool.state()["recipe"]["encode"]["decode"] == "full"


@pytest.mark.slow
def test_a_run_with_processes_decides_what_one_with_threads_does(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(24):
        (folder / f"{seed:03d}.jpg").write_bytes(jpeg(picture(seed)[0]) if seed % 7 else b"rubbish")
    columns = ["uid", "decision", "reason", "pixel_hash", "phash", "quality_sharpness", "gain"]
    tables = []
    for workers in (0, 2):
        options = {"encode": {"workers": workers}, "limits": {"batch_size": 10}}
        curate.grow(folder, tmp_path / f"pool{workers}", options=options)
        pool = curate.Pool.open(tmp_path / f"pool{workers}")
        tables.append((pool.frame(columns), pool.embeddings("image").tobytes(), pool.state()["recipe"]))
    assert tables[0][0].equals(tables[1][0])
    assert tables[0][1:] == tables[1][1:]
