"""`run_demo`: plant, grow, select, report, and hold the decisions against the truth."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from curate.demo.material import digits, photographs
from curate.demo.planting import Planted, Planting, plant
from curate.demo.truth import TruthRow, truth_rows
from curate.engine.grow import Grown, grow
from curate.errors import UsageError
from curate.files import atomic_write, canonical_json
from curate.pool import Pool
from curate.report import Table, write_report
from curate.selection import Selected, select_from_pool

Progress = Callable[[str, int, int | None], None]

_SEED = 0
_TRUTH = "truth.json"
_BUDGET = "20%"
_PHOTOS = Planting(exact=30, near=40, labels=0, broken=12, poor=12)
_DIGITS = Planting(exact=40, near=60, labels=144, broken=12, poor=12)
_COLUMNS = ("kind", "planted", "found", "precision", "recall", "still in the pool")
_NOTE = (
    "Found: refused for the right reason, or its label set right; of a pair of duplicates, one kept and the other "
    "refused because of it. Precision: found, of everything refused for that reason. A good image counts as kept if "
    "any copy of it is."
)


@dataclass(frozen=True, slots=True)
class Collection:
    """One of the demo's two collections: its images, and what was made of them."""

    name: str
    images: Path
    pool: Path
    manifest: Path
    report: Path
    grown: Grown
    selected: Selected


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made: the collections `photos` and `digits`, and how well the faults planted in them were found."""

    out: Path
    collections: tuple[Collection, ...]
    truth: tuple[TruthRow, ...]
    seconds: float


def run_demo(out: str | Path, progress: Progress | None = None) -> DemoResult:
    """Curate two collections of real images, in which faults are planted, with the default recipe and no network.

    Makes OUT/images/{photos,digits}, OUT/truth.json, and for each collection OUT/<name>/pool, subset and report.html.
    The collections have a pool each, because a pool's near-duplicate distance is calibrated on its first images: that
    of the photographs is six times that of the digits, and would call most digits duplicates of each other.

    progress: called with (what is being done, images done, images in all or None).

    What an earlier demo left in OUT is replaced. Raises UsageError when the extra `demo` is not installed, or when OUT
    has anything else in it.
    """
    started = time.perf_counter()
    out = Path(out)
    _clear(out)
    report = progress or (lambda what, done, total: None)
    report("planting", 0, None)
    rng = np.random.default_rng(_SEED)
    images, labels = digits()
    planted = {
        "photos": plant(out / "images" / "photos", photographs(), None, _PHOTOS, rng),
        "digits": plant(out / "images" / "digits", images, labels, _DIGITS, rng),
    }
    truth = {
        name: [asdict(file) for file in sorted(files, key=lambda file: file.path)] for name, files in planted.items()
    }
    atomic_write(out / _TRUTH, canonical_json(truth))
    made = [_curated(out, name, files, report) for name, files in planted.items()]
    rows = tuple(row for _, found in made for row in found)
    return DemoResult(out, tuple(collection for collection, _ in made), rows, round(time.perf_counter() - started, 3))


def _clear(out: Path) -> None:
    """Remove what an earlier demo made; raise UsageError if the folder is anything but a demo's or empty."""
    if not out.exists():
        return
    found = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if found and (_TRUTH not in found or found - {_TRUTH, "images", "photos", "digits"}):
        raise UsageError(f"{out} is neither empty nor an earlier demo; the demo wants a folder of its own")
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _curated(out: Path, name: str, planted: Sequence[Planted], progress: Progress) -> tuple[Collection, list[TruthRow]]:
    """Grow, select and report one collection; return it and its rows of the truth table."""
    images, folder = out / "images" / name, out / name
    grown = grow(images, folder / "pool", progress=lambda done, total: progress(name, done, total))
    selected = select_from_pool(folder / "pool", folder / "subset", budget=_BUDGET)
    pool = Pool.open(folder / "pool")
    rows = truth_rows(name, pool, planted)
    cells = [(row.kind, row.planted, row.found, row.precision, row.recall, row.kept) for row in rows]
    table = Table("Planted and found", _COLUMNS, cells, _NOTE)
    report = write_report(
        pool, folder / "report.html", manifest=folder / "subset", title=f"Demo: {name}", extra=[table]
    )
    manifest = Path(selected.manifest)
    return Collection(name, images, folder / "pool", manifest, report, grown, selected), rows
