"""Bytes come from where the manifest says, near or far, in whatever process; what is not there is named."""

import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from pictures import write_folder
from stores import upload, web_server
from subsets import image_bytes, make_subset, seeds_of, tar_rows, write_rows

from curate import manifest, patience, stored
from curate.errors import ManifestError, RemoteDeniedError, SampleError
from curate.loaders import Subset, iterate, store
from curate.loaders.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_subset(tmp_path_factory.mktemp("store"))


def expected(opened: Subset, rows: list[int]) -> list[bytes]:
    return [image_bytes(seed) for seed in seeds_of(opened.values("uid", rows))]


def test_bytes_are_those_of_the_images_in_any_order(folder: Path) -> None:
    opened = Subset(folder)
    rows = [59, 0, 7, 7, 31]
    assert Store(opened).read(rows) == expected(opened, rows)
    assert Store(opened).read([]) == []


def test_open_files_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_OPEN", 1)
    opened = Subset(folder)
    before = len(os.listdir("/proc/self/fd"))
    reader = Store(opened)
    for row in range(60):
        assert reader.read([row]) == expected(opened, [row])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del reader
    assert len(os.listdir("/proc/self/fd")) == before


def read_all(reader: Store, out: Any) -> None:
    out.put([hashlib.sha256(data).hexdigest() for data in reader.read(range(60))])


def test_descriptors_serve_forked_processes(folder: Path) -> None:
    opened = Subset(folder)
    reader = Store(opened)
    reader.read([0, 1])  # opens what a fork inherits
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=read_all, args=(reader, out)) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in range(20):
        assert reader.read([3]) == expected(opened, [3])
    for _ in processes:
        assert out.get(timeout=60) == opened.values("sha256", range(60))
    for process in processes:
        process.join()


def problems(rows: list[dict[str, Any]], folder: Path, root: Any = None, **info: Any) -> list[str]:
    """Reasons of the rows of a manifest, "" for those that can be read."""
    found = Store(Subset(write_rows(folder / "m", rows, root or folder, **info))).read(range(len(rows)))
    return [answer.reason if isinstance(answer, SampleError) else "" for answer in found]


def test_what_is_not_there_has_a_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path, 9, 1)
    rows[1]["path"] = "gone.tar"
    rows[2]["offset"] = 10**9
    rows[3]["size"] = 2**62
    rows[4]["path"] = None
    rows[5]["path"] = "pipe"
    rows[6]["path"] = "nul\0.tar"
    rows[7]["path"] = ""
    os.mkfifo(tmp_path / "pipe")
    reasons = ["", "missing", "changed", "changed", "missing", "missing", "missing", "missing", ""]
    assert problems(rows, tmp_path) == reasons
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "FEATURES", frozenset({"rows"}))
        assert problems(rows, tmp_path, required_features=["rows"]) == reasons


@pytest.mark.parametrize("path", ["../secret.tar", "a/../../secret.tar", ".."])
def test_path_out_of_the_root_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tar_rows(tmp_path / "inside", 3, 1)
    (tmp_path / "inside" / "00000.tar").rename(tmp_path / "secret.tar")
    rows[1]["path"] = path
    with pytest.raises(ManifestError, match="leads out of its root"):
        problems(rows, tmp_path, tmp_path / "inside")
    monkeypatch.setattr(manifest, "FEATURES", frozenset({"rows"}))
    with pytest.raises(ManifestError, match="leads out of its root"):
        problems(rows, tmp_path, tmp_path / "inside", required_features=["rows"])


def test_absolute_path_is_read_as_the_format_says(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path / "inside", 3, 1)
    rows = [row | {"path": str(tmp_path / "inside" / row["path"])} for row in rows]
    assert problems(rows, tmp_path, "/elsewhere") == ["", "", ""]


def test_moved_folder_is_read_where_it_lies_now(folder: Path, tmp_path: Path) -> None:
    rows = tar_rows(tmp_path / "new", 6)
    subset = write_rows(tmp_path / "m", rows, "/old/shards")
    with pytest.raises(SampleError, match=r"roots=\{OLD: NEW\}"):
        next(iterate(subset))
    items = list(iterate(subset, roots={"/old/shards": str(tmp_path / "new")}, decode="raw"))
    assert sorted(seeds_of(item["uid"] for item in items)) == list(range(6))


def test_near_images_are_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tar_rows(tmp_path, 30)
    with web_server(tmp_path) as web:
        opened = Subset(write_rows(tmp_path / "m", rows, web.url))
        assert Store(opened).read(range(30)) == expected(opened, list(range(30)))
        assert len(web.seen) == 3  # one for each tar
        monkeypatch.setattr(store, "_NEAR", -1)
        assert Store(opened).read([20, 3, 9]) == expected(opened, [20, 3, 9])
        assert len(web.seen) == 6
        monkeypatch.setattr(store, "_REQUEST", 1)
        monkeypatch.setattr(store, "_NEAR", 1 << 20)
        assert Store(opened).read(range(10)) == expected(opened, list(range(10)))
        assert len(web.seen) == 16


def test_distant_file_that_is_short_or_gone_spoils_no_other(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path / "tars", 9)
    size = (tmp_path / "tars" / "00000.tar").stat().st_size
    rows[1]["offset"] = size - 10
    rows[2]["size"] = 2**62
    rows[4]["path"] = "gone.tar"
    rows[6]["path"] = ""
    with web_server(tmp_path / "tars") as web:
        assert problems(rows, tmp_path, web.url) == ["", "changed", "changed", "", "missing", "", "missing", "", ""]
        web.always = 403
        with pytest.raises(RemoteDeniedError):
            Store(Subset(tmp_path / "m")).read([0])


def test_what_passes_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_DELAY", 0.01)
    rows = tar_rows(tmp_path, 6, 1)
    with web_server(tmp_path) as web:
        web.faults = [503, "cut", 500]
        assert problems(rows, tmp_path, web.url) == [""] * 6


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_object_store_serves_other_processes(method: str, bucket: str, tmp_path: Path) -> None:
    rows = tar_rows(tmp_path / "tars", 60)
    upload(tmp_path / "tars", f"{bucket}/tars")
    reader = Store(Subset(write_rows(tmp_path / "m", rows, f"{bucket}/tars")))
    assert reader.read([0])[0] == image_bytes(0)  # a connection and threads that a child must not use
    context = multiprocessing.get_context(method)
    out = context.Queue()
    process = context.Process(target=read_all, args=(reader, out))
    process.start()
    assert out.get(timeout=60) == [row["sha256"] for row in rows]
    process.join()


def test_manifest_in_an_object_store_is_opened(bucket: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {})
    folder = make_subset(tmp_path, 12)
    upload(tmp_path / "subset", f"{bucket}/m")
    assert [i["uid"] for i in iterate(f"{bucket}/m", decode="raw")] == [i["uid"] for i in iterate(folder, decode="raw")]


def test_images_in_tables_are_read_as_pools_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tar_rows(tmp_path, 12)
    folder = write_rows(tmp_path / "m", rows[::-1], tmp_path, required_features=["rows"])
    monkeypatch.setattr(manifest, "FEATURES", frozenset({"rows"}))
    asked = []

    def read(row: dict[str, Any], roots: dict[str, str]) -> bytes | stored.Unread:
        asked.append((row["path"], row["offset"]))
        if row["path"] == "00001.tar":
            return stored.Unread("missing", "no table")
        return stored.stored_bytes(row, roots)

    monkeypatch.setattr(store, "stored_bytes", read)
    opened = Subset(folder)
    answers = Store(opened).read(range(12))
    assert asked == sorted(asked, key=lambda place: (-int(place[0][:5]), place[1]))  # in the order of each table
    for row, answer in enumerate(answers):
        if 4 <= row < 8:
            assert isinstance(answer, SampleError)
        else:
            assert answer == expected(opened, [row])[0]
    monkeypatch.setattr(store, "stored_bytes", stored.stored_bytes)
    found = [item["row"] for item in iterate(folder, decode="raw", window=5, block=2)]
    assert sorted(found) == list(range(12))
