"""`curate verify`: what became of every sample, found among samples that are as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from golden import make
from stores import upload, web_server
from typer.testing import CliRunner

import curate
from curate.cli import app
from curate.errors import ManifestError, UsageError
from curate.manifest import write_manifest
from curate.samples import content_hash, sample_uid

ROOT = Path(__file__).parent.parent
SIZE = 40  # bytes of a sample


def collection(folder: Path, files: int = 3, each: int = 5) -> pl.DataFrame:
    """Files of samples that follow each other, and the rows of a manifest that takes them in a mixed order."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for file in range(files):
        data = [f"{file}/{i}".ljust(SIZE, ".").encode() for i in range(each)]
        (folder / f"{file}.bin").write_bytes(b"".join(data))
        for i, value in enumerate(data):
            place = {"source": "s", "key": f"{file}/{i}", "path": f"{file}.bin", "offset": i * SIZE, "size": SIZE}
            sha256 = content_hash(value)
            rows.append({**place, "sha256": sha256, "uid": sample_uid("s", place["key"], sha256)})
    table = pl.DataFrame(rows).sample(fraction=1.0, shuffle=True, seed=1).with_columns(
        width=1, height=1, caption=None, label=None, group=None, weight=1.0, inclusion_probability=1.0,
        rank=pl.int_range(pl.len()), reason=pl.lit("admitted"), gain=0.5,
    )  # fmt: skip
    return table.select(*curate.manifest.COLUMNS)


def written(tmp_path: Path, rows: pl.DataFrame, root: object = None) -> Path:
    info = {"method": "random", "sources": [{"id": "s", "root": str(root or tmp_path / "data"), "kind": "tar"}]}
    return Path(str(write_manifest(tmp_path / "m", rows, info))).parent


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A manifest of 15 samples in 3 files, and the folder of the files."""
    return written(tmp_path, collection(tmp_path / "data")), tmp_path / "data"


def test_untouched_samples_are_all_ok(made: tuple[Path, Path]) -> None:
    steps: list[tuple[int, int]] = []
    done = curate.verify(made[0], progress=lambda n, of: steps.append((n, of)))
    assert done.passed
    assert (done.rows, done.checked, done.ok, done.examples, done.broken) == (15, 15, 15, {}, {})
    assert steps[-1] == (15, 15)


def test_every_kind_of_loss_is_told_apart(made: tuple[Path, Path]) -> None:
    folder, data = made
    (data / "0.bin").unlink()
    flipped = bytearray((data / "1.bin").read_bytes())
    flipped[2 * SIZE + 3] ^= 1
    (data / "1.bin").write_bytes(flipped[: 4 * SIZE + 7])
    (data / "2.bin").unlink()
    (data / "2.bin").mkdir()
    done = curate.verify(folder)
    assert not done.passed
    assert (done.ok, done.missing, done.changed, done.unreadable) == (3, 5, 2, 5)
    assert {e["problem"] for e in done.examples["changed"]} == {
        "its bytes have another SHA-256",
        "the file ends before its last byte",
    }
    assert {e["path"] for e in done.examples["missing"]} == {"0.bin"}
    assert {e["problem"] for e in done.examples["unreadable"]} == {"not a regular file"}


def test_few_examples_are_kept_of_many(tmp_path: Path) -> None:
    folder = written(tmp_path, collection(tmp_path / "data", 1, 200))
    (tmp_path / "data" / "0.bin").unlink()
    done = curate.verify(folder)
    assert (done.missing, len(done.examples["missing"])) == (200, 10)


def test_files_are_read_in_the_order_of_their_bytes(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from curate import verification

    seen = []
    real = verification.stored_bytes
    monkeypatch.setattr(verification.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(verification, "_BLOCK", 1000)
    monkeypatch.setattr(
        verification, "stored_bytes", lambda row, roots: seen.append((row["path"], row["offset"])) or real(row, roots)
    )
    assert curate.verify(made[0]).passed
    assert seen == sorted(seen)
    assert len(seen) == 15


def test_samples_can_be_drawn(made: tuple[Path, Path]) -> None:
    assert curate.verify(made[0], sample=4).checked == 4
    assert curate.verify(made[0], sample=400).checked == 15
    assert curate.verify(made[0], fraction=0.2).checked == 3
    assert curate.verify(made[0], fraction=1e-9).checked == 1
    (made[1] / "1.bin").unlink()
    first, again, other = (curate.verify(made[0], sample=6, seed=seed) for seed in (0, 0, 1))
    assert first.examples == again.examples != other.examples
    assert 0 < sum(curate.verify(made[0], sample=6, seed=seed).missing for seed in range(20)) / 120 < 0.5


@pytest.mark.parametrize("given", [{"sample": 0}, {"fraction": 0.0}, {"fraction": 1.5}, {"sample": 1, "fraction": 0.5}])
def test_samples_that_make_no_sense_are_refused(made: tuple[Path, Path], given: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        curate.verify(made[0], **given)  # type: ignore[arg-type]


RULES: dict[str, tuple[str, Callable[[pl.Expr], pl.Expr]]] = {
    "uid is no 32 hex digits": ("uid", lambda c: c.str.to_uppercase()),
    "rank is not the row's number": ("rank", lambda c: c + 1),
    "weight is not finite, or below 0": ("weight", lambda c: -c),
    "probability is not in (0, 1]": ("inclusion_probability", lambda c: c * 0),
    "source is not among the manifest's": ("source", lambda c: c + "x"),
    "uid is another row's too": ("uid", lambda c: c.first()),
}


@pytest.mark.parametrize("rule", RULES)
def test_broken_rule_is_named_and_counted(rule: str, tmp_path: Path) -> None:
    column, change = RULES[rule]
    rows = collection(tmp_path / "data")
    bad = pl.int_range(pl.len()) < 2 if rule != "uid is another row's too" else pl.int_range(pl.len()) < 3
    rows = rows.with_columns(pl.when(bad).then(change(pl.col(column))).otherwise(pl.col(column)).alias(column))
    done = curate.verify(written(tmp_path, rows))
    assert done.broken == {rule: 2}
    assert not done.passed


def test_chances_and_weights_that_are_no_numbers_are_found(tmp_path: Path) -> None:
    rows = collection(tmp_path / "data").with_columns(
        weight=pl.when(pl.col("rank") == 3).then(float("nan")).otherwise(1.0),
        inclusion_probability=pl.when(pl.col("rank") == 4).then(float("nan")).otherwise(None),
    )
    done = curate.verify(written(tmp_path, rows))
    assert done.broken == {"weight is not finite, or below 0": 1, "probability is not in (0, 1]": 1}


def test_crops_of_one_image_share_its_uid(tmp_path: Path) -> None:
    make.write(tmp_path, crops=True)
    assert curate.verify(tmp_path, roots={make.ROOT: str(make.GOLDEN / "images")}).passed


def test_parts_are_checked_one_by_one(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(curate.manifest, "_PART_ROWS", 4)
    rows = collection(tmp_path / "data").with_columns(uid=pl.when(pl.col("rank") == 14).then(pl.col("uid").first())
                                                      .otherwise(pl.col("uid")))  # fmt: skip
    done = curate.verify(written(tmp_path / "parts", rows, tmp_path / "data"), sample=9)
    assert (done.checked, done.ok, done.broken) == (9, 9, {"uid is another row's too": 1})


def test_damaged_part_and_unknown_root_are_named_errors(made: tuple[Path, Path]) -> None:
    with pytest.raises(ManifestError, match="no source of the manifest lies under /elsewhere"):
        curate.verify(made[0], roots={"/elsewhere": "/x"})
    part = next(made[0].glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ManifestError, match="is damaged"):
        curate.verify(made[0])


@pytest.mark.parametrize(
    "place", [{"path": "a\0b"}, {"offset": -5}, {"offset": 2**62}, {"size": -1}, {"size": 2**62}, {"path": "../../etc"}]
)
def test_places_that_cannot_be_are_counted(place: dict[str, object], tmp_path: Path) -> None:
    rows = collection(tmp_path / "data")
    hostile = [pl.when(pl.col("rank") == 7).then(pl.lit(v)).otherwise(pl.col(k)).alias(k) for k, v in place.items()]
    done = curate.verify(written(tmp_path, rows.with_columns(hostile)))
    assert (done.checked, done.ok) == (15, 14)


def test_rows_of_a_source_that_is_not_told_are_missing(tmp_path: Path) -> None:
    rows = collection(tmp_path / "data")
    write_manifest(tmp_path / "m", rows, {})
    done = curate.verify(tmp_path / "m")
    assert (done.missing, done.broken) == (15, {"source is not among the manifest's": 15})


def test_store_is_read_and_a_file_that_ends_early_is_not_asked_for_again(tmp_path: Path, bucket: str) -> None:
    rows = collection(tmp_path / "data")
    folder = written(tmp_path, rows)
    far = upload(tmp_path / "data", f"{bucket}/verify")
    moved = {str(tmp_path / "data"): str(far)}
    assert curate.verify(folder, roots=moved).passed
    near = tmp_path / "data"
    (near / "1.bin").write_bytes((near / "1.bin").read_bytes()[: 3 * SIZE])
    (near / "2.bin").unlink()
    upload(near, f"{bucket}/less")
    done = curate.verify(folder, roots={str(near): f"{bucket}/less"})
    assert (done.ok, done.missing, done.changed, done.unreadable) == (8, 5, 2, 0)


def test_web_server_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path, collection(tmp_path / "data"))
    (tmp_path / "data" / "0.bin").unlink()
    with web_server(tmp_path / "data") as web:
        done = curate.verify(folder, roots={str(tmp_path / "data"): web.url})
    assert (done.ok, done.missing) == (10, 5)


def test_command_prints_json_and_tells_by_its_exit_code(made: tuple[Path, Path], tmp_path: Path) -> None:
    made[1].rename(tmp_path / "new")

    command = [sys.executable, "-m", "curate", "verify", str(made[0]), "--sample", "3"]
    lost = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (lost.returncode, lost.stderr) == (3, "")
    assert "No such file" in lost.stdout
    found = CliRunner().invoke(app, ["verify", str(made[0]), "--root", f"{made[1]}={tmp_path / 'new'}", "--json"])
    told = json.loads(found.stdout)
    assert (found.exit_code, told["ok"], told["passed"]) == (0, 15, True)
    wrong = CliRunner().invoke(app, ["verify", str(made[0]), "--root", "nowhere"])
    assert "write OLD=NEW" in str(wrong.exception)
