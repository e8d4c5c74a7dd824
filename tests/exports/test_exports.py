"""Exports of a manifest: what is in them, what they refuse, and what they say."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from exports.material import contents, folder_rows, manifest, row, tar_rows
from hypothesis import given
from hypothesis import strategies as st
from pictures import write_tar
from stores import upload

import curate
from curate.errors import ExportError, ManifestError, UsageError
from curate.exports import export
from curate.exports.formats import FORMATS
from curate.exports.names import Names
from curate.exports.options import Options, parse_size
from curate.exports.wds_index import braced
from curate.exports.weights import repeats
from curate.manifest import read_manifest

ROOT = Path(__file__).parents[2]


def rows_of(base: Path) -> list[dict[str, Any]]:
    return read_manifest(base / "m").to_dicts()


def weighted(folder: Path, weights: list[float]) -> Path:
    """Return a manifest with rows of these weights; their images do not exist."""
    rows = [row("s", f"k{i}", "gone.tar", 512, bytes([i]), weight=weight) for i, weight in enumerate(weights)]
    return manifest(folder, rows, {"s": folder})


def resharded(subset: np.ndarray, uids: list[str]) -> list[str]:
    """Return the keys that DataComp's resharder writes for the samples of a pool, by its published rule."""
    keys = []
    for uid in uids:
        halves = np.array([(int(uid[:16], 16), int(uid[16:], 16))], dtype=np.dtype("u8,u8"))[0]
        first, last = (np.searchsorted(subset, halves, side) for side in ("left", "right"))
        keys += [f"{uid}-{j}" for j in range(last - first)]
    return keys


def test_datacomps_resharder_finds_the_chosen_uids(tars: Path, tmp_path: Path) -> None:
    done = export(tars / "m", "datacomp", tmp_path / "subset.npy")
    subset = np.load(tmp_path / "subset.npy")
    assert subset.dtype == np.dtype("u8,u8")
    assert subset.ndim == 1
    assert (tmp_path / "subset.npy").read_bytes()[:6] == b"\x93NUMPY"
    chosen = [one["uid"] for one in rows_of(tars)]
    assert done.samples == len(subset) == len(chosen)
    others = [hashlib.md5(bytes([i])).hexdigest() for i in range(50)]
    assert resharded(subset, [*others, *chosen]) == [f"{uid}-0" for uid in chosen]
    assert [f"{high:016x}{low:016x}" for high, low in subset.tolist()] == sorted(chosen)


def test_datacomp_repeats_a_uid_as_often_as_its_weight(tmp_path: Path) -> None:
    folder = weighted(tmp_path / "m", [1, 3, 0, 2])
    uids = read_manifest(folder)["uid"].to_list()
    assert export(folder, "datacomp", tmp_path / "x.npy").samples == 6
    found = Counter(key.partition("-")[0] for key in resharded(np.load(tmp_path / "x.npy"), uids))
    assert found == {uids[0]: 1, uids[1]: 3, uids[3]: 2}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**64 - 1)), max_size=30))
def test_datacomp_sorts_uids_that_share_their_first_half(pairs: list[tuple[int, int]]) -> None:
    from curate.exports.datacomp import _sort

    high = np.array([a for a, _ in pairs], dtype=np.uint64)
    low = np.array([b for _, b in pairs], dtype=np.uint64)
    order = _sort(high, low)
    assert list(zip(high.tolist(), low.tolist(), strict=True)) == sorted(pairs)
    assert [pairs[i] for i in order] == sorted(pairs)


def test_fractional_weights_are_refused_unless_rounded(tmp_path: Path) -> None:
    folder = weighted(tmp_path / "m", [1, 1.5])
    with pytest.raises(ExportError, match=r"weight 1.5 of row 1 is not a number of repeats; --round stochastic"):
        export(folder, "datacomp", tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
    assert export(folder, "datacomp", tmp_path / "x.npy", rounding="stochastic", seed=1).samples in (2, 3)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e9])
def test_weights_that_are_no_repeats_are_refused(weight: float, tmp_path: Path) -> None:
    folder = weighted(tmp_path / "m", [weight])
    with pytest.raises(ExportError, match=r"of row 0 is not a number of repeats$"):
        export(folder, "datacomp", tmp_path / "x.npy", rounding="stochastic", seed=1)


def test_stochastic_rounding_keeps_the_mean_and_depends_on_the_row_alone() -> None:
    options = Options(rounding="stochastic", seed=3)
    weight = np.full(20_000, 1.3, dtype=np.float32)
    whole = repeats(weight, 0, options)
    assert set(whole.tolist()) == {1, 2}
    assert abs(whole.mean() - 1.3) < 4 * np.sqrt(0.3 * 0.7 / len(weight))
    assert np.array_equal(np.concatenate([repeats(weight[:7], 0, options), repeats(weight[7:], 7, options)]), whole)


def test_horvitz_thompson_weights_are_no_repeats(tmp_path: Path) -> None:
    rows = [row("s", f"k{i}", "gone.tar", 512, bytes([i])) for i in range(3)]
    folder = manifest(tmp_path / "m", rows, {"s": tmp_path})
    part = next(folder.glob("*.parquet"))
    frame = pl.read_parquet(part).with_columns(ht_weight=pl.lit(7, dtype=pl.Float32))
    curate.manifest.write_manifest(folder, frame, {"sources": [{"id": "s", "root": "/", "kind": "tar"}]})
    assert export(folder, "datacomp", tmp_path / "x.npy").samples == 3


@pytest.mark.parametrize("uid", ["F" * 32, "f" * 31, "é" + "f" * 30, ""])
def test_a_uid_that_is_none_is_named(uid: str, tmp_path: Path) -> None:
    rows = [row("s", "a", "x.tar", 0, b"1"), row("s", "b", "x.tar", 0, b"2", uid=uid)]
    folder = manifest(tmp_path / "m", rows, {"s": tmp_path})
    with pytest.raises(ExportError, match=r"row 1 has the uid .* not 32 lower-case hex digits"):
        export(folder, "datacomp", tmp_path / "x.npy")


def test_webdataset_writes_repeats_under_keys_of_their_own(tars: Path, tmp_path: Path) -> None:
    rows = [one | {"weight": float(i % 3)} for i, one in enumerate(rows_of(tars)[:6])]
    folder = manifest(tmp_path / "m", rows, {"00000.tar": tars / "tars", "00001.tar": tars / "tars"})
    done = export(folder, "webdataset", tmp_path / "out", repeats=True)
    with tarfile.open(tmp_path / "out" / "00000000.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")]
    assert names == [f"{one['key']}-{j}.jpg" for one in rows for j in range(int(one["weight"]))]
    assert done.samples == len(names) == 6


def test_no_number_in_a_tars_json_is_not_json(tmp_path: Path) -> None:
    rows = [one | {"pvi": float("nan"), "gain": float("inf")} for one in tar_rows(tmp_path / "t", "0.tar", range(1))]
    export(manifest(tmp_path / "m", rows, {"0.tar": tmp_path / "t"}), "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "00000000.tar") as tar:
        text = tar.extractfile("000000000.json").read()  # type: ignore[union-attr]
    told = json.loads(text, parse_constant=pytest.fail)
    assert (told["pvi"], told["gain"], told["weight"]) == (None, None, 1.0)


def test_exported_tars_are_a_source_of_the_same_samples(tars: Path, tmp_path: Path) -> None:
    from curate.sources import open_sources

    export(tars / "m", "webdataset", tmp_path / "out", shard_size=12_000)
    seen = [sample for source in open_sources([tmp_path / "out"]) for sample in source.rows()]
    told = [(one.uid, one.caption, hashlib.sha256(one.data).hexdigest()) for one in seen]
    assert told == [(one["uid"], one["caption"], one["sha256"]) for one in rows_of(tars)]


def test_dali_indexes_point_at_the_bytes_in_the_original_tars(tars: Path, tmp_path: Path) -> None:
    done = export(tars / "m", "wds-index", tmp_path / "out")
    rows = rows_of(tars)
    told = json.loads((tmp_path / "out" / "shards.json").read_text())["shardlist"]
    assert (tmp_path / "out" / "shards.txt").read_text() == f"{tars}/tars/{{00000..00001}}.tar\n"
    assert (done.samples, done.files) == (24, 2)
    seen = {}
    for shard in told:
        first, *lines = (tmp_path / "out" / shard["index"]).read_text().splitlines()
        assert first == f"v1.2 {shard['nsamples']}" == f"v1.2 {len(lines)}"
        data = Path(shard["url"]).read_bytes()
        with tarfile.open(shard["url"]) as tar:
            members = {member.name: (member.offset_data, member.size) for member in tar}
        for line in lines:
            fields = line.split(" ")
            parts = [fields[i : i + 4] for i in range(0, len(fields), 4)]
            assert [part[0] for part in parts] == ["jpg", "txt", "json"]
            for end, offset, size, name in parts:
                assert members[name] == (int(offset), int(size))
                assert name.endswith(f".{end}")
            _, offset, size, name = parts[0]
            seen[name] = hashlib.sha256(data[int(offset) : int(offset) + int(size)]).hexdigest()
    assert seen == {f"{one['key']}.jpg": one["sha256"] for one in rows}


def test_rows_that_lie_in_no_tar_are_not_indexed(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"12 of 12 rows cannot be exported \(12 not_in_a_tar\)"):
        export(photos / "m", "wds-index", tmp_path / "out")


@pytest.mark.parametrize(
    ("urls", "lines"),
    [
        (["a/08.tar", "a/09.tar", "a/10.tar"], ["a/{08..10}.tar"]),
        (["a/8.tar", "a/9.tar", "a/10.tar"], ["a/{8..9}.tar", "a/10.tar"]),
        (["a/1.tar", "b/2.tar", "b/4.tar"], ["a/1.tar", "b/2.tar", "b/4.tar"]),
        (["x.tar", "y1-train.tar", "y2-train.tar"], ["x.tar", "y{1..2}-train.tar"]),
        ([], []),
    ],
)
def test_consecutive_tars_are_one_line(urls: list[str], lines: list[str]) -> None:
    assert braced(urls) == lines


def test_lines_hold_every_column_and_absolute_paths(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos)
    export(photos / "m", "jsonl", tmp_path / "x.jsonl")
    export(photos / "m", "csv", tmp_path / "x.csv")
    export(photos / "m", "txt", tmp_path / "x.txt")
    seen = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    full = [one | {"path": f"{photos}/photos/{one['path']}"} for one in rows]
    assert seen == full
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["path"] for line in table] == [one["path"] for one in full]
    assert [float(line["gain"]) for line in table] == [one["gain"] for one in rows]
    assert list(table[0]) == list(rows[0])
    assert (tmp_path / "x.txt").read_text().splitlines() == [one["path"] for one in rows]


def test_names_of_what_lies_in_tars_are_keys(tars: Path, tmp_path: Path) -> None:
    export(tars / "m", "txt", tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text().splitlines() == [one["key"] for one in rows_of(tars)]


def test_a_name_with_a_line_break_is_told_not_split(tmp_path: Path) -> None:
    rows = [row("s", name, name, 0, b"x") for name in ("a.jpg", "b\nc.jpg")]
    folder = manifest(tmp_path / "m", rows, {"s": tmp_path})
    done = export(folder, "txt", tmp_path / "x.txt", skip_missing=True)
    assert (tmp_path / "x.txt").read_text() == "a.jpg\n"
    assert done.refused == {"line_break_in_name": 1}


HOSTILE = [
    "../../x", "a/b", "a_b", "A_B", "a\0b", "é", "e\u0301", "con", "-rf", "", ".", "..", "x" * 300, "x" * 301,
    "日" * 99, "a b", "{a,b}", "a.b.jpg", "a~1", "\u202egpj", "c:\\x", "CON.jpg", "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("form", ["webdataset", "copy"])
def test_hostile_keys_become_names_of_their_own(form: str, tmp_path: Path) -> None:
    rows, members = [], [(f"{i:03d}.jpg", b"\xff\xd8\xff" + bytes([i])) for i in range(len(HOSTILE) * 2)]
    path = write_tar(tmp_path / "tars" / "x.tar", members)
    with tarfile.open(path) as tar:
        for i, (member, (_, data)) in enumerate(zip(tar, members, strict=True)):
            key, source = HOSTILE[i % len(HOSTILE)], f"s{i // len(HOSTILE)}"
            rows.append(row(source, key, "x.tar", member.offset_data, data, label="../" if i % 2 else None))
    folder = manifest(tmp_path / "m", rows, {"s0": tmp_path / "tars", "s1": tmp_path / "tars"})
    done = export(folder, form, tmp_path / "out")
    if form == "copy":
        files = {name: data for name, data in contents(tmp_path / "out").items() if not name.startswith(".")}
    else:
        with tarfile.open(tmp_path / "out" / "00000000.tar") as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}  # type: ignore[union-attr]
    assert Counter(files.values()) == Counter(data for _, data in members)
    assert len({name.lower() for name in files}) == len(members) == done.samples
    for name in files:
        stem = name.rpartition("/")[2].removesuffix(".jpg")
        assert stem
        assert not set(stem) & set("./\\\0\n :{},")
        assert len(name.encode()) < 255
        assert not stem.startswith("-")
    assert done.renamed == len(members)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "out", "tars"]


class Keys:
    """As much of a Subset as names are made of."""

    def __init__(self, keys: list[str]) -> None:
        self.rows, self._keys = len(keys), keys

    def frames(self, columns: list[str]) -> list[pl.DataFrame]:
        assert columns == ["key"]
        cut = self.rows // 2
        return [pl.DataFrame({"key": part}, schema={"key": pl.String}) for part in (self._keys[:cut], self._keys[cut:])]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["a", "A", "a.jpg", "a~1"]), max_size=9
    )
)
def test_names_of_any_keys_are_safe_and_apart(keys: list[str]) -> None:
    names = Names(Keys(keys))  # type: ignore[arg-type]
    found = names.of(keys, 0)
    assert len({unicodedata.normalize("NFD", name).lower() for name in found}) == len(keys)
    for key, name in zip(keys, found, strict=True):
        plain = re.sub(r"~\d+$", "", name).replace("_", "").replace("-", "")
        assert not any(unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co") for sign in plain)
        assert not any(unicodedata.category(sign)[0] in "ZPS" for sign in plain)
        assert re.match("[^-~]", name)
        if re.fullmatch(r"[a-z]+", key) and keys.count(key) == 1 and "A" not in keys and "a.jpg" not in keys:
            assert name == key
    assert names.of(keys[1:], 1) == found[1:]


def test_equal_keys_of_two_sources_are_told_apart_and_named_in_the_sample(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path / "a", "0.tar", range(2), "one") + tar_rows(tmp_path / "b", "0.tar", range(2), "two")
    folder = manifest(tmp_path / "m", rows, {"one": tmp_path / "a", "two": tmp_path / "b"})
    done = export(folder, "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "00000000.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".json")]
        told = [json.loads(tar.extractfile(name).read()) for name in names]  # type: ignore[union-attr]
    assert names == [f"00000000{i % 2}~{i}.json" for i in range(4)]
    assert [(one["source"], one["key"]) for one in told] == [(one["source"], one["key"]) for one in rows]
    assert done.renamed == 4


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    """A folder `a` of 6 pictures whose second is gone and whose fourth has changed, and their manifest `m`."""
    rows = folder_rows(tmp_path / "whole", range(6), "photos")
    manifest(tmp_path / "m", rows, {"photos": tmp_path / "a"})
    shutil.copytree(tmp_path / "whole", tmp_path / "a")
    (tmp_path / "a" / rows[1]["path"]).unlink()
    changed = tmp_path / "a" / rows[3]["path"]
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    return tmp_path


def test_shards_that_were_removed_are_written_again(moving: Path) -> None:
    with pytest.raises(ExportError):
        export(moving / "m", "webdataset", moving / "out", shard_size=1000)
    (moving / "out" / "00000000.tar").unlink()
    (moving / "out" / ".curate-export" / "00000002.shard").unlink()
    moved = {str(moving / "a"): str(moving / "whole")}
    export(moving / "m", "webdataset", moving / "out", shard_size=1000, roots=moved)
    export(moving / "m", "webdataset", moving / "fresh", shard_size=1000, roots=moved)
    assert contents(moving / "out") == contents(moving / "fresh")


def test_notes_of_shards_without_their_job_are_not_believed(moving: Path) -> None:
    work = moving / "x" / ".curate-export"
    work.mkdir(parents=True)
    (work / "00000000.shard").write_text('{"samples": 99, "bytes": 0, "files": 1, "problems": [], "names": []}')
    assert export(moving / "m", "symlinks", moving / "x", skip_missing=True).samples == 5


READING = ["webdataset", "hf", "mds", "litdata", "lance", "copy"]


@pytest.mark.parametrize("form", READING)
def test_missing_and_changed_images_are_counted_and_listed(form: str, moving: Path) -> None:
    sized = {"shard_size": 1000} if "shard_size" in FORMATS[form].options else {}
    with pytest.raises(
        ExportError, match=r"2 of 6 rows cannot be exported \(1 changed, 1 missing\), listed in .*out.prob"
    ):
        export(moving / "m", form, moving / "out", **sized)
    listed = [json.loads(line) for line in (moving / "out.problems.jsonl").read_text().splitlines()]
    assert [(one["row"], one["reason"]) for one in listed] == [(1, "missing"), (3, "changed")]
    # With the images back, the same command ends as if nothing had been.
    shutil.rmtree(moving / "a")
    shutil.copytree(moving / "whole", moving / "a")
    done = export(moving / "m", form, moving / "out", **sized)
    assert (done.samples, done.refused) == (6, {})
    assert not (moving / "out.problems.jsonl").exists()
    export(moving / "m", form, moving / "fresh", **sized)
    if form != "lance":
        assert contents(moving / "out") == contents(moving / "fresh")


@pytest.mark.parametrize("form", READING)
def test_missing_images_may_be_left_out(form: str, moving: Path) -> None:
    sized = {"shard_size": 1000} if "shard_size" in FORMATS[form].options else {}
    done = export(moving / "m", form, moving / "out", skip_missing=True, **sized)
    assert (done.samples, done.refused) == (4, {"missing": 1, "changed": 1})
    assert done.report == str(moving / "out.problems.jsonl")
    assert export(moving / "m", form, moving / "out", skip_missing=True, **sized).refused == done.refused
    with pytest.raises(ExportError, match="2 of 6 rows"):
        export(moving / "m", form, moving / "out", **sized)


@pytest.mark.parametrize("form", [*READING, "symlinks", "fiftyone"])
def test_what_was_left_out_is_added_once_it_is_back(form: str, moving: Path) -> None:
    if form in ("symlinks", "fiftyone"):  # these compare sizes
        changed = next(path for path in (moving / "a").rglob("*3.jpg"))
        changed.write_bytes(changed.read_bytes() + b"x")
    assert export(moving / "m", form, moving / "out", skip_missing=True).samples == 4
    shutil.rmtree(moving / "a")
    shutil.copytree(moving / "whole", moving / "a")
    done = export(moving / "m", form, moving / "out")
    assert (done.samples, done.refused) == (6, {})
    assert not (moving / "out.problems.jsonl").exists()
    export(moving / "m", form, moving / "fresh")
    if form == "lance":
        import lance

        assert lance.dataset(moving / "out").count_rows() == 6
    else:
        assert contents(moving / "out") == contents(moving / "fresh")


def test_a_listing_that_lacks_rows_is_completed_once_it_is_out_of_the_way(tars: Path, tmp_path: Path) -> None:
    shutil.copytree(tars / "tars", tmp_path / "tars")
    rows = {source["id"]: tmp_path / "tars" for source in sources(tars)}
    folder = manifest(tmp_path / "m", rows_of(tars), rows)
    (tmp_path / "tars" / "00001.tar").rename(tmp_path / "gone.tar")
    out = tmp_path / "x.json"
    assert export(folder, "coco", out, skip_missing=True).refused == {"missing": 12}
    (tmp_path / "gone.tar").rename(tmp_path / "tars" / "00001.tar")
    with pytest.raises(ExportError, match=r"x\.json lacks 12 rows that were left out; remove it"):
        export(folder, "coco", out)
    out.unlink()
    assert export(folder, "coco", out).samples == 24
    assert len(json.loads(out.read_text())["images"]) == len(list((tmp_path / "x-images").glob("*.jpg"))) == 24


def test_copies_stay_where_the_listing_has_no_place(tars: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    out.write_text("mine")
    with pytest.raises(ExportError, match="exists and is another file"):
        export(tars / "m", "open-clip-csv", out)
    assert out.read_text() == "mine"
    assert len(list((tmp_path / "x-images").glob("*.jpg"))) == 24
    out.unlink()
    assert export(tars / "m", "open-clip-csv", out).samples == 24


def test_a_size_that_lies_is_a_refusal(tars: Path, tmp_path: Path) -> None:
    rows = rows_of(tars)[:3]
    rows[1]["size"], rows[2]["size"] = 2**62, 2**63 - 1
    folder = manifest(tmp_path / "m", rows, {source["id"]: tars / "tars" for source in sources(tars)})
    done = export(folder, "copy", tmp_path / "out", skip_missing=True)
    assert (done.samples, done.refused) == (1, {"changed": 2})


@pytest.mark.parametrize("form", ["open-clip-csv", "coco", "fiftyone", "symlinks"])
def test_lists_of_files_name_only_what_is_there(form: str, moving: Path) -> None:
    changed = next(path for path in (moving / "a").rglob("*3.jpg"))
    changed.write_bytes(changed.read_bytes() + b"x")
    done = export(moving / "m", form, moving / "out", skip_missing=True)
    assert (done.samples, done.refused) == (4, {"missing": 1, "changed": 1})


def test_moved_sources_are_found_where_they_lie_now(moving: Path) -> None:
    done = export(moving / "m", "webdataset", moving / "out", roots={str(moving / "a"): str(moving / "whole")})
    assert done.samples == 6
    with pytest.raises(ExportError, match="1 missing"):
        export(moving / "m", "symlinks", moving / "links")
    assert (
        export(moving / "m", "symlinks", moving / "links", roots={str(moving / "a"): str(moving / "whole")}).samples
        == 6
    )
    assert all("whole" in os.readlink(path) for path in (moving / "links").rglob("*.jpg"))
    with pytest.raises(ManifestError, match="no source of the manifest lies under"):
        export(moving / "m", "webdataset", moving / "other", roots={"/nowhere": "/x"})


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_what_exists_is_not_replaced_unless_it_is_equal(form: str, photos: Path, tars: Path, tmp_path: Path) -> None:
    base = tars if form == "wds-index" else photos
    out = tmp_path / "out"
    export(base / "m", form, out)
    before = contents(tmp_path)
    export(base / "m", form, out)
    assert contents(tmp_path) == before
    other = manifest(tmp_path / "m2", rows_of(base)[:3], {s["id"]: Path(s["root"]) for s in sources(base)})
    with pytest.raises(ExportError, match=r"holds another export|exists and is another file"):
        export(other, form, out)
    shutil.rmtree(tmp_path / "m2")
    assert contents(tmp_path) == before
    if FORMATS[form].kind == "folder":
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("x")
        with pytest.raises(ExportError, match="is not empty"):
            export(base / "m", form, tmp_path / "mine")


def sources(base: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = curate.manifest.manifest_info(base / "m")["sources"]
    return found


def test_images_that_cannot_be_files_are_refused_without_copies(tars: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="24 not_a_file"):
        export(tars / "m", "open-clip-csv", tmp_path / "x.csv", copy=False)
    with pytest.raises(ExportError, match="24 not_a_file"):
        export(tars / "m", "symlinks", tmp_path / "links")


def test_rows_without_a_caption_are_no_rows_of_open_clip(tmp_path: Path) -> None:
    rows = [
        one | {"caption": None if i else " two\tlines\n"} for i, one in enumerate(folder_rows(tmp_path / "p", range(2)))
    ]
    folder = manifest(tmp_path / "m", rows, {"photos": tmp_path / "p"})
    done = export(folder, "open-clip-csv", tmp_path / "x.csv", skip_missing=True)
    assert (done.samples, done.refused) == (1, {"no_caption": 1})
    assert (tmp_path / "x.csv").read_text() == f"filepath\ttitle\n{tmp_path}/p/{rows[0]['path']}\ttwo lines\n"


def test_images_that_the_format_cannot_hold_are_not_read(tmp_path: Path) -> None:
    rows = tar_rows(tmp_path / "t", "0.tar", range(3))
    folder = manifest(
        tmp_path / "m", [one | {"caption": " "} for one in rows[:2]] + rows[2:], {"0.tar": tmp_path / "t"}
    )
    done = export(folder, "open-clip-csv", tmp_path / "x.csv", skip_missing=True)
    assert (done.samples, done.refused) == (1, {"no_caption": 2})
    assert [path.stem for path in (tmp_path / "x-images").glob("*.jpg")] == [rows[2]["key"]]


def test_crops_of_an_image_in_an_archive_read_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.exports import images

    rows = []
    for i, one in enumerate(tar_rows(tmp_path / "t", "0.tar", range(2)) * 2):
        rows.append(one | {"crop_x": 8 * i, "crop_y": 4, "crop_w": 24, "crop_h": 48, "tile": 0, "tile_slot": i})
    rows[3]["width"] = None
    folder = manifest(tmp_path / "m", rows, {"0.tar": tmp_path / "t"}, crops=True)
    read, real = [], images.stored_bytes
    monkeypatch.setattr(images, "stored_bytes", lambda row, roots: read.append(row["key"]) or real(row, roots))
    assert export(folder, "coco", tmp_path / "x.json").samples == 4
    assert sorted(read) == sorted({one["key"] for one in rows})
    assert len(list((tmp_path / "x-images").glob("*.jpg"))) == 2
    done = export(folder, "fiftyone", tmp_path / "fo", skip_missing=True)
    assert (done.samples, done.refused) == (3, {"no_size": 1})


def cropped(tmp_path: Path) -> Path:
    """A manifest of four crops, two of each of two labelled pictures, in one tile."""
    rows = []
    for i, one in enumerate(folder_rows(tmp_path / "p", range(2)) * 2):
        rows.append(one | {"crop_x": 8 * i, "crop_y": 4, "crop_w": 24, "crop_h": 48, "tile": 0, "tile_slot": i})
    return manifest(tmp_path / "m", rows, {"photos": tmp_path / "p"}, crops=True)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_crops_are_carried_as_boxes_or_refused_by_name(form: str, tmp_path: Path) -> None:
    folder = cropped(tmp_path)
    if not FORMATS[form].crops:
        with pytest.raises(ExportError, match=f"the rows are crops, and {form} holds whole images only; .*coco"):
            export(folder, form, tmp_path / "out")
        return
    assert export(folder, form, tmp_path / "out").samples == 4


def test_crops_are_boxes_of_coco(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export(cropped(tmp_path), "coco", tmp_path / "x.json")
    coco = COCO(str(tmp_path / "x.json"))
    assert len(coco.imgs) == 2
    assert [[a["bbox"] for a in coco.imgToAnns[i]] for i in coco.imgs] == [
        [[0, 4, 24, 48], [16, 4, 24, 48]],
        [[8, 4, 24, 48], [24, 4, 24, 48]],
    ]


def test_crops_are_detections_of_fiftyone(tmp_path: Path) -> None:
    folder = cropped(tmp_path)
    export(folder, "fiftyone", tmp_path / "x")
    files, told = (json.loads((tmp_path / "x" / f"{name}.json").read_text()) for name in ("data", "labels"))
    uids = read_manifest(folder)["uid"].unique(maintain_order=True).to_list()
    assert list(files) == list(told["labels"]) == uids
    assert [one["bounding_box"] for one in told["labels"][uids[1]]] == [
        [8 / 96, 4 / 96, 0.25, 0.5],
        [0.25, 4 / 96, 0.25, 0.5],
    ]
    labels = read_manifest(folder)["label"].to_list()
    assert [told["classes"][one["label"]] for one in told["labels"][uids[1]]] == [labels[1], labels[3]]
    assert all(Path(path).is_file() for path in files.values())


def test_fiftyones_two_files_agree(photos: Path, tmp_path: Path) -> None:
    """As its documentation has FiftyOneImageClassificationDataset, with a JSON manifest instead of a data folder."""
    export(photos / "m", "fiftyone", tmp_path / "x")
    files, told = (json.loads((tmp_path / "x" / f"{name}.json").read_text()) for name in ("data", "labels"))
    rows = rows_of(photos)
    assert set(told) == {"classes", "labels"}
    assert list(files) == list(told["labels"])
    assert not any("." in name for name in files)
    assert [told["classes"][target] for target in told["labels"].values()] == [one["label"] for one in rows]
    assert [hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in files.values()] == [one["sha256"] for one in rows]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_an_empty_manifest_is_an_empty_export(form: str, tmp_path: Path) -> None:
    folder = manifest(tmp_path / "m", [], {"s": tmp_path})
    done = export(folder, form, tmp_path / "out")
    assert (done.rows, done.samples) == (0, 0)


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("zip", {}, "there is no format 'zip'; there are: coco, "),
        ("txt", {"repeats": True}, "txt takes no repeats"),
        ("datacomp", {"shard_size": "1MB"}, "datacomp takes no shard-size"),
        ("datacomp", {"rounding": "up", "seed": 1}, "'up' is unknown"),
        ("datacomp", {"rounding": "stochastic"}, "belong together"),
        ("webdataset", {"rounding": "stochastic", "seed": 1}, "needs repeats"),
        ("mds", {"shard_size": "3GB"}, "out of range"),
        ("mds", {"shard_size": "much"}, "not understood"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    form: str, options: dict[str, Any], message: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export(photos / "m", form, tmp_path / "out", **options)


def test_sizes_are_powers_of_ten() -> None:
    assert [parse_size(text) for text in ("64MB", "1.5 kB", "1gb", 5000)] == [64_000_000, 1500, 10**9, 5000]


@pytest.mark.parametrize("form", ["webdataset", "datacomp", "jsonl"])
def test_parts_are_one_manifest(form: str, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = {one["id"]: Path(one["root"]) for one in sources(tars)}
    monkeypatch.setattr(curate.manifest, "_PART_ROWS", 5)
    parts = manifest(tmp_path / "m", rows_of(tars), roots)
    assert len(list(parts.glob("*.parquet"))) == 5
    sized = {"shard_size": 12_000} if form == "webdataset" else {}
    export(parts, form, tmp_path / "parts", **sized)
    export(tars / "m", form, tmp_path / "whole", **sized)
    if form == "webdataset":
        for out in ("parts", "whole"):
            (tmp_path / out / ".curate-export.json").unlink()  # it tells which manifest it was
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    else:
        assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_damaged_part_is_refused(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "m", tmp_path / "m")
    part = next((tmp_path / "m").glob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(ManifestError, match="is damaged"):
        export(tmp_path / "m", "datacomp", tmp_path / "x.npy")


@pytest.mark.parametrize("form", ["webdataset", "jsonl"])
def test_a_disk_without_space_is_told_in_words(
    form: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("curate.exports.folder.sync", full)
        patch.setattr("curate.exports.run.sync", full)
        with pytest.raises(
            ExportError, match="cannot be written: there is no space left on its disk: free some and run"
        ):
            export(photos / "m", form, tmp_path / "out")
    assert export(photos / "m", form, tmp_path / "out").samples == 12


def test_two_exports_to_one_place_do_not_mix(photos: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out" / ".curate-export").mkdir(parents=True)
    with (
        FileLock(str(tmp_path / "out" / ".curate-export" / "lock")),
        pytest.raises(ExportError, match="another process is exporting"),
    ):
        export(photos / "m", "copy", tmp_path / "out")
    assert export(photos / "m", "copy", tmp_path / "out").samples == 12


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_stores_take_what_is_made_of_plain_files(
    form: str, bucket: str, photos: Path, tars: Path, tmp_path: Path
) -> None:
    from curate.remote import Remote

    base = tars if form == "wds-index" else photos
    to = f"{bucket}/{form}/out"
    if not FORMATS[form].urls:
        with pytest.raises(ExportError, match="is written to local folders only, not to s3://"):
            export(base / "m", form, to)
        return
    export(base / "m", form, to)
    export(base / "m", form, to)
    export(base / "m", form, tmp_path / "out")
    at = Remote(to)
    if (tmp_path / "out").is_file():
        assert at.read_bytes() == (tmp_path / "out").read_bytes()
        return
    assert {name: _under(at, name).read_bytes() for name, _ in at.find()} == contents(tmp_path / "out")


def _under(at: Any, name: str) -> Any:
    for part in name.split("/"):
        at = at / part
    return at


def test_images_in_a_store_are_read_from_there(bucket: str, tars: Path, tmp_path: Path) -> None:
    to = upload(tars / "tars", f"{bucket}/tars")
    export(tars / "m", "webdataset", tmp_path / "remote", roots={str(tars / "tars"): to})
    export(tars / "m", "webdataset", tmp_path / "local")
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_the_command_exports_tells_and_exits_as_promised(moving: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "curate", "export", *map(str, arguments)]
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/kernels:{ROOT}/selectors"}
        return subprocess.run(command, capture_output=True, text=True, cwd=moving, check=False, env=env)

    missing = run("m", "--to", "webdataset", "--out", "out")
    assert missing.returncode == 3
    assert "2 of 6 rows cannot be exported" in missing.stderr
    moved = f"{moving}/a={moving}/whole"
    done = run("m", "--to", "webdataset", "--out", "out", "--root", moved, "--json")
    assert json.loads(done.stdout)["samples"] == 6
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--to", "zip"], "no format 'zip'"), (["--to", "txt", "--root", "x"], "write OLD=NEW")],
)
def test_the_command_refuses_what_it_does_not_understand(arguments: list[str], message: str, photos: Path) -> None:
    from curate.cli import app

    with pytest.raises(UsageError, match=message):
        app(["export", str(photos / "m"), "--out", str(photos / "x"), *arguments], standalone_mode=False)


def test_every_format_is_documented() -> None:
    text = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    listed = {name.strip(" `"): cells for cells in table for name in cells[1].split(",")}
    assert set(listed) == set(FORMATS)
    for name, form in FORMATS.items():
        assert (listed[name][5].strip() != "") == form.crops, name
        assert (listed[name][6].strip() == "yes") == form.urls, name
        assert listed[name][2].strip() == ("folder" if form.kind == "folder" else "file"), name
