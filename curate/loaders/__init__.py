"""Readers of manifests for training: the images of a subset, read where they lie, shuffled, shared and resumable.

    from curate.loaders import SubsetLoader, iterate

    for batch in SubsetLoader("subset", batch_size=64, num_workers=4, decode="tensor"): ...   # torch
    for batch in iterate("subset", batch_size=64, decode="array"): ...                        # numpy, JAX

docs/loaders.md tells more. Attributes are loaded on first use; only SubsetDataset, StreamingSubset and SubsetLoader
import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.loaders.loader import SubsetLoader as SubsetLoader
    from curate.loaders.pytorch import StreamingSubset as StreamingSubset
    from curate.loaders.pytorch import SubsetDataset as SubsetDataset
    from curate.loaders.reading import iterate as iterate
    from curate.loaders.samplers import InfoBatch as InfoBatch
    from curate.loaders.samplers import Repeats as Repeats
    from curate.loaders.samplers import TwoPhase as TwoPhase
    from curate.loaders.samplers import Weighted as Weighted
    from curate.loaders.subset import Subset as Subset

_LAZY = {
    "InfoBatch": "samplers",
    "Repeats": "samplers",
    "StreamingSubset": "pytorch",
    "Subset": "subset",
    "SubsetDataset": "pytorch",
    "SubsetLoader": "loader",
    "TwoPhase": "samplers",
    "Weighted": "samplers",
    "iterate": "reading",
}
__all__ = [
    "InfoBatch",
    "Repeats",
    "StreamingSubset",
    "Subset",
    "SubsetDataset",
    "SubsetLoader",
    "TwoPhase",
    "Weighted",
    "iterate",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"curate.loaders.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'curate.loaders' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
