"""Task: a small convolutional network trained from scratch on the pixels of what was selected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from curate.benchmark.definition import Task
from curate.benchmark.pixels import altered
from curate.benchmark.probes import balanced_accuracy
from curate.benchmark.sets import save
from curate.benchmark.world import World
from curate.errors import UsageError
from curate.images import Pixels
from curate_kernels.arrays import F32, I64, U8

if TYPE_CHECKING:
    import torch

_CHANNELS = (32, 64, 128)
_BATCH, _RATE, _DECAY, _SHIFT = 64, 2e-3, 0.05, 2
_KEPT: dict[tuple[str, int], tuple[U8, U8]] = {}  # of the world at hand


def network(world: World, rows: I64, task: Task, seed: int) -> dict[str, float]:
    """Return accuracy and balanced_accuracy on the held-out rows, with a plain and a class-weighted loss.

    Three convolutions with batch norm and pooling, a linear layer on the mean over space; the number of steps is the
    definition's whatever was selected. Raises UsageError without images or two classes.
    """
    if world.base.read is None:
        raise UsageError("a network from scratch needs images, and this collection has embeddings only")
    rows = rows[world.plan.label[rows] >= 0]
    test = np.flatnonzero(world.base.label[world.test] >= 0)
    label, truth = world.plan.label[rows], world.base.label[world.test][test]
    if np.unique(label).size < 2 or not test.size:
        raise UsageError("the selection bears one class only; a network needs two")
    x, t = thumbnails(world, task.side)
    found = {}
    for name, weighted in (("", False), ("_weighted", True)):
        guess = train(x[rows], label, t[test], len(world.base.classes), task.network_steps, seed, weighted)
        found[f"accuracy{name}"] = float((guess == truth).mean())
        found[f"balanced_accuracy{name}"] = balanced_accuracy(truth, guess)
    return found


def thumbnails(world: World, side: int) -> tuple[U8, U8]:
    """Return the training rows as corrupted, and the held-out ones, as (n, side, side, 3) and (m, …) uint8."""
    if (world.digest, side) not in _KEPT:
        _KEPT.clear()
        base = world.base
        assert base.read is not None
        file = world.cache / f"pixels-{base.digest[:32]}-{side}.npy"
        if not file.is_file():
            every = np.arange(base.x.shape[0], dtype=np.int64)
            save(file, np.stack([_small(image, side) for image in base.read(every)]))
        clean: U8 = np.load(file, allow_pickle=False)
        x, at = clean[world.plan.origin], np.flatnonzero(world.plan.change != "")
        at = at[np.argsort(world.plan.origin[at], kind="stable")]  # as they lie: a source is read on, not opened anew
        for i, image in zip(at.tolist(), base.read(world.plan.origin[at]), strict=True):
            x[i] = _small(altered(image, str(world.plan.change[i])), side)
        _KEPT[world.digest, side] = x, clean[world.test]
    return _KEPT[world.digest, side]


def _small(image: Pixels, side: int) -> U8:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))


def train(x: U8, label: I64, t: U8, classes: int, steps: int, seed: int, weighted: bool = False) -> I64:
    """Return the likeliest class (m,) of each image of t, by a network trained on x (n, s, s, 3) with its labels."""
    import torch
    from torch.nn.functional import cross_entropy

    centre, spread = x.mean(axis=(0, 1, 2)), max(float(x.std()), 1.0)
    weight = None
    if weighted:
        size = np.bincount(label, minlength=classes)
        share = label.size / np.maximum(size, 1) / np.count_nonzero(size)
        weight = torch.from_numpy(share.astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(classes)
        optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.2)
        rng = np.random.default_rng([seed, 5])
        for rows in _batches(label.size, steps, rng):
            image = torch.from_numpy(_shifted(_planes(x[rows], centre, spread), rng))
            loss = cross_entropy(model(image), torch.from_numpy(label[rows]), weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        parts = (torch.from_numpy(_planes(t[low : low + 256], centre, spread)) for low in range(0, t.shape[0], 256))
        guess: I64 = np.concatenate([model(part).argmax(dim=1).numpy() for part in parts])
    return guess


def _model(classes: int) -> torch.nn.Module:
    import torch

    layers: list[Any] = []
    before = 3
    for i, width in enumerate(_CHANNELS):
        layers += [torch.nn.Conv2d(before, width, 3, padding=1, bias=False), torch.nn.BatchNorm2d(width)]
        layers += [torch.nn.ReLU()] + ([torch.nn.MaxPool2d(2)] if i < len(_CHANNELS) - 1 else [])
        before = width
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(before, classes)]
    return torch.nn.Sequential(*layers)


def _batches(n: int, steps: int, rng: np.random.Generator) -> Iterator[I64]:
    """Yield the rows of each step: passes over all rows, in a new order each time."""
    size, order, at = min(_BATCH, n), rng.permutation(n), 0
    for _ in range(steps):
        if at + size > n:
            order, at = rng.permutation(n), 0
        yield order[at : at + size].astype(np.int64)
        at += size


def _planes(x: U8, centre: Any, spread: float) -> F32:
    planes: F32 = np.ascontiguousarray(((x - centre) / spread).astype(np.float32).transpose(0, 3, 1, 2))
    return planes


def _shifted(x: F32, rng: np.random.Generator) -> F32:
    """Return the batch moved by up to two pixels each way, all of it alike; edges come round."""
    down, right = rng.integers(-_SHIFT, _SHIFT + 1, 2)
    return np.ascontiguousarray(np.roll(x, (int(down), int(right)), axis=(2, 3)))
