"""The V-information families against the obvious ways to compute the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.paired import Ratio, paired, seconds
from curate.scoring.gaussian import LinearGaussian, pair_sums
from curate.scoring.infonce import contrastive_information
from curate_kernels.arrays import F32, unit_rows


def views(n: int, p: int, d: int) -> tuple[F32, F32]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p), dtype=np.float32)
    y = 0.7 * x[:, :d] + rng.standard_normal((n, d), dtype=np.float32)
    return x, y


def leave_one_out(n: int = 40_000, p: int = 512, d: int = 128) -> Ratio:
    """Everything that a checkpoint computes, from the sums to pvi, against the same on float64 rows."""
    x, y = views(n, p, d)

    def information(dtype: type) -> None:
        left, right = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
        moments = pair_sums(left, right)
        LinearGaussian.fit(moments, 1.0).leave_one_out(left, right)
        LinearGaussian.null(moments).leave_one_out(left[:, :0], right)

    ratio = paired("", lambda: information(np.float32), lambda: information(np.float64), 3)
    return Ratio(f"LOO PVI {p} -> {d}: {ratio.ours / n * 1e6:.1f} us a row", ratio.ours, ratio.baseline, ratio.ratios)


def refits(n: int = 20_000, p: int = 512, d: int = 128, count: int = 8) -> Ratio:
    """Leave-one-out in closed form against one refit a row (a few of them, scaled up)."""
    x, y = views(n, p, d)
    moments = pair_sums(x, y)

    def refitted() -> None:
        for i in range(count):
            moments.add(x[i : i + 1], y[i : i + 1], -1.0)
            LinearGaussian.fit(moments, 1.0).predictive(x[i : i + 1], y[i : i + 1])
            moments.add(x[i : i + 1], y[i : i + 1])

    ratio = paired("", lambda: LinearGaussian.fit(moments, 1.0).leave_one_out(x, y), refitted, 3)
    scale = n / count
    return Ratio(f"LOO vs {n} refits", ratio.ours, ratio.baseline * scale, [r * scale for r in ratio.ratios])


def similar(n: int, d: int) -> tuple[F32, F32]:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((n, d), dtype=np.float32)
    return tuple(unit_rows(shared + rng.standard_normal((n, d), dtype=np.float32)) for _ in range(2))  # type: ignore[return-value]


def dense(x: F32, y: F32, temperature: float) -> F32:
    """negCLIPLoss as published: the full matrix, its exponentials, their sums along rows and columns."""
    logit = x @ y.T / np.float32(temperature)
    power = np.exp(logit)
    both: F32 = np.log(power.sum(axis=1)) + np.log(power.sum(axis=0))
    return np.float32(temperature) * (np.diag(logit) - both / 2)


def contrastive(n: int = 32_768, d: int = 512, temperature: float = 0.02) -> Ratio:
    """Time of both, and the memory that each takes beyond the embeddings, in processes of their own."""
    runs = [_child(kind, n, d, temperature) for kind in ("ours", "dense") for _ in range(2)]
    ours, theirs = runs[:2], runs[2:]
    memory = [median(run["bytes"] for run in side) / 1e9 for side in (ours, theirs)]
    name = f"negCLIPLoss {n} x {d}: {memory[0]:.2f} against {memory[1]:.1f} GB"
    times = [[run["seconds"] for run in side] for side in (ours, theirs)]
    return Ratio(name, median(times[0]), median(times[1]), [b / a for a, b in zip(*times, strict=True)])


def _child(kind: str, n: int, d: int, temperature: float) -> dict[str, float]:
    code = f"from benchmarks.kernels.vinfo import measure; measure({kind!r}, {n}, {d}, {temperature})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(kind: str, n: int, d: int, temperature: float) -> None:
    """Print seconds, and bytes of resident memory above what was there before, as JSON; in a process of its own."""
    import resource

    import torch  # loaded before the memory is read, as both would find it in the engine

    x, y = similar(n, d)
    run: Callable[[F32, F32], object] = (
        (lambda a, b: contrastive_information(a, b, temperature, batch=n, repeats=1))
        if kind == "ours"
        else (lambda a, b: dense(a, b, temperature))
    )
    run(x[:4200], y[:4200])  # compiles
    torch.get_num_threads()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = seconds(lambda: run(x, y))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": spent, "bytes": max(after - before, 1) * 1024}))


BENCHMARKS = (leave_one_out, refits, contrastive)
