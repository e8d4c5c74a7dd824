"""Whatever is wrong with a manifest, reading it gives its rows or a ManifestError."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from golden import make
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ManifestError
from curate.manifest import FORMAT, manifest_info, manifest_roots, read_manifest, scan_manifest
from curate.verification import Verified, verify

GOLDEN = make.GOLDEN / f"manifest-{FORMAT[0]}.{FORMAT[1]}"
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}), st.just("\0"),
    st.just("\ud800"), st.just(".."), st.just(2**70), st.just([1, 3]), st.just({"path": "x"}), st.just("manifest.json"),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one manifest after the other."""
    return tmp_path_factory.mktemp("fuzz")


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*at, name)
        yield from places(inner, (*at, name))


INFO = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
PLACES = list(places(INFO))
PART = GOLDEN / INFO["parts"][0]["path"]


def renewed(folder: Path) -> None:
    """Copy the golden manifest into the folder, nothing else."""
    shutil.rmtree(folder)
    shutil.copytree(GOLDEN, folder)


def read_every_way(folder: Path) -> None:
    """Read all there is to read; nothing but a ManifestError may come of it."""
    with suppress(ManifestError):
        read_manifest(folder)
    with suppress(ManifestError):
        scan_manifest(folder)
    with suppress(ManifestError):
        manifest_roots(manifest_info(folder))
    with suppress(ManifestError):
        assert isinstance(verify(folder), Verified)


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), st.one_of(ODD, st.just(...))), min_size=1, max_size=3))
@settings(max_examples=40)
def test_changed_entries_of_the_json_are_read_or_named(changes: list[tuple[Any, Any]], folder: Path) -> None:
    info = json.loads(json.dumps(INFO))
    for path, value in changes:
        inner = info
        try:
            for name in path[:-1]:
                inner = inner[name]
            if value is ...:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
    renewed(folder)
    (folder / "manifest.json").write_text(json.dumps(info), encoding="utf-8")
    read_every_way(folder)


@given(at=st.integers(0, len(json.dumps(INFO))), put=st.binary(max_size=6), cut=st.integers(0, 20))
@settings(max_examples=40)
def test_changed_bytes_of_the_json_are_read_or_named(at: int, put: bytes, cut: int, folder: Path) -> None:
    renewed(folder)
    data = (GOLDEN / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data[:at] + put + data[at + cut :])
    read_every_way(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, '{"format": [1, 3], "format": {}}'])
def test_json_that_is_too_deep_or_too_long_is_named(text: str, folder: Path) -> None:
    renewed(folder)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError):
        read_manifest(folder)


@given(
    flips=st.dictionaries(st.integers(0, PART.stat().st_size - 1), st.integers(1, 255), min_size=1, max_size=4),
    cut=st.one_of(st.just(0), st.integers(0, PART.stat().st_size)),
    sealed=st.booleans(),
)
@settings(max_examples=80)
def test_damaged_parts_are_read_or_named(flips: dict[int, int], cut: int, sealed: bool, folder: Path) -> None:
    """`sealed`: with the SHA-256 of the damaged bytes, as one who means harm would."""
    data = bytearray(PART.read_bytes())
    for at, change in flips.items():
        data[at] ^= change
    data = data[: len(data) - cut]
    renewed(folder)
    (folder / PART.name).write_bytes(data)
    if sealed:
        info = json.loads(json.dumps(INFO))
        info["parts"][0]["sha256"] = hashlib.sha256(data).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(info), encoding="utf-8")
        read_every_way(folder)
        return
    with pytest.raises(ManifestError, match="is damaged"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.drop("path"),
        lambda rows: rows.with_columns(pl.col("offset").cast(pl.String)),
        lambda rows: rows.with_columns(uid=pl.lit(None)),
        lambda rows: rows.with_columns(key=pl.struct("key", "path")),
        lambda rows: rows.with_columns(caption=pl.concat_list("caption")),
        lambda rows: rows.head(0),
        lambda rows: pl.concat([rows, rows]),
        lambda rows: pl.DataFrame({"a": [1]}),
    ],
)
def test_parts_of_other_columns_are_named(change: Any, folder: Path) -> None:
    renewed(folder)
    change(pl.read_parquet(PART)).write_parquet(folder / PART.name)
    info = json.loads(json.dumps(INFO))
    info["parts"][0]["sha256"] = hashlib.sha256((folder / PART.name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(ManifestError, match=PART.name):
        read_manifest(folder)


def test_parts_that_do_not_fit_together_are_named(folder: Path) -> None:
    renewed(folder)
    info = json.loads(json.dumps(INFO))
    pl.read_parquet(PART).drop("pvi").write_parquet(folder / "other.parquet")
    sha256 = hashlib.sha256((folder / "other.parquet").read_bytes()).hexdigest()
    info["parts"].append({"path": "other.parquet", "rows": 4, "bytes": 1, "sha256": sha256})
    (folder / "manifest.json").write_text(json.dumps(info | {"rows": 8}), encoding="utf-8")
    with pytest.raises(ManifestError):
        read_manifest(folder)
