"""Manifests that several files of tests export."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports.material import folder_rows, manifest, tar_rows


@pytest.fixture(scope="session")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 captioned and labelled pictures of two tars; the manifest is in `m`, the tars in `tars`."""
    base = tmp_path_factory.mktemp("tars")
    first = tar_rows(base / "tars", "00000.tar", range(16))
    second = tar_rows(base / "tars", "00001.tar", range(16, 32))
    rows = [one for pair in zip(second[:12], first[2:14], strict=True) for one in pair]
    manifest(base / "m", rows, {"00000.tar": base / "tars", "00001.tar": base / "tars"})
    return base


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 labelled and captioned pictures of a folder; the manifest is in `m`, the pictures in `photos`."""
    base = tmp_path_factory.mktemp("photos")
    manifest(base / "m", folder_rows(base / "photos", range(12)), {"photos": base / "photos"})
    return base
