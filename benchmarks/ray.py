"""`grow --on ray` against the plain engine on given embeddings, and two encoding workers against one.

    python -m benchmarks.ray 51200 [--images 512] [--pairs 1]

Rows are those of `benchmarks.given`; images are drawn, and encoded by the built-in network. Each run is a process of
its own; seconds of the wall clock are `grow`'s own, without starting Ray. The cluster has two CPUs of this machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.given import write_shard

_PLAIN = "import sys, curate; print(curate.grow(*sys.argv[1:3]).seconds)"
_RAY = """
import sys, ray
ray.init(num_cpus=int(sys.argv[3]), include_dashboard=False, log_to_driver=False, logging_level="error")
import curate
print(curate.grow(*sys.argv[1:3], on="ray").seconds)
"""
_STEADY = """
import sys, time, ray
ray.init(num_cpus=int(sys.argv[3]), include_dashboard=False, log_to_driver=False, logging_level="error")
import curate
marks = []
curate.grow(*sys.argv[1:3], on="ray", options={"limits": {"batch_size": 64}, "encode": {"workers": 0}},
            progress=lambda seen, total: marks.append((time.perf_counter(), seen)))
(start, first), (stop, last) = marks[len(marks) // 4], marks[-1]
print((last - first) / (stop - start))
"""


def told(script: str, *given: object) -> float:
    """Run a script and return the number that it prints last."""
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, given)], check=True, env=env, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1])


def write_images(folder: Path, n: int) -> None:
    """Write n photographs of noise, 640 x 480."""
    folder.mkdir()
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i:06}.jpg")


def main(n: int, images: int, pairs: int) -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows").mkdir()
        n = write_shard(folder / "rows", n)
        ratios = []
        for pair in range(pairs):
            plain = told(_PLAIN, folder / "rows", folder / f"plain{pair}")
            print(f"{n:,} rows: {plain:.1f} s in one process,", end=" ", flush=True)
            cluster = told(_RAY, folder / "rows", folder / f"ray{pair}", 2)
            print(f"{cluster:.1f} s on ray", flush=True)
            ratios.append(cluster / plain)
        print(f"on ray: {statistics.median(ratios):.2f}x the seconds of one process (load {load:.1f} at the start)")
        if images:
            write_images(folder / "images", images)
            one, two = (told(_STEADY, folder / "images", folder / f"pool{count}", count) for count in (1, 2))
            print(f"{images} images: {one:.1f} a second with one worker, {two:.1f} with two: {two / one:.2f}x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=1)
    given = parser.parse_args()
    main(given.rows, given.images, given.pairs)
