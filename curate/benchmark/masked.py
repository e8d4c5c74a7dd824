"""Task: a tiny vision transformer pretrained as a masked autoencoder on what was selected, then probed.

The protocol of OptiDEL and DataDEL (arXiv:2408.07107, arXiv:2401.17542) in small: labels play no part in pretraining,
every selection gets the same number of steps, and the probe's own rows are the same clean ones for all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.benchmark.definition import Task
from curate.benchmark.network import thumbnails
from curate.benchmark.probes import balanced_accuracy, best_ridge, fit, predict
from curate.benchmark.world import World, split
from curate.errors import UsageError
from curate_kernels.arrays import F32, F64, I64, U8

if TYPE_CHECKING:
    import torch

_PATCH, _WIDTH, _DEPTH, _HEADS, _DECODER = 4, 64, 3, 4, 48
_MASKED, _BATCH, _RATE, _DECAY = 0.75, 64, 1e-3, 0.05


def masked(world: World, rows: I64, task: Task, seed: int) -> dict[str, float]:
    """Return reconstruction_loss of the held-out rows and, of a probe on half of them, tested on the other half, more.

    accuracy, balanced_accuracy; normdel: of the latter and the share of rows that was selected. Raises UsageError
    without images, or where their side is no multiple of 4.
    """
    if world.base.read is None:
        raise UsageError("masked pretraining needs images, and this collection has embeddings only")
    if task.side % _PATCH:
        raise UsageError(f"task.side is {task.side}; masked pretraining needs a multiple of {_PATCH}")
    x, t = thumbnails(world, task.side)
    model = pretrain(x[rows], task.masked_steps, seed)
    found = {"reconstruction_loss": model.loss(patches(t), np.random.default_rng([seed, 7]))}
    label = world.base.label[world.test]
    own, out = split(world.base.group[world.test], 0.5, np.random.default_rng([seed, 8]))
    own, out = own[label[own] >= 0], out[label[out] >= 0]
    if np.unique(label[own]).size > 1 and out.size:
        z = _standard(model.features(patches(t)), own)
        classes, rng = len(world.base.classes), np.random.default_rng([seed, 9])
        ridge = best_ridge(z[own], label[own], classes, True, rng)
        guess = predict(fit(z[own], label[own], classes, ridge, True), z[out]).argmax(axis=1)
        found["accuracy"] = float((guess == label[out]).mean())
        found["balanced_accuracy"] = balanced_accuracy(label[out], guess)
        found["normdel"] = normdel(found["balanced_accuracy"], rows.size / world.n)
    return found


def normdel(metric: float, ratio: float, alpha: float = 1.0) -> float:
    """Return 1 / (1 + exp(-DEL)), DEL = metric · exp(-α ratio) (arXiv:2401.17542): it lies between .5 and .73.

    The share of rows moves it more than the metric does, so read it beside both.
    """
    return 1.0 / (1.0 + math.exp(-metric * math.exp(-alpha * ratio)))


def patches(x: U8) -> F32:
    """Return images (n, s, s, 3) as (n, s²/16, 48) float32 about 0."""
    n, side = x.shape[0], x.shape[1] // _PATCH
    cut = x.reshape(n, side, _PATCH, side, _PATCH, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, side * side, -1)
    out: F32 = (cut.astype(np.float32) - 127.5) / 64.0
    return out


def _standard(z: F64, own: I64) -> F64:
    scale = np.maximum(z[own].std(axis=0), 1e-6)
    out: F64 = (z - z[own].mean(axis=0)) / scale
    return out


def pretrain(x: U8, steps: int, seed: int) -> Autoencoder:
    """Return an autoencoder trained for a number of steps on images x (n, s, s, 3)."""
    import torch

    every = patches(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Autoencoder(every.shape[1])
        optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
        rng = np.random.default_rng([seed, 6])
        for _ in range(steps):
            rows = rng.choice(x.shape[0], min(_BATCH, x.shape[0]), replace=False)
            loss = model.step_loss(torch.from_numpy(every[rows]), rng)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model


class Autoencoder:
    """A masked autoencoder (He et al., CVPR 2022, arXiv:2111.06377): the encoder sees a quarter of the patches."""

    def __init__(self, count: int) -> None:
        import torch
        from torch import nn

        size = _PATCH * _PATCH * 3
        self._count, self._seen = count, max(1, round(count * (1 - _MASKED)))
        self._embed, self._place = nn.Linear(size, _WIDTH), nn.Parameter(0.02 * torch.randn(count, _WIDTH))
        self._encoder = nn.ModuleList([_block(_WIDTH) for _ in range(_DEPTH)])
        self._norm, self._narrow = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _DECODER)
        self._blank = nn.Parameter(0.02 * torch.randn(_DECODER))
        self._where = nn.Parameter(0.02 * torch.randn(count, _DECODER))
        self._decoder, self._out = _block(_DECODER), nn.Linear(_DECODER, size)

    def parameters(self) -> list[Any]:
        """Return everything that is trained."""
        modules = (self._embed, self._encoder, self._norm, self._narrow, self._decoder, self._out)
        return [self._place, self._blank, self._where, *(p for module in modules for p in module.parameters())]

    def _encode(self, x: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        h = self._embed(x) + self._place
        h = h if seen is None else h[:, seen]
        for block in self._encoder:
            h = block(h)
        return self._norm(h)

    def step_loss(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return the mean squared error of the hidden patches; one mask for the whole batch."""
        import torch

        order = torch.from_numpy(rng.permutation(self._count))
        seen, hidden = order[: self._seen], order[self._seen :]
        full = self._blank + torch.zeros(x.shape[0], self._count, _DECODER)
        full[:, seen] = self._narrow(self._encode(x, seen))
        guess = self._out(self._decoder(full + self._where))
        return ((guess[:, hidden] - x[:, hidden]) ** 2).mean()

    def loss(self, x: F32, rng: np.random.Generator) -> float:
        """Return the mean loss over images x (m, patches, 48)."""
        import torch

        with torch.no_grad():
            parts = [x[low : low + 256] for low in range(0, x.shape[0], 256)]
            losses = [float(self.step_loss(torch.from_numpy(part), rng)) * len(part) for part in parts]
        return float(sum(losses) / x.shape[0])

    def features(self, x: F32) -> F64:
        """Return the mean over the patches of what the encoder gives, (m, 64); it sees all of them."""
        import torch

        with torch.no_grad():
            parts = [self._encode(torch.from_numpy(x[i : i + 256])).mean(dim=1) for i in range(0, x.shape[0], 256)]
        found: F64 = torch.cat(parts).numpy().astype(np.float64)
        return found


def _block(width: int) -> Any:
    import torch

    return torch.nn.TransformerEncoderLayer(
        width, _HEADS, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
