"""V-information of a pair under a learned family: two small heads over frozen features, trained to tell pairs apart.

Each head is a linear map plus one hidden layer, into one space; the loss is InfoNCE (van den Oord et al. 2018, arXiv
1807.03748, eq. 4) in both directions. Cross-fitted: K folds, and every pair is scored by heads that never saw it,
among the other pairs of its fold, so the bits are held-out ones (`curate.scoring.infonce` has the definition).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import UsageError
from curate.scoring.infonce import contrastive_information
from curate_kernels.arrays import B1, F32, I64, as_rows

if TYPE_CHECKING:
    import torch

LEARNED_COLUMNS = ("s0_learned", "s1_learned", "pvi_learned")
_BATCH = 1024
_EPOCHS = 8
_STEPS = (40, 4000)  # least and most optimiser steps, whatever the number of rows
_WIDTH, _DIMS, _DROPOUT = 512, 256, 0.5
_RATE, _DECAY = 1e-3, 0.1
_MIN_ROWS = 64
_MIN_FOLD = 8


def learned_information(
    image: F32, text: F32, trusted: B1 | None = None, folds: int = 5, seed: int = 0
) -> dict[str, F32]:
    """Return LEARNED_COLUMNS, (n,) float32 bits, of n pairs: higher `pvi` means a better match.

    image: (n, p), text: (n, d) float32 features, of any two encoders; trusted: (n,) bool, rows to learn from (all are
    scored), for instance those that another family found informative. About 20 s for 10,000 pairs on a CPU core.

    Raises:
        UsageError: image and text differ in length, or there are fewer than 64 trusted rows, 2 folds, or 8 rows a fold.
    """
    image, text = as_rows(image, "image"), as_rows(text, "text")
    n = image.shape[0]
    usable = np.ones(n, dtype=np.bool_) if trusted is None else trusted
    if text.shape[0] != n or usable.shape != (n,):
        raise UsageError(f"image has {n} rows, text {text.shape[0]}, trusted {usable.shape}; they must be the same")
    if usable.sum() < _MIN_ROWS or folds < 2:
        raise UsageError(f"{int(usable.sum())} trusted rows in {folds} folds; at least {_MIN_ROWS} and 2 are needed")
    if n < _MIN_FOLD * folds:  # a pair that is alone in its fold is found without any information
        raise UsageError(f"{n} rows in {folds} folds; each fold needs {_MIN_FOLD} pairs to tell apart, fewer folds")
    fold = np.random.default_rng(seed).permutation(n) % folds
    columns = {name: np.empty(n, dtype=np.float32) for name in LEARNED_COLUMNS}
    for k in range(folds):
        out = np.flatnonzero(fold == k)
        left, right, temperature = _fit_and_apply(image, text, np.flatnonzero((fold != k) & usable), out, seed + k)
        scores = contrastive_information(left, right, temperature, batch=8192, repeats=1, seed=seed)
        for name in LEARNED_COLUMNS:
            columns[name][out] = scores[name.replace("learned", "infonce")]
    return columns


def _fit_and_apply(image: F32, text: F32, rows: I64, out: I64, seed: int) -> tuple[F32, F32, float]:
    """Train on `rows`; return both views of the rows `out` in the common space, and the temperature."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        views = [_Rows(x, rows) for x in (image, text)]
        towers = [Tower(x.shape[1], _WIDTH, _DIMS) for x in (image, text)]
        scale = torch.nn.Parameter(torch.tensor(math.log(14.0)))
        batch = min(_BATCH, rows.size // 2)
        steps = int(np.clip(_EPOCHS * rows.size // batch, *_STEPS))
        pairs = ((views[0][part], views[1][part]) for part in _portions(rows, batch, steps, seed))
        train_towers(towers, scale, pairs, steps, _RATE)
    with torch.no_grad():
        left, right = (_applied(tower, x, out) for tower, x in zip(towers, views, strict=True))
    return left, right, 1.0 / math.exp(float(scale.detach()))


class Tower:
    """A linear map plus one hidden layer with dropout, into unit rows of `dims` numbers."""

    def __init__(self, width: int, hidden: int, dims: int) -> None:
        import torch

        self._skip = torch.nn.Linear(width, dims)
        self._first, self._second = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, dims)

    def parameters(self) -> list[Any]:
        """Return the weights to train."""
        return [p for layer in (self._skip, self._first, self._second) for p in layer.parameters()]

    def __call__(self, x: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Return (b, dims) unit rows of x (b, width) float32."""
        from torch.nn import functional

        hidden = functional.dropout(functional.gelu(self._first(x)), dropout)
        return functional.normalize(self._skip(x) + self._second(hidden), dim=1)


def train_towers(
    towers: Sequence[Tower],
    scale: torch.nn.Parameter,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    rate: float,
    fused: bool = False,
) -> None:
    """Train two towers on batches of pairs by InfoNCE both ways; as many batches as steps.

    scale: logarithm of the inverse temperature, trained too, at most log 100; rate: the highest of one cycle
    """
    import torch
    from torch.nn.functional import cross_entropy

    weights = [p for tower in towers for p in tower.parameters()]
    groups = [{"params": weights, "weight_decay": _DECAY}, {"params": [scale], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate, fused=fused or None)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for pair in batches:
        left, right = (tower(x, _DROPOUT) for tower, x in zip(towers, pair, strict=True))
        logits = left @ right.T * scale.exp()
        target = torch.arange(logits.shape[0])
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        scale.data.clamp_(max=math.log(100.0))


class _Rows:
    """Rows centred and scaled to mean square 1 a coordinate, as some of them are."""

    def __init__(self, x: F32, rows: I64) -> None:
        sample = x[rows]
        self._x, self._mean = x, sample.mean(axis=0)
        self._scale = np.float32(1.0 / max(float(sample.std(axis=0).mean()), 1e-12))

    def __getitem__(self, rows: I64) -> torch.Tensor:
        import torch

        return torch.from_numpy((self._x[rows] - self._mean) * self._scale)


def _portions(rows: I64, batch: int, steps: int, seed: int) -> Iterator[I64]:
    """Yield so many batches of rows, in passes of a new order each, what is left over dropped."""
    rng = np.random.default_rng(seed)
    order, at = rng.permutation(rows), 0
    for _ in range(steps):
        if at + batch > order.size:
            order, at = rng.permutation(rows), 0
        yield order[at : at + batch]
        at += batch


def _applied(tower: Tower, x: _Rows, rows: I64) -> F32:
    parts = [tower(x[rows[low : low + 8192]]).numpy() for low in range(0, rows.size, 8192)]
    return np.concatenate(parts) if parts else np.zeros((0, _DIMS), dtype=np.float32)
