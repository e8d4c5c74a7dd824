"""Manifests of every version are read for ever, and today's writer changes no byte of them unless it means to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from golden import make

from curate.manifest import FORMAT, manifest_info, read_manifest, read_parts, scan_manifest, write_manifest
from curate.verification import verify

GOLDEN = Path(make.__file__).parent
FOLDERS = sorted(path.name for path in GOLDEN.glob("manifest-*"))
NEWEST = [name for name in FOLDERS if name.startswith(f"manifest-{FORMAT[0]}.{FORMAT[1]}")]


def told(folder: Path) -> tuple[dict[str, Any], list[bytes]]:
    """manifest.json, and the parts' bytes in its order."""
    info = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return info, [(folder / part["path"]).read_bytes() for part in info["parts"]]


def test_every_version_of_the_format_is_kept() -> None:
    versions = {re.fullmatch(r"manifest-(\d+\.\d+)(-crops)?", name)[1] for name in FOLDERS}  # type: ignore[index]
    assert versions == {f"{FORMAT[0]}.{minor}" for minor in range(FORMAT[1] + 1)}
    assert {f"manifest-1.{minor}-crops" for minor in range(2, FORMAT[1] + 1)} <= set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_old_manifests_are_read(name: str) -> None:
    minor, crops = int(name.split(".")[1][0]), name.endswith("-crops")
    rows = make.rows(minor, crops)
    assert manifest_info(GOLDEN / name)["format"] == [1, minor]
    assert read_manifest(GOLDEN / name).equals(rows)
    assert scan_manifest(GOLDEN / name).collect().equals(rows)
    assert pl.concat(read_parts(GOLDEN / name, ["key", "rank"])).equals(rows.select("key", "rank"))


@pytest.mark.parametrize("name", FOLDERS)
def test_old_manifests_are_verified_where_their_images_lie_now(name: str) -> None:
    done = verify(GOLDEN / name, roots={make.ROOT: str(GOLDEN / "images")})
    assert done.passed
    assert done.ok == done.rows == (8 if name.endswith("-crops") else 4)


@pytest.mark.parametrize("name", NEWEST)
def test_what_is_written_today_equals_the_newest(name: str, tmp_path: Path) -> None:
    """If this fails, the format changed: say so in docs/manifest-format.md, raise FORMAT, and keep the old golden."""
    make.write(tmp_path, name.endswith("-crops"))
    (info, parts), (old, old_parts) = told(tmp_path), told(GOLDEN / name)
    if pl.__version__ == (GOLDEN / "polars.txt").read_text(encoding="utf-8").strip():
        assert parts == old_parts
        assert (tmp_path / "manifest.json").read_bytes() == (GOLDEN / name / "manifest.json").read_bytes()
        return
    # Another polars may write the same rows as other bytes: what a reader sees of them must be the same.
    for new, kept in zip(info["parts"], old["parts"], strict=True):
        files = [pq.ParquetFile(folder / part["path"]) for folder, part in ((tmp_path, new), (GOLDEN / name, kept))]
        assert files[0].schema_arrow.equals(files[1].schema_arrow)
        assert {f.metadata.row_group(0).column(0).compression for f in files} == {"ZSTD"}
    assert read_manifest(tmp_path).equals(read_manifest(GOLDEN / name))
    assert info | {"parts": 0} == old | {"parts": 0}


def test_rows_in_pieces_give_the_same_bytes(tmp_path: Path) -> None:
    rows, info = make.rows(FORMAT[1]), make.info(FORMAT[1])
    write_manifest(tmp_path / "whole", rows, info)
    write_manifest(tmp_path / "pieces", (rows.slice(start, 1) for start in range(rows.height)), info)
    assert told(tmp_path / "whole") == told(tmp_path / "pieces")
