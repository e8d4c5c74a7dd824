"""A pool on a full disk, on a read-only one, and read while it is written."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import captioned_tar, jpeg, picture, write_folder
from toys import toy_encoders

import curate
from curate.engine.describe import describe
from curate.errors import PoolError
from curate.pool import Pool, Writer

OPTIONS = {"limits": {"batch_size": 24}, "clean": {"warmup": 64, "checkpoint_growth": 1.2}}
DECIDED = ["uid", "row", "batch", "decision", "reason", "duplicate_of", "history", "pvi", "gain"]
SIZE = 4 << 20
HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    with toy_encoders():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("storage")
    captioned_tar(base / "one.tar", range(72))
    write_folder(base / "two", {f"{i:03d}.jpg": jpeg(picture(i)[0]) for i in range(80, 84)})
    curate.grow(base / "one.tar", base / "pool", options=OPTIONS)
    curate.tag(base / "pool", "early")
    curate.grow(base / "two", base / "pool")
    return base


def decided(pool: Path) -> Any:
    return Pool.open(pool).frame(DECIDED)


def mount(*arguments: str) -> bool:
    try:
        return not subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)):
        pytest.skip("this user may not mount; a file-size limit stands in: test_a_limit_on_file_sizes…")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(disk: Path, free: int) -> Iterator[None]:
    """Leave so many bytes free."""
    stat = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(stat.f_bavail * stat.f_frsize - free, 0)))
    try:
        yield
    finally:
        (disk / "filler").unlink()


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes; Python ignores the signal, so that writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("free", [0, 16 << 10, 120 << 10])
def test_a_full_disk_is_a_named_error_and_the_run_resumes(free: int, base: Path, disk: Path) -> None:
    pool = disk / "pool"
    with filled(disk, free), pytest.raises(PoolError, match="no space left on its disk: free some and run the same"):
        curate.grow([base / "one.tar", base / "two"], pool, options=OPTIONS)
    curate.grow(base / "one.tar", pool, options=OPTIONS)
    curate.grow(base / "two", pool)
    assert decided(pool).equals(decided(base / "pool"))


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "grow": lambda base, pool: curate.grow(write_folder(pool.parent / "s", {"n.jpg": jpeg(picture(99)[0])}), pool),
    "score": lambda base, pool: curate.score_pool(pool, ["novelty"]),
    "forget": lambda base, pool: curate.forget(pool, keys=["00003"]),
    "rollback": lambda base, pool: curate.rollback(pool, "early"),
    "tag": lambda base, pool: curate.tag(pool, "late"),
}


@pytest.mark.parametrize("name", ["score", "forget", "rollback", "tag"])
def test_a_full_disk_changes_nothing_else(name: str, base: Path, disk: Path) -> None:
    pool = shutil.copytree(base / "pool", disk / "pool")
    before = Pool.open(pool).frame()
    with filled(disk, 0), pytest.raises(PoolError, match="no space left"):
        CHANGES[name](base, pool)
    assert Pool.open(pool).frame().equals(before)
    CHANGES[name](base, pool)


@pytest.mark.parametrize("size", [1_000, 6_000])
def test_a_limit_on_file_sizes_is_a_named_error_and_the_run_resumes(size: int, base: Path, tmp_path: Path) -> None:
    with limited(size), pytest.raises(PoolError, match="larger than this process may write"):
        curate.grow(base / "one.tar", tmp_path / "pool", options=OPTIONS)
    curate.grow(base / "one.tar", tmp_path / "pool", options=OPTIONS)
    curate.grow(base / "two", tmp_path / "pool")
    assert decided(tmp_path / "pool").equals(decided(base / "pool"))


@pytest.fixture
def frozen(base: Path, tmp_path: Path) -> Iterator[Path]:
    """A pool that cannot be written: no permission, or for root, whom permissions do not bind, a read-only mount."""
    pool = shutil.copytree(base / "pool", tmp_path / "pool")
    if os.geteuid():
        for path in (pool, *pool.rglob("*")):
            path.chmod(path.stat().st_mode & 0o555)
        yield pool
        for path in (pool, *pool.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
    elif mount("--bind", str(pool), str(pool)) and mount("-o", "remount,bind,ro", str(pool)):
        yield pool
        subprocess.run(["umount", "--lazy", str(pool)], check=True)
    else:
        pytest.skip("root that may not mount: nothing makes a folder read-only")


def test_a_read_only_pool_is_read(frozen: Path, base: Path, tmp_path: Path) -> None:
    assert describe(frozen)["rows"] == 76
    assert len(curate.log(frozen)) > 4
    assert curate.why(frozen, "00010")["decision"] == "admit"
    assert curate.diff(frozen, "early", Pool.open(frozen).version)["added"]["rows"] == 4
    curate.select_from_pool(frozen, tmp_path / "subset", method="infogrowth", budget="30%")
    assert curate.read_manifest(tmp_path / "subset").height
    assert curate.replay(frozen)["equal"]


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_writing_a_read_only_pool_is_a_named_error(name: str, frozen: Path, base: Path) -> None:
    with pytest.raises(
        PoolError, match=r"cannot be written: (its file system is read-only|this user has no permission)"
    ):
        CHANGES[name](base, frozen)
    assert decided(frozen).equals(decided(base / "pool"))


def test_a_pool_is_read_while_another_writes(base: Path) -> None:
    with Writer(base / "pool"):
        assert describe(base / "pool")["rows"] == 76


READER = """
import json, sys, time
from pathlib import Path
from curate.errors import PoolError
from curate.pool import Pool
pool, stop = Path(sys.argv[1]), Path(sys.argv[2])
told = {"reads": 0, "versions": [], "errors": [], "torn": [], "held": "", "slowest": 0.0}
held = Pool.open(pool)
before = held.frame()
Path(sys.argv[3]).touch()
while not stop.exists() or not told["reads"]:
    start = time.monotonic()
    try:
        opened = Pool.open(pool)
        table, state = opened.frame(["row", "decision"]), opened.state()
        embeddings = opened.embeddings("image")
        if not table.height == state["rows"] == len(embeddings) or table["row"].to_list() != list(range(table.height)):
            told["torn"].append([opened.version, table.height, state["rows"], len(embeddings)])
        told["versions"].append(opened.version)
    except PoolError as error:
        told["errors"].append(str(error))
    told["reads"] += 1
    told["slowest"] = max(told["slowest"], time.monotonic() - start)
try:
    told["held"] = "same" if held.frame().equals(before) else "other"
except PoolError as error:
    told["held"] = str(error)
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.parametrize("takedown", [False, True], ids=["kept", "purged"])
def test_readers_see_one_version_through_every_change(takedown: bool, base: Path, tmp_path: Path) -> None:
    pool = shutil.copytree(base / "pool", tmp_path / "pool")
    paths = [str(HERE.parents[1] / part) for part in (".", "kernels", "selectors")]
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(pool), str(tmp_path / "stop"), str(tmp_path / "ready")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "ready").exists() and reader.poll() is None:
        pass
    more = write_folder(tmp_path / "more", {f"{i:03d}.jpg": jpeg(picture(i)[0]) for i in range(300, 350)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.pool.writer._COMPACT_ABOVE", 2)  # every checkpoint, and every second batch, compacts
        curate.grow(more, pool)
        curate.score_pool(pool, ["novelty"])
        if takedown:
            curate.forget(pool, keys=["00003", "00010", "301.jpg"], refill=True)
        else:
            curate.rollback(pool, "early")
    (tmp_path / "stop").touch()
    told = json.loads(reader.communicate()[0])
    assert told["torn"] == []
    assert told["versions"] == sorted(told["versions"])
    if takedown:
        assert told["held"] == "same" or "cannot be read" in told["held"]
        assert all("cannot be read" in error or "read" in error for error in told["errors"])
    else:
        assert (told["held"], told["errors"]) == ("same", [])
