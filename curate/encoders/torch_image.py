"""An image encoder around any vision network that torch runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curate.crops import Crop
from curate.encoders.compute import NOMINAL_BATCH, Compute, TorchNetwork
from curate.encoders.fingerprints import fingerprint
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import unit_rows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network as its library loaded it, on its device and in its precision.

    embed: (b, 3, h, w) normalised input to (b, dim); cells: to its last spatial features (b, e, rows, columns)
    crop: pixels to (h, w, 3) uint8; identity: parts of the fingerprint
    """

    embed: Callable[[torch.Tensor], torch.Tensor]
    cells: Callable[[torch.Tensor], torch.Tensor]
    crop: Callable[[U8], U8]
    mean: Sequence[float]
    std: Sequence[float]
    dim: int
    device: str
    compute: Compute
    identity: tuple[str, ...]


class TorchImageEncoder:
    """An `ImageEncoder` of a backbone, which also gives patch tokens."""

    nonnegative = False
    epsilon: float | None = None

    def __init__(self, name: str, backbone: Backbone) -> None:
        self.name = name
        self.dim = backbone.dim
        self.fingerprint = fingerprint(*backbone.identity, *backbone.compute.identity(), "image")
        self._crop = backbone.crop
        if isinstance(backbone.crop, Crop):
            self.crop = backbone.crop
        self._item = self.prepare(np.zeros((8, 8, 3), np.uint8))
        self._backbone = backbone
        self._mean, self._std = (_channels(values, backbone.device) for values in (backbone.mean, backbone.std))
        self._network = TorchNetwork(lambda x: backbone.embed(self._input(x)), backbone.device, backbone.compute)
        self._patches: TorchNetwork | None = None
        self._patch_shape: tuple[int, int] | None = None

    @property
    def compute(self) -> str:
        """Return device, precision and batch: see `Compute`."""
        return str(self._network.compute)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Return how many tokens `patches` gives, and their dimensions."""
        import torch

        if self._patch_shape is None:
            with torch.inference_mode():
                shown = torch.from_numpy(self._item[None].copy()).to(self._backbone.device)
                _, dim, rows, columns = self._backbone.cells(self._input(shown)).shape
            self._patch_shape = (rows * columns, int(dim))
        return self._patch_shape

    def prepare(self, pixels: U8) -> U8:
        """Return the crop that the model's own preprocessing gives, before it becomes a tensor: (h, w, 3) uint8."""
        return self._crop(pixels)

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, dim) f32 unit rows of prepared images, a zero row where the network gives none."""
        return unit_rows(self._network(prepared, self._item, self.dim))

    def patches(self, prepared: Sequence[U8]) -> F32:
        """Return (n, tokens, e) f32 features of places in prepared images, row by row, as the last layer gives them.

        Patch tokens of a vision transformer after its norm, without class and register tokens; spatial cells of a
        convolutional network. A forward pass of its own: the embeddings stay as they are without it.
        """
        tokens, dim = self.patch_shape
        if self._patches is None:
            backbone = self._backbone
            self._patches = TorchNetwork(
                lambda x: backbone.cells(self._input(x)).flatten(2).transpose(1, 2).flatten(1),
                backbone.device, backbone.compute,
            )  # fmt: skip
        # One batch for both networks, the smaller: `compute` tells it, and a resumed run begins with it.
        self._patches.compute = self._network.compute
        flat = self._patches(prepared, self._item, tokens * dim)
        self._network.compute = self._patches.compute
        return np.where(np.isfinite(flat), flat, np.float32(0)).reshape(-1, tokens, dim)

    def _input(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        dtype = getattr(torch, self._backbone.compute.precision)
        # Channels last, as the pixels already lie.
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        return x.to(dtype)


def placed(model: torch.nn.Module, device: str, compute: Compute) -> torch.nn.Module:
    """Return a network on its device, with its weights in its precision."""
    import torch

    return model.eval().to(device, getattr(torch, compute.precision), memory_format=torch.channels_last)


def identity_of(kind: str, architecture: str, weights: str, settings: str) -> tuple[str, ...]:
    """Return the parts of a fingerprint; weights: their hash, settings: the preprocessing as JSON."""
    return kind, architecture, weights, settings, str(NOMINAL_BATCH)


def scaled(size: int, share: float) -> int:
    """Return the side that an image is resized to, of which a crop of `size` takes a share."""
    return math.floor(size / share)


def _channels(values: Sequence[float], device: str) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device).reshape(1, 3, 1, 1)
