"""OptiDEL's patch form, as far as it is numbers: which boxes are proposed, which are kept, which make a tile.

After: Maximizing V-information for Pre-training Superior Foundation Models, arXiv:2408.07107. There a segmentation
model proposes regions, a masked autoencoder's error is their hardness, and four hard ones are copied into one training
image. Here boxes need no model, or are given; hardness is the surprise of a crop's embedding given its image's; the
largest surprises, which are artefacts, are refused by their own information; and a tile is four rows of a manifest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.errors import SelectorError

TILE = 4  # crops that make one training image
PROPOSERS = ("grid", "random", "column")


@dataclass(frozen=True, slots=True)
class OptiDelPatches:
    """The hardest crops of the images that `optidel` chooses, four to a tile. The budget counts tiles.

    Hardness is `s1`, the bits of a crop's embedding given its whole image's, fitted on the crops of other images. A
    crop needs the quality that the pool's recipe asks of an image, and pvi ≥ threshold; if that leaves too few, the
    others follow by pvi, highest first. A manifest has one row for each crop, and no pixel is copied. The images are
    read and encoded again, so it is the slowest method by far; memory as `optidel`, and the embeddings of the crops.
    Byte budgets, and constraints but rows to drop, are refused: what they would promise of images does not hold for
    crops.

    images: images that `optidel` chooses for each tile, all of which are read
    view, epochs: as in `optidel`; threshold: least pvi of an image and of a crop, bits
    proposer: `grid`: boxes half a box apart; `random`: seeded places; `column`: boxes [[x, y, width, height], …] in
    upright pixels, from the metadata field `column`, detections for example
    scales: sides of the boxes as shares of the image's; four halves make a tile as large as the image. The image tells
    less about a smaller part, so small boxes are harder; proposals: boxes of an image by `random`
    per_image: most crops of one image; overlap: most that two of them may share, as a share of the smaller one
    """

    images: int = 4
    view: str = "self"
    epochs: float = 10.0
    threshold: float = 0.0
    proposer: str = "grid"
    column: str = "boxes"
    scales: tuple[float, ...] = (0.5,)
    proposals: int = 9
    per_image: int = 4
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.proposer not in PROPOSERS:
            raise SelectorError(f"proposer is {self.proposer!r}; it must be one of {', '.join(PROPOSERS)}")
        sides: Any = self.scales
        if not isinstance(sides, (list, tuple)) or not sides or not all(_is_share(side) for side in sides):
            raise SelectorError(f"scales is {sides!r}; it must be a list of shares in (0, 1]: scales = [0.5, 0.3]")
        if min(self.images, self.proposals, self.per_image) < 1 or not 0 <= self.overlap <= 1:
            raise SelectorError("images, proposals and per_image must be at least 1, and overlap from 0 to 1")

    def of_images(self) -> dict[str, Any]:
        """Return the parameters with which `optidel` chooses the images."""
        return {"view": self.view, "epochs": self.epochs, "threshold": self.threshold}


def _is_share(side: Any) -> bool:
    return isinstance(side, (int, float)) and not isinstance(side, bool) and 0 < side <= 1


def grid_boxes(width: int, height: int, scales: tuple[float, ...]) -> I64:
    """Return boxes (m, 4) int64 x, y, width, height inside an image, evenly spread, half a box apart or less."""
    boxes = []
    for scale in scales:
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        steps = int(np.ceil(2 * (1 - scale) / scale - 1e-9)) + 1
        xs, ys = (np.rint(np.linspace(0, room, steps)).astype(int).tolist() for room in (width - w, height - h))
        boxes += [(x, y, w, h) for y in ys for x in xs]
    return np.array(list(dict.fromkeys(boxes)), dtype=np.int64)


def random_boxes(width: int, height: int, scales: tuple[float, ...], count: int, rng: np.random.Generator) -> I64:
    """Return `count` boxes (count, 4) int64 x, y, width, height inside an image; place and scale are uniform."""
    side = np.asarray(scales, dtype=np.float64)[rng.integers(len(scales), size=count)]
    w, h = (np.maximum(1, np.rint(size * side)).astype(np.int64) for size in (width, height))
    return np.stack([rng.integers(width - w + 1), rng.integers(height - h + 1), w, h], axis=1)


def keep_crops(made: OptiDelPatches, s1: F32, pvi: F32, image: I64, box: I64, count: int) -> I64:
    """Return at most `count` crops (m,) int64, best first: by s1 behind the gate, then by pvi; ties to the lowest.

    s1, pvi: (n,) float32 bits; image: (n,) int64, the image of each; box: (n, 4) int64 x, y, width, height
    """
    gated = ~(pvi >= made.threshold)
    order = np.lexsort((np.arange(image.size), np.where(gated, -pvi, -s1), gated))
    kept: list[int] = []
    taken: dict[int, list[list[int]]] = {}
    boxes = box.tolist()
    for i in order.tolist():
        if len(kept) == count:
            break
        others = taken.setdefault(int(image[i]), [])
        if len(others) < made.per_image and all(_shared(boxes[i], other) <= made.overlap for other in others):
            others.append(boxes[i])
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def _shared(a: list[int], b: list[int]) -> float:
    """Return the area that two boxes share, as a share of the smaller one."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(across, 0) * max(down, 0) / min(a[2] * a[3], b[2] * b[3])


def tile_order(image: I64) -> I64:
    """Return the crops (4 k,) int64 in the order of their tiles: rows 4 i … 4 i + 3 are tile i; up to 3 are left over.

    image: (n,) int64, the image of each crop, best first. A tile takes the best that is left and the next of other
    images; two of one image are together only where no other image is left.
    """
    left = deque(range(image.size))
    order: list[int] = []
    for _ in range(image.size // TILE):
        members: list[int] = []
        passed: list[int] = []
        while left and len(members) < TILE:
            i = left.popleft()
            (passed if any(image[i] == image[m] for m in members) else members).append(i)
        missing = TILE - len(members)
        order += [*members, *passed[:missing]]
        left.extendleft(reversed(passed[missing:]))
    return np.array(order, dtype=np.int64)
