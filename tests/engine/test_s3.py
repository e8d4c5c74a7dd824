"""A pool in an object store is the pool on disk: same rows, same manifests, same undoing, one writer."""

from __future__ import annotations

import json
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pictures import captioned_tar, jpeg, picture, write_folder
from stores import upload

import curate
import curate.pool.lock
import curate.pool.writer
from curate.engine.timeline import diff
from curate.errors import PoolError, PoolLockedError
from curate.pool import Pool, Writer
from curate.pool.lock import Lease
from curate.remote import Remote, place

OPTIONS = {"limits": {"batch_size": 8}, "clean": {"captions": False, "labels": False}}
MARKER = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=80))


class Crash(BaseException):
    """Stands for a process that is killed."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3") / "shards"
    captioned_tar(folder / "0.tar", range(12))
    captioned_tar(folder / "1.tar", range(10, 24))
    return folder


@pytest.fixture(scope="module")
def near(source: Path) -> Path:
    curate.grow(source, source.parent / "pool", options=OPTIONS)
    return source.parent / "pool"


@pytest.fixture(scope="module")
def far(source: Path, bucket: str) -> str:
    curate.grow(source, f"{bucket}/pool", options=OPTIONS)
    return f"{bucket}/pool"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate.pool.lock, "_LEASE", 1.5)


def files(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place(folder).iterdir()}


def test_rows_versions_and_manifests_are_those_of_a_local_pool(near: Path, far: str, tmp_path: Path) -> None:
    assert Pool.open(far).frame().equals(Pool.open(near).frame())
    assert [entry["what"] for entry in curate.log(far)] == [entry["what"] for entry in curate.log(near)]
    curate.select_from_pool(near, tmp_path / "near", method="infogrowth", budget="30%")
    curate.select_from_pool(far, tmp_path / "far", method="infogrowth", budget="30%")
    curate.select_from_pool(far, f"{far}-subset", method="infogrowth", budget="30%")
    assert files(tmp_path / "near") == files(tmp_path / "far") == files(f"{far}-subset")
    assert curate.read_manifest(f"{far}-subset").equals(curate.read_manifest(tmp_path / "near"))
    uid = Pool.open(near).frame(["uid"])["uid"][3]
    assert curate.why(far, uid) == curate.why(near, uid)
    assert not place(f"{far}/write.lock").exists()


def test_growing_from_a_store_gives_the_same_rows_and_knows_them_again(source: Path, near: Path, bucket: str) -> None:
    shards = upload(source, f"{bucket}/shards")
    done = curate.grow(shards, f"{bucket}/all-far", options=OPTIONS)
    assert done.seen == 26
    assert Pool.open(f"{bucket}/all-far").frame().equals(Pool.open(near).frame())
    assert curate.grow(shards, f"{bucket}/all-far").known == 26
    for path in list(place(shards).iterdir()):
        path.unlink()
    moved = curate.grow(source, f"{bucket}/all-far")  # to where its local copy lies: same names, other times
    assert (moved.known, moved.total["rows"]) == (26, 26)


def test_a_killed_run_is_resumed_when_its_lease_has_run_out(
    source: Path, near: Path, bucket: str, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = f"{bucket}/killed"
    with monkeypatch.context() as patch:
        commit, commits = curate.pool.writer.Writer.append, 0

        def crash(self: Writer, *values: object) -> Pool:
            nonlocal commits
            commits += 1
            if commits == 2:
                self.save_sums(99, {})  # what a killed process leaves: state that no commit names
                raise Crash
            return commit(self, *values)  # type: ignore[arg-type]

        patch.setattr(curate.pool.writer.Writer, "append", crash)
        patch.setattr(Lease, "release", lambda self: self._stop.set())  # nor does it give back its lease
        with pytest.raises(Crash):
            curate.grow(source, pool, options=OPTIONS)
    with pytest.raises(PoolLockedError, match=r"written by process \d+ on .* runs out at \d\d:\d\d:\d\d UTC"):
        curate.grow(source, pool)
    time.sleep(1.6)
    done = curate.grow(source, pool)
    assert done.known == 8
    assert Pool.open(pool).frame().equals(Pool.open(near).frame())
    assert not any(path.name.startswith("00000099") for path in place(f"{pool}/state").iterdir())


def test_one_of_many_gets_a_lease(bucket: str, short: None) -> None:
    path = place(bucket) / "race" / "write.lock"
    assert isinstance(path, Remote)

    def take(_: int) -> Lease | None:
        lease = Lease(path)
        try:
            lease.acquire()
        except PoolLockedError:
            return None
        return lease

    with ThreadPoolExecutor(6) as threads:
        for _ in range(2):
            won = [lease for lease in threads.map(take, range(6)) if lease]
            assert len(won) == 1
            won[0]._stop.set()  # killed: nothing renews it, nobody gives it back
            time.sleep(1.6)


def test_a_lease_is_renewed_and_given_back(bucket: str, short: None) -> None:
    with Writer(f"{bucket}/renewed"):
        time.sleep(2.2)
        with pytest.raises(PoolLockedError, match="being written by process"), Writer(f"{bucket}/renewed"):
            pass
    with Writer(f"{bucket}/renewed") as writer:
        assert writer.pool() is None


@pytest.mark.parametrize("held", [b"", b'{"token": "another", "until": 1.0}'], ids=["free", "run out"])
def test_a_lease_whose_answer_was_lost_is_held(bucket: str, held: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(bucket) / "answer" / f"{len(held)}.lock"
    assert isinstance(path, Remote)
    if held:
        path.write_bytes(held)
    write = Remote.write_bytes

    def twice(self: Remote, data: bytes, **conditions: str) -> None:
        write(self, data, **conditions)
        write(self, data, **conditions)  # as it is tried again after the first answer was lost

    lease = Lease(path)
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "write_bytes", twice)
        lease.acquire()
    lease.check()
    lease.release()
    assert not path.exists()


def test_who_lost_its_lease_removes_no_old_versions(
    near: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = shutil.copytree(near, tmp_path / "pool")
    before = curate.log(pool), set(files(pool / "state"))
    with Writer(pool) as writer:
        transact = writer.commit

        def loses_it(*values: Any) -> Pool:
            done = transact(*values)
            monkeypatch.setattr(writer._lock, "check", lost)
            return done

        def lost() -> None:
            raise PoolLockedError("lost")

        monkeypatch.setattr(writer, "commit", loses_it)
        opened = Pool.open(pool)
        with pytest.raises(PoolLockedError, match="lost"):
            writer.purge(opened, "row < 0", opened.state() | {"step": 90})
    assert set(files(pool / "state")) > before[1]
    assert all(entry in curate.log(pool) for entry in before[0])


def test_who_lost_its_lease_commits_nothing(far: str, bucket: str, short: None) -> None:
    with Writer(f"{bucket}/lost") as writer:
        stolen = {"pid": 1, "host": "elsewhere", "token": "another", "until": time.time() + 60}
        place(f"{bucket}/lost/write.lock").write_bytes(json.dumps(stolen).encode())  # type: ignore[union-attr]
        time.sleep(0.8)
        with pytest.raises(PoolLockedError, match="taken over by process 1 on elsewhere"):
            writer.create(4, {"step": 0})
    assert json.loads(place(f"{bucket}/lost/write.lock").read_bytes())["token"] == "another"
    assert not place(f"{bucket}/lost/samples.lance").exists()


def test_a_commit_in_between_is_found(near: Path, bucket: str) -> None:
    pool = upload(near, f"{bucket}/between")
    with Writer(pool) as writer:
        opened = Pool.open(pool)
        state = opened.state() | {"step": 90}
        writer.touch(opened, state)
        with pytest.raises(PoolError, match="another process wrote"):
            writer.touch(opened, state | {"step": 91})


def test_going_back_and_names_of_versions(near: Path, bucket: str) -> None:
    pool = upload(near, f"{bucket}/undone")
    curate.tag(pool, "early", 3)
    newest = Pool.open(pool).version
    done = curate.rollback(pool, "early")
    assert (done["version"], done["equals"]) == (newest + 1, 3)
    assert Pool.open(pool).frame().equals(Pool.open(pool, 3).frame())
    assert diff(pool, newest, done["version"])["gone"] == 26 - done["rows"]


def test_nothing_is_left_of_a_forgotten_row(tmp_path: Path, bucket: str) -> None:
    images = {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(8)}
    lines = ["file_name,caption", *(f"{name},{MARKER if name == '05.jpg' else name}" for name in images)]
    write_folder(tmp_path / "named", images | {"metadata.csv": "\n".join(lines).encode()})
    pool = f"{bucket}/forgetting"
    curate.grow(tmp_path / "named", pool, options=OPTIONS)
    uid = Pool.open(pool).find("05.jpg")["uid"]
    (place(pool) / "captions" / "of-a-model.jsonl").write_bytes(json.dumps({"caption": MARKER}).encode())
    assert "captions/of-a-model.jsonl" in places(pool, MARKER)
    done = curate.forget(pool, keys=["05.jpg"])
    assert done.forgotten == 1
    assert places(pool, MARKER) == places(pool, uid) == []
    write_folder(tmp_path / "again", {"other.jpg": images["05.jpg"]})
    assert curate.grow(tmp_path / "again", pool).refused == {"forgotten": 1}
    assert Pool.open(pool).rows == 7
    assert any(entry.get("gone") for entry in curate.log(pool))


def places(pool: str, needle: str) -> list[str]:
    root = place(pool)
    assert isinstance(root, Remote)
    return [name for name, _ in root.find() if needle.encode() in place(pool, name).read_bytes()]


def test_a_pool_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(PoolError, match="no pool at s3://bucket/none"):
        Pool.open(f"{bucket}/none")
    with pytest.raises(PoolError, match=r"cannot be written.*no such bucket"), Writer("s3://nowhere/pool"):
        pass
