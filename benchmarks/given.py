"""A pool grown from DataComp-like metadata, against the engine alone on the same rows.

    python -m benchmarks.given 51200 [--pairs 1]

The rows of `benchmarks.stream` (512-d images, 384-d captions) are written as one shard, a Parquet file and an .npz, and
grown by `curate.grow`; `benchmarks.stream` puts the same rows through the engine without source and metadata. Both in
processes of their own, in turn; processor seconds, so that a busy machine disturbs them less.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.stream import BATCH, Rows

_GROW = "import sys, curate; print(curate.grow(*sys.argv[1:]).total)"


def write_shard(folder: Path, n: int) -> int:
    """Write n rows, rounded down to whole batches, as a shard of metadata; return how many."""
    rows = Rows(n)
    image, text = zip(*(rows.block(number) for number in range(n // BATCH)), strict=True)
    n = n // BATCH * BATCH
    f16 = [np.concatenate(side).astype(np.float16) for side in (image, text)]
    np.savez(folder / "0.npz", l14_img=f16[0], l14_txt=f16[1])
    sha256 = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    columns = {
        "uid": [sha[:32] for sha in sha256],
        "url": [f"http://example.org/{i}.jpg" for i in range(n)],
        "text": [f"picture number {i}" for i in range(n)],
        "original_width": pa.array([256] * n, pa.int64()),
        "original_height": pa.array([256] * n, pa.int64()),
        "clip_b32_similarity_score": pa.array([0.25] * n, pa.float32()),
        "clip_l14_similarity_score": pa.array([0.25] * n, pa.float32()),
        "face_bboxes": pa.array([[[0.1, 0.2, 0.3, 0.4]] * (i % 2) for i in range(n)], pa.list_(pa.list_(pa.float32()))),
        "sha256": sha256,
    }
    parquet.write_table(pa.table(columns), folder / "0.parquet")
    return n


def spent(command: list[str]) -> tuple[float, float]:
    """Return processor and wall-clock seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended - started


def main(n: int, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        n = write_shard(Path(folder), n)
        ratios = []
        for pair in range(pairs):
            pool = str(Path(folder) / f"pool{pair}")
            grown = spent([sys.executable, "-c", _GROW, folder, pool])
            alone = spent([sys.executable, "-m", "benchmarks.stream", str(n)])
            ratios.append(grown[0] / alone[0])
            for name, (cpu, wall) in (("grow", grown), ("engine alone", alone)):
                print(f"{name}: {cpu:.1f} s of processors, {1e6 * cpu / n:.0f} us a row; {wall:.1f} s")
    print(f"{n:,} rows: {statistics.median(ratios):.2f}x the engine alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--pairs", type=int, default=1)
    main(**{"n" if name == "rows" else name: value for name, value in vars(parser.parse_args()).items()})
