"""Which selector is best: every definition in benchmarks/definitions, or some, as one Markdown file.

    python -m benchmarks.quality [NAME …] [--out benchmarks-out] [--workers N]

Definitions whose data are not there ($CURATE_DATA) are left out, and the file says so. Finished cells are read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from curate.benchmark import run_benchmark
from curate.errors import CurateError

HERE = Path(__file__).parent
DEFINITIONS = HERE / "definitions"
TABLE = HERE / "quality.md"


def gather(names: list[str], out: Path, workers: int | None) -> tuple[str, list[str]]:
    """Run definitions; return their tables, and why some have none."""
    parts, left = [], []
    for name in names:
        try:
            done = run_benchmark(DEFINITIONS / f"{name}.toml", out / name, workers=workers)
        except CurateError as error:
            left.append(f"- {name}: {error}")
            continue
        print(f"{name}: {done.cells} cells, {done.computed} of them now, {done.page}", flush=True)
        parts.append(Path(done.table).read_text(encoding="utf-8"))
    return "\n".join(parts), left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = sorted(path.stem for path in DEFINITIONS.glob("*.toml"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(every))
    parser.add_argument("--out", type=Path, default=Path("benchmarks-out"))
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    tables, left = gather(given.names or every, given.out, given.workers)
    missing = ["", "# Left out", "", *left, ""] if left else []
    told = ["Made by `make bench`; benchmarks/README.md says how to read it.", "", tables, *missing]
    TABLE.write_text("\n".join(told).rstrip() + "\n", encoding="utf-8")
    print("\n".join(left), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
