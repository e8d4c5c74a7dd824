"""Sources in object stores and behind web servers: the rows of a local copy, whatever the network does."""

from __future__ import annotations

import importlib
import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import captioned_tar, jpeg, picture, write_folder, write_tar
from stores import Web, upload, web_server

from curate import filesystem, patience
from curate.engine.follow import Shards
from curate.errors import RemoteError, SourceError, UsageError
from curate.patience import without_secrets
from curate.ranges import RangeFile
from curate.remote import join, place
from curate.samples import Sample, content_hash
from curate.sources import open_sources, remembered
from curate.sources.listing import Names
from curate.stored import read_stored, stored_pixels

PICTURES = [jpeg(picture(seed)[0]) for seed in range(4)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("local")
    captioned_tar(root / "shards" / "0.tar", range(6))
    captioned_tar(root / "shards" / "1.tar", range(6, 9))
    rows = {"key": ["00001", "00002", "lost", "00002"], "caption": list("abcd"), "status": ["success"] * 4}
    pl.DataFrame(rows).write_parquet(root / "shards" / "0.parquet")
    write_folder(root / "classes", {f"{c}/{i} ü.jpg": PICTURES[i] for i in range(3) for c in "ab"})
    (root / "classes" / ".hidden.jpg").write_bytes(b"x")
    listed = b"file_name,caption\n2.jpg,x\n0.jpg,y\nnot there.jpg,z\n"
    write_folder(root / "listed", {f"{i}.jpg": PICTURES[i] for i in range(3)} | {"metadata.csv": listed})
    lines = b'{"path": "i/1.jpg", "caption": "x"}\n{"path": "i/gone.jpg"}\n{"path": "./i/../i/0.jpg"}\n'
    write_folder(root / "tables", {f"i/{i}.jpg": PICTURES[i] for i in range(2)} | {"t.jsonl": lines})
    return root


@pytest.fixture(scope="module")
def stored(local: Path, bucket: str) -> str:
    return upload(local, bucket)


@pytest.fixture
def web(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(remembered, "cache_folder", lambda: tmp_path / "cache")
    with web_server(local) as served:
        yield served


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)
    return waited


def rows(path: str | Path, start: int = 0) -> list[Sample]:
    return [sample for source in open_sources([path]) for sample in source.rows(start)]


@pytest.mark.parametrize("name", ["shards", "shards/{0..1}.tar", "classes", "listed", "tables/t.jsonl"])
def test_a_store_gives_the_rows_of_a_local_copy(local: Path, stored: str, name: str) -> None:
    near, far = open_sources([local / name]), open_sources([f"{stored}/{name}"])
    assert [s.id for s in far] == [s.id for s in near]  # and so the uids
    assert rows(f"{stored}/{name}") == rows(local / name)
    assert rows(f"{stored}/{name}", 2) == rows(local / name, 2)
    assert [s.fingerprint for s in far] == [s.fingerprint for s in open_sources([f"{stored}/{name}"])]
    assert all(source.root.startswith(stored) for source in far)


@pytest.mark.parametrize("name", ["shards/0.tar", "shards/{0..1}.tar", "tables/t.jsonl"])
def test_a_web_server_gives_the_rows_of_a_local_copy(local: Path, web: Web, name: str) -> None:
    assert rows(f"{web.url}/{name}") == rows(local / name)
    assert rows(f"{web.url}/{name}", 2) == rows(local / name, 2)


def test_a_local_table_may_name_objects(stored: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"path\n{stored}/tables/i/0.jpg\n{stored}/none.jpg\n")
    found = rows(tmp_path / "t.csv")
    assert [(s.data, s.problem) for s in found] == [(PICTURES[0], ""), (b"", "missing_file")]


def test_a_tar_is_fetched_once_and_its_decided_part_never_again(web: Web, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    members = [
        (f"{i:03d}.{kind}", noise.bytes(size)) for i in range(60) for kind, size in (("jpg", 90_000), ("txt", 9))
    ]
    web.folder = tmp_path
    size = write_tar(tmp_path / "s" / "big.tar", members).stat().st_size
    first = rows(f"{web.url}/s/big.tar")
    assert first == rows(tmp_path / "s" / "big.tar")
    assert web.served < 1.1 * size
    web.served = 0
    assert rows(f"{web.url}/s/big.tar", 58) == first[58:]
    assert web.served < 500_000
    web.served = 0
    assert rows(f"{web.url}/s/big.tar", 60) == []
    assert web.served < 300_000


def test_an_interrupted_pass_remembers_how_far_it_came(web: Web, tmp_path: Path) -> None:
    members = [(f"{i:03d}.jpg", np.random.default_rng(i).bytes(90_000)) for i in range(60)]
    web.folder = tmp_path
    write_tar(tmp_path / "s" / "big.tar", members)
    [source] = open_sources([f"{web.url}/s/big.tar"])
    passing = source.rows()
    assert len(list(islice(passing, 50))) == 50
    passing.close()  # type: ignore[attr-defined]
    web.served = 0
    assert next(iter(open_sources([f"{web.url}/s/big.tar"])[0].rows(49))).key == "049"
    assert web.served < 1_300_000  # of 5.4 MB


def test_a_cut_tar_gives_the_same_on_every_pass(web: Web, local: Path, tmp_path: Path) -> None:
    whole = (local / "shards" / "1.tar").read_bytes()
    web.folder = tmp_path
    for cut in (600, 3000, 5000, len(whole) - 9000):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        expected = [(s.key, s.data) for s in rows(tmp_path / "cut.tar")]
        for _ in range(2):
            assert [(s.key, s.data) for s in rows(f"{web.url}/cut.tar")] == expected


def test_what_passes_is_waited_for(web: Web, local: Path, delays: list[float]) -> None:
    [source] = open_sources([f"{web.url}/shards/1.tar"])
    looking, looked = [500, 500, 503, 500], [None, None]  # a HEAD and a GET are one try
    web.faults = [*looking, *looked, "cut", 429, 500, "cut"]
    assert list(source.rows()) == rows(local / "shards" / "1.tar")
    assert not web.faults
    assert delays == [0.5, 1.0, 0.5, 1.0, 2.0, 4.0]


def test_what_does_not_pass_is_a_named_error(web: Web, delays: list[float]) -> None:
    [source] = open_sources([f"{web.url}/shards/1.tar"])
    web.always = 503
    with pytest.raises(SourceError, match=rf"{web.url}/shards/1.tar.*503.*7 tries"):
        list(source.rows())
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]


def test_an_outage_decides_nothing_about_an_image(web: Web, delays: list[float], tmp_path: Path) -> None:
    write_folder(tmp_path, {"0.jpg": PICTURES[0], "t.csv": b"path\n0.jpg\n"})
    web.folder = tmp_path
    [source] = open_sources([f"{web.url}/t.csv"])
    passing = source.rows()  # the table is read here, its images below
    web.always = 500
    with pytest.raises(SourceError, match=r"\.jpg.*500"):
        list(passing)


@pytest.mark.parametrize(
    ("status", "message"), [(403, "access is denied.*credentials"), (404, "nothing at this address"), (400, "400")]
)
def test_what_is_refused_is_not_asked_again(web: Web, delays: list[float], status: int, message: str) -> None:
    web.always = status
    with pytest.raises(SourceError, match=message):
        open_sources([f"{web.url}/shards/1.tar"])
    assert delays == []


def test_a_store_that_denies_is_named(
    web: Web, monkeypatch: pytest.MonkeyPatch, delays: list[float], bucket: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    web.always = 403
    with pytest.raises(SourceError, match=r"s3://bucket/a\.tar: access is denied"):
        open_sources([f"{bucket}/a.tar"])
    web.always = 503
    with pytest.raises(SourceError, match="7 tries failed"):
        open_sources([f"{bucket}/a.tar"])


def test_what_is_missing_is_named(stored: str) -> None:
    with pytest.raises(SourceError, match=r"s3://nowhere/a\.tar: there is no such bucket"):
        open_sources(["s3://nowhere/a.tar"])
    with pytest.raises(SourceError, match=r"s3://bucket/shards/2\.tar: there is nothing"):
        open_sources([f"{stored}/shards/{{0..9}}.tar"])
    with pytest.raises(SourceError, match="unknown kind"):
        open_sources([f"{stored}/classes/a/0 ü.jpg"])


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    filesystem.filesystem.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'curate-engine\[s3\]'"):
        open_sources(["s3://bucket/a.tar"])
    with pytest.raises(UsageError, match="nosuch://"):
        open_sources(["nosuch://x/a.tar"])


def test_a_server_without_ranges_is_named(web: Web, tmp_path: Path) -> None:
    web.ranges, web.folder = False, tmp_path
    write_tar(tmp_path / "s.tar", [("0.jpg", b"x" * 100_000)])
    with pytest.raises(SourceError, match="does not serve ranges"):
        open_sources([f"{web.url}/s.tar"])


def test_no_secret_is_kept_or_told(
    web: Web, local: Path, tmp_path: Path, delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "curate")
    address = web.url.replace("http://", "http://someone:PASSWORD@")
    signed = "X-Amz-Credential=AKIA%2F1&X-Amz-Signature=SIGNATURE"
    [source] = open_sources([f"{address}/shards/1.tar?{signed}"])
    assert list(source.rows()) == rows(local / "shards" / "1.tar")
    assert any("SIGNATURE" in path for path in web.seen)  # sent, and yet
    (tmp_path / "t.csv").write_text(f"path\n{address}/tables/i/0.jpg?{signed}\n")
    [table] = open_sources([tmp_path / "t.csv"])
    [sample] = table.rows()
    assert sample.data == PICTURES[0]
    web.always = 500
    with pytest.raises(SourceError) as error:
        list(source.rows())
    told = [str(error.value), repr(error.value.__cause__), repr(sample), source.root, source.id, caplog.text]
    assert not any(secret in text for text in told for secret in ("PASSWORD", "SIGNATURE", "AKIA", "someone"))


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://u:p@h/a?b=1 x", "https://h/a?b=1 x"),
        ("at https://h/a.tar?id=5&token=t: no", "at https://h/a.tar no"),
        ("https://h/a?sv=1&sig=zz", "https://h/a"),
        ("https://h/a?Expires=1&Signature=z&Key-Pair-Id=k", "https://h/a"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("https://user:p@ss@h/a", "https://h/a"),
        ("https://h?to=a@b", "https://h?to=a@b"),
        *[
            (f"https://h/a?b=1&{name}=x", "https://h/a")
            for name in ("auth", "pwd", "jwt", "sign", "X-Sign", "ACCESS_PASS")
        ],
        ("https://h/a?b=1;token=x", "https://h/a"),
        ("https://h/a?design=5&compass=1", "https://h/a?design=5&compass=1"),
    ],
)
def test_secrets_leave_a_text(text: str, safe: str) -> None:
    assert without_secrets(text) == safe


@pytest.mark.parametrize(
    ("root", "name", "expected"),
    [
        ("s3://b/x", "y/1.jpg", "y/1.jpg"),
        ("s3://b/x", "../z/1.jpg", "s3://b/z/1.jpg"),
        ("s3://b/x", "../../../1.jpg", "s3://b/1.jpg"),
        ("s3://b/x", "/1.jpg", "s3://b/1.jpg"),
        ("s3://b/x", "s3://b/x/1.jpg", "1.jpg"),
        ("s3://b/x", "s3://other/1.jpg", "s3://other/1.jpg"),
        ("https://h/a%20b", "1 2.jpg", "1 2.jpg"),
        ("https://h/a%20b", "../1 2.jpg", "https://h/1%202.jpg"),
    ],
)
def test_names_are_joined(root: str, name: str, expected: str) -> None:
    assert join(root, name) == expected


def test_a_replaced_object_changes_the_fingerprint(bucket: str) -> None:
    for name, data in (("0.jpg", PICTURES[0]), ("1.jpg", PICTURES[1])):
        (place(bucket) / "changing" / name).write_bytes(data)
    [before] = open_sources([f"{bucket}/changing"])
    (place(bucket) / "changing" / "1.jpg").write_bytes(PICTURES[1][:-1] + b"x")
    [after] = open_sources([f"{bucket}/changing"])
    assert before.fingerprint != after.fingerprint
    assert open_sources([f"{bucket}/changing"])[0].fingerprint == after.fingerprint


def test_a_mended_object_changes_a_tables_fingerprint(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place(bucket) / "mended"
    (folder / "t.csv").write_bytes(b"path\n0.jpg\n1.jpg\n")
    (folder / "0.jpg").write_bytes(PICTURES[0])
    [before] = open_sources([f"{bucket}/mended/t.csv"])
    monkeypatch.setattr("curate.sources.listing._MOST_LOOKED_UP", 1)  # by listing, and not one by one
    assert open_sources([f"{bucket}/mended/t.csv"])[0].fingerprint == before.fingerprint
    (folder / "1.jpg").write_bytes(PICTURES[1])
    assert open_sources([f"{bucket}/mended/t.csv"])[0].fingerprint != before.fingerprint


def test_images_are_read_again_where_they_lie(stored: str) -> None:
    for name in ("shards/1.tar", "classes"):
        [source] = open_sources([f"{stored}/{name}"])
        roots = {source.id: source.root}
        for s in source.rows():
            row = {
                "source": s.source,
                "path": s.path,
                "offset": s.offset,
                "size": s.size,
                "sha256": content_hash(s.data),
            }
            assert read_stored(row, roots) == s.data
            [pixels] = stored_pixels([row], roots, 10**6)
            assert pixels is not None
            [gone] = stored_pixels([row | {"path": "gone.jpg"}], roots, 10**6)
            assert gone is None


def test_shards_are_followed_in_a_store(bucket: str) -> None:
    folder = place(bucket) / "arriving"
    shards = Shards(folder)
    assert shards.complete() == {}
    (folder / "0.tar").write_bytes(b"x")
    assert shards.complete() == {}
    assert [path.name for path in shards.complete()] == ["0.tar"]
    (folder / "0.parquet").write_bytes(b"x")
    assert shards.complete() == {}
    assert [path.name for path in shards.complete()] == ["0.tar"]
    with pytest.raises(SourceError, match="no such bucket"):
        Shards(place("s3://nowhere/x")).complete()


def test_any_file_system_of_fsspec_is_a_store(local: Path) -> None:
    where = upload(local / "listed", f"memory://{local.name}/listed")
    assert rows(where) == rows(local / "listed")


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(0, 900_000),
    moves=st.lists(st.tuples(st.floats(0, 1.1), st.integers(-1, 300_000)), max_size=12),
)
def test_a_range_file_reads_like_a_file(size: int, moves: list[tuple[float, int]]) -> None:
    data = np.random.default_rng(size).bytes(size)
    near, far = io.BytesIO(data), io.BufferedReader(RangeFile(lambda start, n: data[start : start + n], size), 1 << 16)
    for where, count in moves:
        if where < 0.7:  # else go on from here
            assert far.seek(int(where * size)) == near.seek(int(where * size))
        assert far.read(count) == near.read(count)
        assert far.tell() == near.tell()


def test_a_fetch_ahead_that_fails_is_seen() -> None:
    def fetch(start: int, size: int) -> bytes:
        if start > 2_000_000:
            raise RemoteError("gone")
        return b"x" * size

    with pytest.raises(RemoteError, match="gone"):
        io.BufferedReader(RangeFile(fetch, 9_000_000)).read()


MANY_TABLES = """
import json, fsspec
from curate.sources import open_sources
rows = [{"file_name": f"{i}.jpg", "caption": "x" * 32_000} for i in range(40)]  # 1.3 MB: enough to be read ahead
files = fsspec.filesystem("memory")
for t in range(40):
    files.pipe(f"/many/{t}/t.jsonl", "\\n".join(map(json.dumps, rows)).encode())
    files.pipe(f"/many/{t}/7.jpg", b"x")
opened = open_sources([f"memory://many/{t}/t.jsonl" for t in range(40)])
assert [source.count for source in opened] == [40] * 40
"""


def test_more_sources_than_threads_do_not_wait_for_each_other() -> None:
    subprocess.run([sys.executable, "-c", MANY_TABLES], check=True, timeout=60)


def test_every_request_for_a_signed_tar_is_signed(web: Web, local: Path) -> None:
    web.signature = "Signature=abc"
    [source] = open_sources([f"{web.url}/shards/1.tar?Signature=abc"])
    assert list(source.rows()) == rows(local / "shards" / "1.tar")


def test_urls_that_differ_in_their_query_are_different_files(web: Web) -> None:
    ids = ["1", "2", "2"]
    one, two = open_sources([f"{web.url}/shards/1.tar?id={number}" for number in ids])
    assert one.id != two.id
    assert [source.id for source in open_sources([f"{web.url}/shards/1.tar?id=2"])] == [two.id]
    saved = {source.id: source.root for source in (one, two)}
    assert [source.id for source in open_sources([f"{web.url}/shards/1.tar?id=2"], saved=saved)] == [two.id]
    signed = [f"{web.url}/shards/1.tar?id={number}&key=SECRET" for number in ids]
    with pytest.raises(SourceError, match=r"2 of the URLs .*told apart") as error:
        open_sources(signed)
    assert "SECRET" not in str(error.value)
    assert open_sources(signed[1:])[0].root == one.root


def test_a_tar_without_tag_or_time_is_indexed_anew(web: Web, tmp_path: Path) -> None:
    web.folder, web.tags = tmp_path, False
    for first, second in ((100, 1000), (700, 400)):  # of one size, other places
        members = [("0.jpg", b"x" * first), ("1.jpg", b"y" * second)]
        write_tar(tmp_path / "s" / "0.tar", members)
        assert rows(f"{web.url}/s/0.tar") == rows(tmp_path / "s" / "0.tar")


def test_a_long_index_is_written_a_few_times_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remembered, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(remembered, "_SAVED_EVERY", 4)
    written = []
    write = remembered.atomic_write
    monkeypatch.setattr(remembered, "atomic_write", lambda path, data: (written.append(path), write(path, data)))
    with remembered.Remembered("a tar") as index:
        for i in range(1000):
            index.add(remembered.Group(str(i), {"jpg": (i, 1)}), i + 1)
    assert 3 < len(written) < 20
    again = remembered.Remembered("a tar")
    assert (again.groups, again.after) == (index.groups, 1000)


def test_known_sources_cost_no_request_for_their_names(web: Web) -> None:
    saved = {f"shards/{i}.tar": f"{web.url}/shards" for i in range(9)}
    names = Names(saved)
    assert [names.of_file(place(f"{web.url}/shards/{i}.tar")) for i in range(9)] == list(saved)
    assert web.seen == []
