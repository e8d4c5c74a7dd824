"""Tables of URLs: on the web, where any host may be gone, slow or send without end, and in stores."""

import socket
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from pictures import write_folder
from stores import Web, upload, web_server

from curate import download, patience
from curate.errors import RemoteDeniedError, SourceError, UsageError
from curate.samples import Sample, Source
from curate.sources import Columns, open_sources
from curate.stored import read_stored, stored_bytes

NO_COLUMNS = Columns()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(patience, "_FIRST_DELAY", 0.01)
    folder = write_folder(tmp_path / "www", {"a.jpg": b"aaa", "b c.jpg": b"bbb", "big.jpg": b"x" * 5000})
    with web_server(folder) as server:
        yield server


def table(folder: Path, urls: list[str | None], name: str = "t.parquet", column: str = "url") -> Source:
    path = folder / name
    frame = pl.DataFrame({column: urls, "TEXT": [f"caption {i}" for i in range(len(urls))]})
    if name.endswith("parquet"):
        frame.write_parquet(path)
    elif name.endswith("jsonl"):
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if name.endswith("tsv") else ",")
    (source,) = open_sources([path])
    return source


def told(samples: list[Sample]) -> list[tuple[str, bytes, str]]:
    return [(sample.key.rpartition("/")[2], sample.data, sample.problem) for sample in samples]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl"])
def test_urls_are_read_and_failures_counted(name: str, web: Web, tmp_path: Path) -> None:
    web.statuses = {"/denied.jpg": 403, "/broken.jpg": 500, "/bad.jpg": 418}
    names = ["a.jpg", "b%20c.jpg", "gone.jpg", "denied.jpg", "broken.jpg", "bad.jpg", "a.jpg"]
    source = table(tmp_path, [*(f"{web.url}/{name}" for name in names), None], name)
    samples = list(source.rows())
    assert told(samples) == [
        ("a.jpg", b"aaa", ""),
        ("b%20c.jpg", b"bbb", ""),
        *((name, b"", "download_failed") for name in names[2:6]),
        ("a.jpg", b"aaa", "duplicate_key"),
        ("#7", b"", "missing_file"),
    ]
    assert samples[0].caption == "caption 0"
    assert "nothing at this address" in str(samples[2].meta["download_error"])
    for start in range(9):
        assert list(source.rows(start)) == samples[start:]


def test_a_url_of_an_unknown_kind_costs_its_row_only(web: Web, tmp_path: Path) -> None:
    strange = ["xyz://host/a.jpg", "ftp://host/b.jpg", *(f"abcd://host/{i}.jpg" for i in range(70))]
    source = table(tmp_path, [*strange[:2], f"{web.url}/a.jpg", *strange[2:]])
    found = {sample.key: (sample.data, sample.problem) for sample in source.rows()}
    assert found[f"{web.url}/a.jpg"] == (b"aaa", "")
    assert [found[url] for url in strange] == [(b"", "unreadable_file")] * 72
    with pytest.raises(UsageError, match=r"xyz:// cannot be read: .*xyz"):
        open_sources(["xyz://host/t.parquet"])


def test_what_is_told_of_stored_bytes(web: Web, tmp_path: Path) -> None:
    web.statuses = {"/denied.jpg": 403}

    def read(path: str, size: int = 3, offset: int = 0) -> object:
        row = {"source": "s", "path": path, "offset": offset, "size": size, "sha256": ""}
        found = stored_bytes(row, {"s": str(tmp_path)})
        return found if isinstance(found, bytes) else found[0]

    (tmp_path / "x").write_bytes(b"xyz")
    assert read("x") == read(f"{web.url}/a.jpg").replace(b"aaa", b"xyz") == b"xyz"
    assert [read("gone"), read(f"{web.url}/gone.jpg"), read("x/y")] == ["missing"] * 3
    assert [read("x", 2**62), read("x", 2**63), read(f"{web.url}/a.jpg", 9)] == ["changed"] * 3
    assert [read("."), read("x\0"), read("x", -1), read("xyz://host/a.jpg")] == ["unreadable"] * 4
    with pytest.raises(RemoteDeniedError):
        read(f"{web.url}/denied.jpg")


def test_bytes_of_a_url_are_found_again(web: Web, tmp_path: Path) -> None:
    source = table(tmp_path, [f"{web.url}/a.jpg", f"{web.url}/b%20c.jpg"], column="image_url")
    for sample in source.rows():
        row = {"source": source.id, "path": sample.path, "offset": sample.offset, "size": sample.size}
        assert read_stored(row, {source.id: source.root}) == sample.data


def test_what_is_too_large_or_too_slow_is_counted(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.download, "__defaults__", (4000, 0.3))
    web.stalled = {"/b%20c.jpg"}
    samples = list(table(tmp_path, [f"{web.url}/{name}" for name in ("big.jpg", "b%20c.jpg", "a.jpg")]).rows())
    assert [sample.problem for sample in samples] == ["download_failed", "download_failed", ""]
    assert "larger than 4,000 bytes" in str(samples[0].meta["download_error"])


def closed_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_a_host_that_is_gone_costs_its_images_only(web: Web, tmp_path: Path) -> None:
    [port] = closed_ports(1)
    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(30)]
    samples = list(table(tmp_path, [*urls, f"{web.url}/a.jpg"]).rows())
    assert [sample.problem for sample in samples] == ["download_failed"] * 30 + [""]


def test_a_network_that_is_down_decides_nothing(web: Web, tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:{port}/x.jpg" for port in closed_ports(20)]
    with pytest.raises(SourceError, match="hosts in turn do not answer"):
        list(table(tmp_path, list(urls)).rows())


def test_no_signature_is_stored(web: Web, tmp_path: Path) -> None:
    web.signature = "X-Amz-Signature=secret"
    url = f"{web.url}/a.jpg?X-Amz-Signature=secret"
    (sample,) = table(tmp_path, [url]).rows()
    assert (sample.data, sample.problem) == (b"aaa", "")
    assert "secret" not in repr(sample)
    web.signature = "X-Amz-Signature=other"
    (sample,) = table(tmp_path, [url]).rows()
    assert sample.problem == "download_failed"
    assert "secret" not in repr(sample)


def test_metadata_of_a_folder_names_files_not_urls(web: Web, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", {"metadata.csv": f"file_name\n{web.url}/a.jpg\n".encode()})
    (source,) = open_sources([folder])
    assert [sample.problem for sample in source.rows()] == ["outside_root"]
    assert web.seen == []


def test_objects_of_a_store_are_read_by_url(bucket: str, tmp_path: Path) -> None:
    at = upload(write_folder(tmp_path / "up", {"a.jpg": b"aaa", "sub/b.jpg": b"bbb"}), f"{bucket}/urls")
    source = table(tmp_path, [f"{at}/a.jpg", f"{at}/sub/b.jpg", f"{at}/gone.jpg"])
    samples = list(source.rows())
    assert told(samples) == [("a.jpg", b"aaa", ""), ("b.jpg", b"bbb", ""), ("gone.jpg", b"", "missing_file")]
    row = {"source": source.id, "path": samples[1].path, "offset": 0, "size": 3}
    assert read_stored(row, {source.id: source.root}) == b"bbb"
