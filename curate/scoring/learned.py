"""V-information of a pair under a learned family: two small heads over frozen features, trained to tell pairs apart.

Each head is a linear map plus one hidden layer, into one space; the loss is InfoNCE (van den Oord et al. 2018, arXiv
1807.03748, eq. 4) in both directions. Cross-fitted: K folds, and every pair is scored by heads that never saw it,
among the other pairs of its fold, so the bits are held-out ones (`curate.scoring.infonce` has the definition).
"""

from __future__ import annotations

import math
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
        pair = [_Head(x, rows) for x in (image, text)]
        scale = torch.nn.Parameter(torch.tensor(math.log(14.0)))
        _train(pair, scale, rows, seed)
    with torch.no_grad():
        left, right = (head.eval_rows(out) for head in pair)
    return left, right, 1.0 / math.exp(float(scale.detach()))


class _Head:
    """A linear map plus one hidden layer with dropout, over centred rows of mean square 1 a coordinate."""

    def __init__(self, x: F32, rows: I64) -> None:
        import torch

        self._x = x
        sample = x[rows]
        self._mean = sample.mean(axis=0)
        self._scale = 1.0 / max(float(sample.std(axis=0).mean()), 1e-12)
        width = x.shape[1]
        self.skip = torch.nn.Linear(width, _DIMS)
        self.first, self.second = torch.nn.Linear(width, _WIDTH), torch.nn.Linear(_WIDTH, _DIMS)

    def parameters(self) -> list[Any]:
        return [p for layer in (self.skip, self.first, self.second) for p in layer.parameters()]

    def __call__(self, rows: I64, dropout: float = 0.0) -> torch.Tensor:
        import torch
        from torch.nn import functional

        x = torch.from_numpy((self._x[rows] - self._mean) * np.float32(self._scale))
        hidden = functional.dropout(functional.gelu(self.first(x)), dropout)
        return functional.normalize(self.skip(x) + self.second(hidden), dim=1)

    def eval_rows(self, rows: I64) -> F32:
        parts = [self(rows[low : low + 8192]).numpy() for low in range(0, rows.size, 8192)]
        return np.concatenate(parts) if parts else np.zeros((0, _DIMS), dtype=np.float32)


def _train(pair: list[_Head], scale: torch.nn.Parameter, rows: I64, seed: int) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    weights = [p for head in pair for p in head.parameters()]
    groups = [{"params": weights, "weight_decay": _DECAY}, {"params": [scale], "weight_decay": 0.0}]
    batch = min(_BATCH, rows.size // 2)
    steps = int(np.clip(_EPOCHS * rows.size // batch, *_STEPS))
    optimiser = torch.optim.AdamW(groups, lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    target = torch.arange(batch)
    order = rng.permutation(rows)
    at = 0
    for _ in range(steps):
        if at + batch > order.size:
            order, at = rng.permutation(rows), 0
        chosen, at = order[at : at + batch], at + batch
        left, right = (head(chosen, _DROPOUT) for head in pair)
        logits = left @ right.T * scale.exp()
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        scale.data.clamp_(max=math.log(100.0))
