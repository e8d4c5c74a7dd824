"""Sources: every kind keeps the same contract, and every way in which a source can be broken has a name."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import SourceError
from curate.samples import Sample, Source
from curate.sources import Columns, open_sources
from curate.sources.tarindex import index_tar

UID = "0123456789abcdef" * 2
NO_COLUMNS = Columns()

Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_images(folder: Path, *names: str) -> Path:
    """Write one file per name that holds its own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def only(path: Path | str, columns: Columns = NO_COLUMNS) -> Source:
    (source,) = open_sources([path], columns)
    return source


def read(path: Path | str, columns: Columns = NO_COLUMNS) -> list[Sample]:
    return list(only(path, columns).rows())


def by_key(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.key: sample for sample in samples}


def error_of(paths: list[Path | str], columns: Columns = NO_COLUMNS) -> str:
    with pytest.raises(SourceError) as caught:
        [list(source.rows()) for source in open_sources(paths, columns)]
    return str(caught.value)


# What every source promises


def make_tar(folder: Path) -> Path:
    members = [("0.jpg", b"zero"), ("0.txt", b"none"), ("1.json", b"{}"), ("2.png", b""), ("0.jpg", b"again")]
    pl.DataFrame({"key": ["9", "0", "8"], "status": ["failed_to_download", "success", "success"]}).write_parquet(
        folder / "00000.parquet"
    )
    return write_tar(folder / "00000.tar", members)


def make_folder(folder: Path) -> Path:
    return write_images(folder, "b/2.jpg", "a/1.PNG", "c.webp")


def make_metadata_folder(folder: Path) -> Path:
    write_images(folder, "b.jpg", "a.jpg", "z.jpg", "y.jpg")
    text = "file_name,caption\nb.jpg,bee\na.jpg,\ngone.jpg,x\n../out.jpg,x\nb.jpg,again\n"
    (folder / "metadata.csv").write_text(text)
    return folder


def make_csv(folder: Path) -> Path:
    write_images(folder, "b.jpg", "a.jpg")
    (folder / "t.csv").write_text("path,label\nb.jpg,1\na.jpg,2\n,3\nb.jpg,4\ngone.jpg,5\n")
    return folder / "t.csv"


def make_parquet(folder: Path) -> Path:
    frame = pl.read_csv(make_csv(folder))
    (folder / "t.csv").unlink()
    frame.write_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def make_jsonl(folder: Path) -> Path:
    frame = pl.read_csv(make_csv(folder))
    (folder / "t.csv").unlink()
    frame.write_ndjson(folder / "t.jsonl")
    return folder / "t.jsonl"


every_kind = pytest.mark.parametrize(
    "make", [make_tar, make_folder, make_metadata_folder, make_csv, make_parquet, make_jsonl]
)
Make = Callable[[Path], Path]


@every_kind
def test_rows_begin_at_any_ordinal(make: Make, tmp_path: Path) -> None:
    source = only(make(tmp_path))
    samples = list(source.rows())
    assert len(samples) >= 3
    assert source.count == len(samples)
    for start in range(len(samples) + 2):
        assert list(source.rows(start)) == samples[start:]


@every_kind
def test_samples_say_where_their_bytes_lie(make: Make, tmp_path: Path) -> None:
    source = only(make(tmp_path))
    assert Path(source.root).is_absolute()
    for sample in source.rows():
        assert sample.source == source.id
        assert sample.size == len(sample.data)
        if sample.data:
            stored = Path(source.root, sample.path).read_bytes()
            assert stored[sample.offset : sample.offset + sample.size] == sample.data


@every_kind
def test_two_opens_give_the_same_rows_and_fingerprint(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path)
    assert read(path) == read(path)
    assert only(path).fingerprint == only(path).fingerprint


@every_kind
def test_fingerprint_sees_a_touched_file(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path)
    before = only(path).fingerprint
    touched = path if path.is_file() else path / next(only(path).rows()).path
    os.utime(touched, ns=(1, 1))
    assert only(path).fingerprint != before


@pytest.mark.parametrize("make", [make_folder, make_metadata_folder])
def test_fingerprint_sees_an_added_image(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path)
    before = only(path).fingerprint
    write_images(path, "new.jpg")
    assert only(path).fingerprint != before


def test_fingerprint_sees_the_columns(tmp_path: Path) -> None:
    path = make_csv(tmp_path)
    assert only(path).fingerprint != only(path, Columns(group="label")).fingerprint


def test_fingerprint_sees_the_parquet_beside_a_tar(tmp_path: Path) -> None:
    path = make_tar(tmp_path)
    before = only(path).fingerprint
    (tmp_path / "00000.parquet").unlink()
    assert only(path).fingerprint != before


def test_fingerprint_sees_a_listed_file_that_appears(tmp_path: Path) -> None:
    path = make_metadata_folder(tmp_path)
    (path / "metadata.csv").write_text("file_name\n.hidden/a.jpg\n")
    before = only(path).fingerprint
    write_images(path, ".hidden/a.jpg")
    assert only(path).fingerprint != before


def test_ids_hold_no_absolute_path(tmp_path: Path) -> None:
    assert only(make_tar(write_images(tmp_path / "shards", "x.jpg") / ".")).id == "shards/00000.tar"
    assert only(make_csv(write_images(tmp_path / "tables", "x.jpg"))).id == "tables/t.csv"
    assert only(make_folder(tmp_path / "photos")).id == "photos"


# Which source a path stands for


def test_folder_of_tars_is_one_source_each_by_name(tmp_path: Path) -> None:
    for name in ("00001.tar", "00000.tar"):
        write_tar(tmp_path / "s" / name, [("0.jpg", b"x")])
    assert [source.id for source in open_sources([tmp_path / "s"])] == ["s/00000.tar", "s/00001.tar"]


def test_braces_expand_in_order_unless_the_file_exists(tmp_path: Path) -> None:
    for name in ("08", "09", "10"):
        write_tar(tmp_path / "s" / f"{name}.tar", [("0.jpg", b"x")])
    pattern = f"{tmp_path}/s/{{08..10}}.tar"
    assert [source.id for source in open_sources([pattern])] == ["s/08.tar", "s/09.tar", "s/10.tar"]
    assert [source.id for source in open_sources([f"{tmp_path}/s/{{10,08}}.tar"])] == ["s/10.tar", "s/08.tar"]
    write_tar(Path(pattern), [("0.jpg", b"x")])
    assert [source.id for source in open_sources([pattern])] == ["s/{08..10}.tar"]


def test_missing_tar_of_a_pattern_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("0.jpg", b"x")])
    assert "1.tar" in error_of([f"{tmp_path}/{{0..1}}.tar"])


def test_pattern_that_stands_for_too_many_paths_is_refused() -> None:
    assert "too many" in error_of(["/nowhere/{0..99999999999}.tar"])


def test_folder_of_tables_is_these_tables(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("path\n")
    (tmp_path / "a.tsv").write_text("path\tcaption\nx.jpg\tgone\n")
    sources = open_sources([tmp_path])
    assert [source.id.rpartition("/")[2] for source in sources] == ["a.tsv", "b.csv"]
    assert [sample.caption for sample in sources[0].rows()] == ["gone"]


def test_same_file_twice_is_dropped_once(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("0.jpg", b"x")])
    (tmp_path / "link").symlink_to(tmp_path)
    assert len(open_sources([tmp_path, tmp_path / "0.tar", tmp_path / "link" / "0.tar"])) == 1


def test_namesakes_get_longer_ids_and_keep_them(tmp_path: Path) -> None:
    roots = [write_images(tmp_path / name / "photos", "1.jpg") for name in "ab"]
    sources = open_sources(roots)
    assert [source.id for source in sources] == ["photos", "b/photos"]
    saved = {source.id: source.root for source in sources}
    assert [source.id for source in open_sources(roots[::-1], saved=saved)] == ["b/photos", "photos"]
    assert open_sources([roots[1]], saved={"photos": str(roots[0])})[0].id == "b/photos"


def test_a_moved_source_keeps_its_id(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    root = write_images(tmp_path / "a" / "photos", "1.jpg")
    saved = {"photos": str(root)}
    root.rename(tmp_path / "b" / "photos")
    assert open_sources([tmp_path / "b" / "photos"], saved=saved)[0].id == "photos"
    tar = write_tar(tmp_path / "a" / "shards" / "0.tar", [("0.jpg", b"x")])
    saved = {"shards/0.tar": str(tar.parent)}
    other = write_tar(tmp_path / "b" / "shards" / "0.tar", [("0.jpg", b"x")])
    assert open_sources([other], saved=saved)[0].id == "b/shards/0.tar"
    tar.unlink()
    assert open_sources([other], saved=saved)[0].id == "shards/0.tar"


def test_a_table_is_changed_by_a_change_of_a_file_it_lists(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\na.jpg\nb.jpg\n")
    (tmp_path / "a.jpg").write_bytes(b"x")
    before = open_sources([tmp_path / "t.csv"])[0].fingerprint
    (tmp_path / "b.jpg").write_bytes(b"y")
    assert open_sources([tmp_path / "t.csv"])[0].fingerprint != before


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.zst"])
def test_compressed_tar_is_refused_with_advice(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    assert "decompress it first" in error_of([tmp_path / name])
    assert "decompress it first" in error_of([tmp_path])


def test_missing_path_empty_folder_and_unknown_extension_are_named(tmp_path: Path) -> None:
    assert "No such file" in error_of([tmp_path / "gone"])
    assert "is empty of images" in error_of([tmp_path])
    (tmp_path / "readme.md").write_text("x")
    assert "'.md'" in error_of([tmp_path / "readme.md"])
    assert "cannot open" in error_of(["nul\0.tar"])


def test_importing_loads_nothing_heavy() -> None:
    code = "import curate.sources, sys; sys.exit(bool({'polars', 'numpy', 'PIL'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_unreadable_folder_table_and_tar_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    make_tar(tmp_path)
    path = make_csv(tmp_path)
    monkeypatch.setattr(Path, "open", deny)
    assert "Permission denied" in error_of([path])
    assert "Permission denied" in error_of([tmp_path / "00000.tar"])
    monkeypatch.setattr(Path, "iterdir", deny)
    assert "Permission denied" in error_of([tmp_path])


def test_tables_beside_images_are_announced_as_unread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_csv(tmp_path)
    assert [sample.key for sample in read(tmp_path)] == ["a.jpg", "b.jpg"]
    assert "t.csv" in caplog.text


# Tars


def test_tar_sample_is_a_run_of_members_with_one_key(tmp_path: Path) -> None:
    members = [
        ("a/0.JPG", b"image"),
        ("a/0.txt", b" a cat \n"),
        ("a/0.seg.png", b"mask"),
        ("a/0.json", json.dumps({"uid": UID, "caption": "other", "n": float("nan"), "tags": ["x"]}).encode()),
        ("a/1.png", b"second"),
        ("a/1.cls", b"7"),
    ]
    first, second = read(write_tar(tmp_path / "s.tar", members))
    assert (first.key, first.data, first.caption, first.uid) == ("a/0", b"image", "a cat", UID)
    assert first.meta == {"caption": "other", "n": None, "tags": ["x"]}
    assert (second.key, second.label, second.caption, second.path) == ("a/1", "7", None, "s.tar")


def test_tar_caption_falls_back_to_json(tmp_path: Path) -> None:
    members = [("0.jpg", b"x"), ("0.json", b'{"text": " hi ", "captions": ["", "first"]}')]
    path = write_tar(tmp_path / "s.tar", members)
    assert read(path)[0].caption == "hi"
    assert read(path, Columns(caption="captions"))[0].caption == "first"


def test_tar_prefers_the_first_image_extension(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("0.png", b"png"), ("0.jpg", b"jpg")])
    assert read(path)[0].data == b"jpg"


def test_bad_json_does_not_cost_the_image(tmp_path: Path) -> None:
    members = [("0.jpg", b"x"), ("0.json", b"{"), ("1.jpg", b"y"), ("1.json", b"[1]"), ("2.json", b"[" * 100_000)]
    samples = read(write_tar(tmp_path / "s.tar", members))
    assert all("json_error" in sample.meta for sample in samples)
    assert [sample.problem for sample in samples] == ["", "", "missing_image"]


def test_tar_problems_are_named(tmp_path: Path) -> None:
    members = [
        ("0.txt", b"no image"),
        ("1.jpg", b"x"),
        ("2.jpg", b""),
        ("1.jpg", b"later"),
        ("2.jpg", b"2"),
        ("2.jpg", b"3"),
    ]
    samples = read(write_tar(tmp_path / "s.tar", members))
    assert [(sample.key, sample.problem) for sample in samples] == [
        ("0", "missing_image"),
        ("1", ""),
        ("2", ""),
        ("1", "duplicate_key"),
        ("2", "duplicate_key"),
        ("2", "duplicate_key"),
    ]
    assert samples[3].data == b"later"


def test_folders_links_and_names_without_extension_are_no_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, kind in [("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
        for name in ("README", "._0.jpg", "0.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    assert [sample.key for sample in read(tmp_path / "s.tar")] == ["0"]
    assert "2 links or sparse files" in caplog.text


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(form: int, tmp_path: Path) -> None:
    key = "d" * 120 + "/\u00e9" + "n" * 150
    samples = read(write_tar(tmp_path / "s.tar", [(key + ".jpg", b"x"), ("1.jpg", b"y")], form))
    assert [(sample.key, sample.data) for sample in samples] == [(key, b"x"), ("1", b"y")]


def test_name_that_is_not_utf8_becomes_a_storable_key(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("caf\udce9.jpg", b"x")], tarfile.GNU_FORMAT)
    (sample,) = read(path)
    assert (sample.key.encode(), sample.data) == (b"caf\\udce9", b"x")


def test_truncated_tar_gives_all_before_the_cut_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "s.tar", [("0.jpg", b"a" * 600), ("1.jpg", b"b" * 600)])
    whole = read(path)
    assert not caplog.records
    os.truncate(path, whole[1].offset + 100)
    cut = read(path)
    assert cut[0] == whole[0]
    assert (cut[1].data, cut[1].size, cut[1].problem) == (b"b" * 100, 100, "")
    assert "cut off" in caplog.text


@pytest.mark.parametrize(("cut", "why"), [(-512, "no end-of-archive mark"), (-200, "bad header"), (-511, "bad header")])
def test_tar_cut_in_a_header_warns(cut: int, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "s.tar", [("0.jpg", b"a" * 512), ("1.jpg", b"b" * 512)])
    os.truncate(path, read(path)[1].offset + cut)
    assert [sample.key for sample in read(path)] == ["0"]
    assert why in caplog.text


def test_damage_in_the_middle_of_a_tar_is_not_taken_for_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tar(tmp_path / "s.tar", [("0.jpg", b"a"), ("1.jpg", b"b"), ("2.jpg", b"c")])
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"?" * 76  # the second header
    path.write_bytes(data)
    assert [sample.key for sample in read(path)] == ["0"]
    assert "bad header" in caplog.text


def test_header_that_leads_backwards_ends_the_tar(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "s.tar", [("0.jpg", b"a"), ("1.jpg", b"b")])
    data = bytearray(path.read_bytes())
    data[1024 + 124 : 1024 + 136] = (-1024).to_bytes(12, "big", signed=True)  # base-256: a negative size
    header = data[1024:1536]
    header[148:156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = f"{sum(header):06o}\0 ".encode()
    path.write_bytes(data)
    assert [sample.key for sample in read(path)] == ["0"]
    assert "backwards" in caplog.text


def test_empty_archive_has_no_rows(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [])
    assert read(path, Columns(label="any")) == []


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b" + b"x" * 600, b"plain text", b"z" * 2000])
def test_file_that_is_no_tar_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(data)
    assert "s.tar is not an uncompressed tar" in error_of([tmp_path / "s.tar"])


# The Parquet file beside a tar


def write_shard(folder: Path, frame: dict[str, list[object]], members: Members | None = None) -> Path:
    pl.DataFrame(frame).write_parquet(folder / "s.parquet")
    return write_tar(folder / "s.tar", members or [("0.jpg", b"x"), ("1.jpg", b"y")])


def test_parquet_is_joined_by_key_not_by_position(tmp_path: Path) -> None:
    frame = {"key": ["1", "0"], "caption": ["one", "zero"], "width": [11, 10], "label": [1.0, 45.0]}
    path = write_shard(tmp_path, frame)
    samples = read(path, Columns(label="label", group="width"))
    assert [(s.key, s.caption, s.label, s.group) for s in samples] == [
        ("0", "zero", "45.0", "10"),
        ("1", "one", "1.0", "11"),
    ]
    assert samples[0].meta == {}
    assert read(path)[0].label is None


def test_failed_downloads_follow_the_tar_sorted_by_key(tmp_path: Path) -> None:
    status = ["failed_to_download", "success", "success", "failed_to_resize", "success"]
    frame = {"key": ["5", "1", "7", "3", "0"], "status": status, "error_message": ["404", None, None, "small", None]}
    samples = read(write_shard(tmp_path, frame))
    assert [(sample.key, sample.problem) for sample in samples] == [
        ("0", ""),
        ("1", ""),
        ("3", "download_failed"),
        ("5", "download_failed"),
        ("7", "missing_image"),
    ]
    failed = samples[3]
    assert (failed.data, failed.size, failed.offset) == (b"", 0, 0)
    assert failed.meta == {"status": "failed_to_download", "error_message": "404"}


def test_hash_of_the_download_is_metadata_and_no_identity(tmp_path: Path) -> None:
    frame = {"url": ["u1", "u0"], "caption": ["one", "zero"], "key": ["1", "0"], "status": ["success"] * 2}
    frame |= {"sha256": ["f" * 64, "e" * 64], "exif": ["{}", None]}
    first, second = read(write_shard(tmp_path, frame))
    assert (first.data, first.uid, first.meta["sha256"], first.meta["url"]) == (b"x", "", "e" * 64, "u0")
    assert (second.data, second.caption, second.meta["exif"]) == (b"y", "one", "{}")


def test_repeated_key_of_the_parquet_is_not_lost(tmp_path: Path) -> None:
    samples = read(write_shard(tmp_path, {"key": ["0", "0", "8", "8"]}))
    assert [(s.key, s.problem) for s in samples[2:]] == [
        ("0", "duplicate_key"),
        ("8", "missing_image"),
        ("8", "duplicate_key"),
    ]


def test_parquet_goes_before_json_unless_null(tmp_path: Path) -> None:
    members = [("0.jpg", b"x"), ("0.json", b'{"dx": "json", "age": 3}')]
    path = write_shard(tmp_path, {"key": ["0"], "dx": ["parquet"], "age": [None]}, members)
    (sample,) = read(path, Columns(label="dx", group="age"))
    assert (sample.label, sample.group) == ("parquet", "3")


def test_named_column_may_be_in_the_json_members_alone(tmp_path: Path) -> None:
    path = write_shard(tmp_path, {"key": ["0", "1"]}, [("0.jpg", b"x"), ("1.jpg", b"y"), ("1.json", b'{"dx": true}')])
    assert [sample.label for sample in read(path, Columns(label="dx"))] == [None, "True"]
    message = error_of([path], Columns(label="nope"))
    assert "'nope' (--label)" in message
    assert "key, dx" in message


def test_parquet_without_keys_is_announced_as_unread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(write_shard(tmp_path, {"uid": [UID, UID]}))) == 2
    assert "no column 'key'" in caplog.text


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path, {"key": ["0"]})
    (tmp_path / "s.parquet").write_bytes(b"PAR1 and nothing else")
    assert "s.parquet" in error_of([path])


# Folders


def test_folder_is_sorted_by_relative_path_and_skips_what_is_hidden(tmp_path: Path) -> None:
    write_images(tmp_path, "b.jpg", "a/z.TIFF", "a.b/1.avif", ".x.jpg", ".git/1.jpg", "note.txt", "B.jpeg")
    samples = read(tmp_path)
    assert [sample.key for sample in samples] == ["B.jpeg", "a.b/1.avif", "a/z.TIFF", "b.jpg"]
    assert [sample.label for sample in samples] == [None] * 4


def test_class_folders_are_labels(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/1.jpg", "dog/1.jpg")
    assert [sample.label for sample in read(tmp_path)] == ["cat", "dog"]


@pytest.mark.parametrize("names", [("cat/1.jpg",), ("cat/1.jpg", "dog/1.jpg", "2.jpg"), ("train/1.jpg", "test/1.jpg")])
def test_other_layouts_have_no_labels(names: tuple[str, ...], tmp_path: Path) -> None:
    assert {sample.label for sample in read(write_images(tmp_path, *names))} == {None}


def test_links_are_followed_but_never_round_in_a_loop(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "f", "a/1.jpg")
    write_images(tmp_path / "elsewhere", "2.jpg")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    found = [(sample.key, sample.problem) for sample in read(folder)]
    assert found == [("a/1.jpg", ""), ("gone.jpg", "missing_file"), ("more/2.jpg", "")]


def test_file_name_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    (sample,) = read(tmp_path)
    assert (sample.key, sample.problem) == ("caf\\udce9.jpg", "unreadable_file")


def test_column_of_a_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    message = error_of([write_images(tmp_path, "1.jpg")], Columns(label="dx"))
    assert "'dx' (--label)" in message
    assert "metadata.csv" in message


def test_metadata_comes_in_its_order_then_the_rest(tmp_path: Path) -> None:
    samples = read(make_metadata_folder(tmp_path))
    assert [(sample.key, sample.problem) for sample in samples] == [
        ("b.jpg", ""),
        ("a.jpg", ""),
        ("gone.jpg", "missing_file"),
        ("../out.jpg", "outside_root"),
        ("b.jpg", "duplicate_key"),
        ("y.jpg", ""),
        ("z.jpg", ""),
    ]
    assert [sample.caption for sample in samples[:3]] == ["bee", None, "x"]


def test_metadata_never_opens_what_is_outside(tmp_path: Path) -> None:
    write_images(tmp_path, "secret.jpg", "f/in.jpg")
    rows = [{"file_name": str(tmp_path / "secret.jpg")}, {"file_name": "x/../../secret.jpg"}, {"file_name": "./in.jpg"}]
    rows += [{"file_name": str(tmp_path / "f" / "in.jpg")}, {"file_name": None}, {"file_name": "n\0l.jpg"}]
    (tmp_path / "f" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples = read(tmp_path / "f")
    assert [sample.problem for sample in samples] == [*["outside_root"] * 2, "", "", *["missing_file"] * 2]
    assert [sample.path for sample in samples[2:4]] == ["in.jpg", "in.jpg"]
    assert b"secret.jpg" not in [sample.data for sample in samples]
    assert all("\0" not in sample.key + sample.path for sample in samples)


def test_metadata_columns_become_text_and_json(tmp_path: Path) -> None:
    write_images(tmp_path, "1.jpg", "2.jpg")
    frame = pl.DataFrame(
        {
            "file_name": ["1.jpg", "2.jpg"],
            "label": [3, None],
            "text": ["  ", "hi "],
            "lesion": [1.5, None],
            "age": [float("nan"), 2.0],
            "raw": [b"a", b"b"],
            "uid": [UID, "not one"],
        }
    ).with_columns(day=pl.date(2024, 2, 29))
    frame.write_parquet(tmp_path / "metadata.parquet")
    first, second = read(tmp_path, Columns(group="lesion"))
    assert (first.label, first.caption, first.group, first.uid) == ("3", None, "1.5", UID)
    assert first.meta == {"age": None, "day": "2024-02-29"}
    assert (second.label, second.caption, second.group, second.uid) == (None, "hi", None, "")
    assert second.meta == {"age": 2.0, "uid": "not one", "day": "2024-02-29"}


def test_several_metadata_files_are_refused(tmp_path: Path) -> None:
    make_metadata_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg"}')
    assert "metadata.csv, metadata.jsonl" in error_of([tmp_path])


# Tables


def test_table_paths_may_be_absolute_or_lead_out(tmp_path: Path) -> None:
    write_images(tmp_path, "t/in.jpg", "out.jpg")
    path = tmp_path / "t" / "t.csv"
    path.write_text(f"filepath,title\nin.jpg,a\n{tmp_path}/t/in.jpg,b\n{tmp_path}/out.jpg,c\n../out.jpg,d\n")
    samples = read(path)
    assert [sample.path for sample in samples] == ["in.jpg", "in.jpg", f"{tmp_path}/out.jpg", f"{tmp_path}/out.jpg"]
    assert [sample.data for sample in samples] == [b"t/in.jpg", b"t/in.jpg", b"out.jpg", b"out.jpg"]
    assert [sample.caption for sample in samples] == ["a", "b", "c", "d"]


def test_table_problems_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    (tmp_path / "d.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    path = tmp_path / "t.jsonl"
    names = ["a.jpg", None, "gone.jpg", "d.jpg", "pipe.jpg", "a.jpg", "a.jpg/b.jpg"]
    path.write_text("".join(json.dumps({"path": name}) + "\n\n" for name in names))
    assert [(sample.key, sample.problem) for sample in read(path)] == [
        ("a.jpg", ""),
        ("#1", "missing_file"),
        ("gone.jpg", "missing_file"),
        ("d.jpg", "unreadable_file"),
        ("pipe.jpg", "unreadable_file"),
        ("a.jpg", "duplicate_key"),
        ("a.jpg/b.jpg", "missing_file"),
    ]


def test_file_that_may_not_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert [sample.problem for sample in read(write_images(tmp_path, "a.jpg"))] == ["unreadable_file"]


def test_key_column_lets_an_image_come_twice(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    path = tmp_path / "t.tsv"
    path.write_text("key\timage_path\tcaption\n10\ta.jpg\tone\n11\ta.jpg\ttwo\n\ta.jpg\tthree\n")
    assert [(sample.key, sample.problem) for sample in read(path)] == [("10", ""), ("11", ""), ("a.jpg", "")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_table_is_read_once_to_be_opened(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.sources import records, tables

    frame = pl.DataFrame({"path": ["a.jpg", "b.jpg"]})
    (frame.write_csv if suffix == "csv" else frame.write_ndjson)(tmp_path / f"t.{suffix}")
    read, real = [], records.read_table
    for module in (records, tables):
        monkeypatch.setattr(module, "read_table", lambda path: read.append(path.name) or real(path))
    (source,) = open_sources([tmp_path / f"t.{suffix}"])
    assert (source.count, read) == (2, [f"t.{suffix}"])


def test_a_column_of_paths_has_no_meaning_for_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    with pytest.raises(SourceError, match=r"x\.tar is read as tar, whose images are its members: --path"):
        open_sources([tmp_path / "x.tar"], Columns(path="url"))


def test_table_of_mixed_types_parses(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpath,label\nx,1\ny,one\nz,1.5\n")
    (tmp_path / "t.jsonl").write_text('{"path": "x", "label": 1}\n{"path": "y", "label": {"a": NaN}}\n{"path": "z"}\n')
    assert [sample.label for sample in read(tmp_path / "t.csv")] == ["1", "one", "1.5"]
    assert [sample.label for sample in read(tmp_path / "t.jsonl")] == ["1", '{"a": null}', None]


def test_missing_path_column_lists_the_columns_and_advises(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("img,caption\na.jpg,x\n")
    message = error_of([path])
    assert "--path" in message
    assert "img, caption" in message
    assert [sample.key for sample in read(path, Columns(path="img"))] == ["a.jpg"]


def test_column_that_holds_no_paths_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"image": [{"url": "x", "path": "a.jpg"}]}).write_parquet(path)
    assert "not a path" in error_of([path], Columns(path="image"))


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("t.csv", b"", "empty"),
        ("t.csv", b"path,b\n1,2,3\n", "more fields"),
        ("t.csv", b"path\n\xff\xfe\n", "utf-8"),
        ("t.jsonl", b'{"path": 1}\n{"path"', "line 2"),
        ("t.jsonl", b"[1]\n", "no JSON object"),
        ("t.parquet", b"PAR1", "parquet"),
    ],
)
def test_broken_table_is_named_with_the_reason(name: str, data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    message = error_of([tmp_path / name])
    assert name in message
    assert why in message


# Properties

KEYS = st.text("ab/.\u00e9 ", min_size=1, max_size=6)
EXTENSIONS = st.sampled_from(["jpg", "PNG", "txt", "json", "cls", "seg.png", ""])


@settings(max_examples=80, deadline=None)
@given(
    members=st.lists(st.tuples(KEYS, EXTENSIONS, st.integers(0, 1500)), max_size=8),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    share=st.floats(0, 1),
)
def test_cut_tar_loses_no_complete_sample(members: list[tuple[str, str, int]], form: int, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        named = [(f"{key}.{extension}" if extension else key, b"x" * size) for key, extension, size in members]
        path = write_tar(Path(folder, "s.tar"), named, form)
        whole = read(path)
        with path.open("rb") as file:
            groups = list(index_tar(path, file))
        cut = int(share * path.stat().st_size)
        os.truncate(path, cut)
        try:
            samples = read(path)
        except SourceError:
            samples = []
        is_complete = [all(offset + size <= cut for offset, size in group.parts.values()) for group in groups]
        complete = is_complete.index(False) if False in is_complete else len(groups)
        assert samples[:complete] == whole[:complete]


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=8), fix=st.booleans()
)
def test_mutated_tar_raises_nothing_else(changes: list[tuple[int, int]], fix: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        members = [("0.jpg", b"x" * 100), ("n" * 130 + ".jpg", b"y"), ("1.json", b"{}")]
        path = write_tar(Path(folder, "s.tar"), members)
        data = bytearray(path.read_bytes())
        for place, value in changes:
            data[place] = value
        for start in range(0, 4096, 512) if fix else ():
            if any(data[start : start + 512]):  # make every block a header whose sum is right
                header = data[start : start + 148] + b" " * 8 + data[start + 156 : start + 512]
                data[start + 148 : start + 156] = f"{sum(header) % 0o1000000:06o}\0 ".encode()
        path.write_bytes(data)
        try:
            samples = read(path)
        except SourceError:
            return
        assert all(sample.size == len(sample.data) for sample in samples)


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_parquet_raises_nothing_else(changes: list[tuple[float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.parquet")
        pl.DataFrame({"path": ["a.jpg", "b.jpg"], "raw": [b"a", b"b"], "sizes": [[1], [2, 3]]}).write_parquet(path)
        data = bytearray(path.read_bytes())
        for share, value in changes:
            data[int(share * len(data))] = value
        path.write_bytes(data)
        try:
            assert all(isinstance(sample.key, str) for sample in read(path))
        except SourceError as error:
            assert "t.parquet" in str(error)  # noqa: PT017


# Alternatives


def test_a_list_of_captions_is_a_caption_and_its_alternatives(tmp_path: Path) -> None:
    captions = ["", " first ", "second", "first", ["third", None], "second"]
    members = [("0.jpg", b"x"), ("0.json", json.dumps({"caption": captions}).encode())]
    (sample,) = read(write_tar(tmp_path / "s.tar", members))
    assert (sample.caption, sample.alternatives) == ("first", ("second", "third"))
    assert sample.meta == {}


def test_captions_beside_the_text_member_are_alternatives(tmp_path: Path) -> None:
    members = [
        ("0.jpg", b"x"),
        ("0.txt", b"own"),
        ("0.json", b'{"caption": ["a", "own", "b"], "alt": "from the page"}'),
    ]
    path = write_tar(tmp_path / "s.tar", members)
    assert read(path)[0].alternatives == ("a", "b")
    named = read(path, Columns(alternatives="alt"))[0]
    assert (named.caption, named.alternatives, named.meta) == (
        "own",
        ("a", "b", "from the page"),
        {"caption": ["a", "own", "b"]},
    )


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_alternatives_of_a_table(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    frame = pl.DataFrame(
        {
            "path": ["a.jpg", "b.jpg", "c.jpg"],
            "caption": [["one", "two"], None, []],
            "alt": [["two", "three"], ["four"], None],
        }
    )
    path = tmp_path / f"t.{suffix}"
    getattr(frame, {"parquet": "write_parquet", "jsonl": "write_ndjson"}[suffix])(path)
    assert [(s.caption, s.alternatives) for s in read(path)] == [("one", ("two",)), (None, ()), (None, ())]
    found = read(path, Columns(alternatives="alt"))
    assert [s.alternatives for s in found] == [("two", "three"), ("four",), ()]
    assert all(s.meta == {} for s in found)
    assert "--alternatives" in error_of([path], Columns(alternatives="nope"))


def test_one_text_is_one_alternative(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,caption,title\na.jpg,said,also said\n")
    (sample,) = read(tmp_path, Columns(alternatives="title"))
    assert (sample.caption, sample.alternatives) == ("said", ("also said",))
