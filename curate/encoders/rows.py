"""Fixed batches in, unit rows out, and the check that a network still gives what it gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.encoders.protocols import F32
from curate.errors import EncoderError

Network = Callable[[NDArray[Any]], F32]

_REFERENCE_TOLERANCE = 1e-3  # of the largest reference value; another runtime differs by 1e-5, other weights by 1


def encode_rows(items: Sequence[NDArray[Any]], network: Network, *, batch: int, item: NDArray[Any], dim: int) -> F32:
    """Return the (n, dim) f32 unit rows of `items`, computed in batches of exactly `batch`.

    The last batch is filled up with zeros, so that the network only ever sees one shape and an item's row depends
    neither on how many others there are nor on which.

    item: an array of the shape and dtype that every item must have.

    Raises:
        EncoderError: an item has another shape or dtype.
    """
    out = np.empty((len(items), dim), np.float32)
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        out[start : start + len(part)] = network(filled(part, batch, item, start))[: len(part)]
    return unit_rows(out)


def filled(part: Sequence[NDArray[Any]], batch: int, item: NDArray[Any], start: int) -> NDArray[Any]:
    """Return one block of `batch` items, the first of them from `part`, the others zeros.

    start: number of the first, to be told.

    Raises:
        EncoderError: an item has not the shape and dtype of `item`.
    """
    block = np.zeros((batch, *item.shape), item.dtype)
    for i, array in enumerate(part):
        if array.shape != item.shape or array.dtype != item.dtype:
            raise EncoderError(
                f"item {start + i} is {array.dtype}{array.shape}, the encoder takes {item.dtype}{item.shape}: "
                "pass images through prepare() first"
            )
        block[i] = array
    return block


def unit_rows(features: F32) -> F32:
    """Return the rows scaled to norm 1; rows that are zero or not finite come back as zeros.

    features: (n, d) f32.
    """
    finite = np.isfinite(features).all(axis=1, keepdims=True)
    safe = np.where(finite, features, np.float32(0)).astype(np.float64)
    norm = np.sqrt(np.square(safe).sum(axis=1))
    return (safe / np.where(norm > 0, norm, 1)[:, None]).astype(np.float32)


def check_reference(name: str, row: F32, reference: Sequence[float]) -> None:
    """Compare the first dimensions of a freshly encoded row with those that the original network gave.

    Raises:
        EncoderError: they differ by more than a thousandth of the largest reference value.
    """
    want = np.asarray(reference, np.float32)
    error = float(np.abs(row[: len(want)] - want).max() / np.abs(want).max())
    if not error <= _REFERENCE_TOLERANCE:
        raise EncoderError(
            f"the {name} encoder is off by {error:.1e} on its reference input (allowed {_REFERENCE_TOLERANCE:g}): "
            "its cached network is damaged or a library computes something else; delete the .onnx files in the cache "
            "folder ($CURATE_CACHE, else ~/.cache/curate) and try again"
        )
