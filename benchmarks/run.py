"""Every kernel against a named baseline, each pair in one run: `make bench`, or some areas: `… run density vinfo`."""

from __future__ import annotations

import sys
from importlib import import_module

AREAS = ("search", "vinfo", "density", "difficulty", "images")

if __name__ == "__main__":
    print(f"{'':32} {'ours':>11} {'baseline':>11}   {'ratio':>8}  (spread)")
    for area in sys.argv[1:] or AREAS:
        for benchmark in import_module(f"benchmarks.kernels.{area}").BENCHMARKS:
            print(benchmark().line(), flush=True)
