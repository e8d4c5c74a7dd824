"""Task: two small heads over frozen features, trained by InfoNCE on the selected pairs; retrieval of held-out pairs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.benchmark.definition import Task
from curate.benchmark.features import of_world
from curate.benchmark.world import World
from curate.errors import UsageError
from curate.scoring.learned import Tower, train_towers
from curate_kernels.arrays import F32, F64, I64

if TYPE_CHECKING:
    import torch

_WIDTH, _DIMS = 256, 128
_LEAST = 16  # pairs


def contrastive(world: World, rows: I64, task: Task, seed: int) -> dict[str, float]:
    """Return recall at 1, 5 and 10 among all held-out pairs, both ways and their mean: `r10`, `r10_text`, `r10_image`.

    The number of steps is the definition's whatever was selected: every selection gets the same compute. Loss:
    van den Oord et al., arXiv:1807.03748, both ways, a learned temperature. Raises UsageError without captions.
    """
    if rows.size < _LEAST:
        raise UsageError(f"contrastive training needs {_LEAST} pairs at least; there are {rows.size}")
    image, test_image = of_world(world, "image", task.image_dims)
    text, test_text = of_world(world, "text", task.text_dims)
    pair = (image[rows].astype(np.float32), text[rows].astype(np.float32))
    left, right = train(*pair, test_image.astype(np.float32), test_text.astype(np.float32), task, seed)
    return retrieval((left @ right.T).astype(np.float64))


def retrieval(sim: F64) -> dict[str, float]:
    """Return recalls of the pairs (i, i) in a matrix of similarities, images in rows; a tie counts as a miss."""
    own = np.diagonal(sim)
    found = {}
    above = {"text": (sim >= own[:, None]).sum(axis=1), "image": (sim >= own[None, :]).sum(axis=0)}
    for k in (1, 5, 10):
        for way, count in above.items():
            found[f"r{k}_{way}"] = float((count <= k).mean())
        found[f"r{k}"] = (found[f"r{k}_text"] + found[f"r{k}_image"]) / 2
    return found


def train(image: F32, text: F32, test_image: F32, test_text: F32, task: Task, seed: int) -> tuple[F32, F32]:
    """Return the held-out rows in the common space of two heads trained on the pairs; unit rows."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = [Tower(x.shape[1], _WIDTH, _DIMS) for x in (image, text)]
        scale = torch.nn.Parameter(torch.tensor(math.log(14.0)))
        batch = min(task.batch, image.shape[0])
        left, right = torch.from_numpy(image), torch.from_numpy(text)
        order = _batches(image.shape[0], batch, task.steps, np.random.default_rng([seed, 4]))
        train_towers(towers, scale, ((left[rows], right[rows]) for rows in order), task.steps, task.rate, fused=True)
    with torch.no_grad():
        out = [tower(torch.from_numpy(x)).numpy() for tower, x in zip(towers, (test_image, test_text), strict=True)]
    return out[0], out[1]


def _batches(n: int, batch: int, steps: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """Return the rows of each step: passes over all rows in a new order each time, what is left over put off."""
    import torch

    order: list[Any] = []
    while sum(len(part) for part in order) < steps:
        order.append(rng.permutation(n)[: n // batch * batch].reshape(-1, batch))
    return [torch.from_numpy(rows) for rows in np.concatenate(order)[:steps]]
