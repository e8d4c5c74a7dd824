"""Encoders of the open_clip library: both towers of one model, from a tag on the hub or a file on disk."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.crops import Crop
from curate.encoders.compute import Compute, Settings, TorchNetwork, resolved
from curate.encoders.fingerprints import fingerprint, first_line, state_hash
from curate.encoders.protocols import F32
from curate.encoders.rows import unit_rows
from curate.encoders.torch_image import Backbone, TorchImageEncoder, identity_of, placed
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

PREFIX = "open_clip:"
_ADVICE = "give a local checkpoint: open_clip:{arch}//path/to/file.pt"


@dataclass(frozen=True, slots=True)
class _Clip:
    """One loaded model on its device; `source` is what open_clip calls it, `preprocess` its image settings."""

    source: str
    model: torch.nn.Module
    device: str
    compute: Compute
    dim: int
    preprocess: dict[str, Any]
    identity: tuple[str, ...]


class OpenClipTextEncoder:
    """The text tower of an open_clip model, in the same space as its image tower."""

    epsilon: float | None = None

    def __init__(self, name: str, clip: _Clip, tokenizer: Callable[[list[str]], torch.Tensor]) -> None:
        self.name = name
        self.dim = clip.dim
        self.fingerprint = fingerprint(*clip.identity, *clip.compute.identity(), "text")
        self._tokenizer = tokenizer
        self._item: NDArray[np.int64] = tokenizer([""]).numpy()[0]
        self._network = TorchNetwork(clip.model.encode_text, clip.device, clip.compute)

    @property
    def compute(self) -> str:
        """Return device, precision and batch: see `Compute`."""
        return str(self._network.compute)

    def encode(self, texts: Sequence[str]) -> F32:
        """Return (n, dim) f32 unit rows; a text longer than the model's context is truncated."""
        tokens = list(self._tokenizer(list(texts)).numpy()) if texts else []
        return unit_rows(self._network(tokens, self._item, self.dim))


def load_open_clip_image(name: str, settings: Settings) -> TorchImageEncoder:
    """Return the image tower of `open_clip:<architecture>/<tag or path>`.

    Raises:
        EncoderError: the name is unknown, or the weights cannot be had or are not of this architecture.
    """
    clip = _find(name, settings)
    crop, preprocess = clip_crop(clip.preprocess), clip.preprocess
    visual = clip.model.visual

    def cells(x: torch.Tensor) -> torch.Tensor:
        found = visual.forward_intermediates(x, indices=1, normalize_intermediates=True, intermediates_only=True)
        last: torch.Tensor = found["image_intermediates"][-1]
        return last

    backbone = Backbone(
        clip.model.encode_image, cells, crop, preprocess["mean"], preprocess["std"], clip.dim, clip.device,
        clip.compute, clip.identity,
    )  # fmt: skip
    return TorchImageEncoder(name, backbone)


def load_open_clip_text(name: str, settings: Settings) -> OpenClipTextEncoder:
    """Return the text tower of `open_clip:<architecture>/<tag or path>`; it shares the model with the image tower.

    Raises:
        EncoderError: as for the image tower, or the tokenizer cannot be had.
    """
    import open_clip

    clip = _find(name, settings)
    try:
        tokenizer = open_clip.get_tokenizer(clip.source)
    except Exception as error:
        raise EncoderError(
            f"the tokenizer of {name} cannot be had ({first_line(error)}): give a folder with open_clip_config.json, "
            "weights and tokenizer"
        ) from error
    return OpenClipTextEncoder(name, clip, tokenizer)


def _find(name: str, settings: Settings) -> _Clip:
    """Return the model that a name means, loaded once per process while its file stays the same."""
    import open_clip

    arch, _, weights = name.removeprefix(PREFIX).partition("/")
    path = Path(weights).expanduser()
    is_local = bool(weights) and path.exists()
    if arch not in open_clip.list_models():
        raise EncoderError(f"open_clip has no architecture {arch!r}: open_clip.list_models() names those it has")
    if not is_local and not open_clip.get_pretrained_cfg(arch, weights):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise EncoderError(
            f"{weights!r} is neither a file nor pretrained weights of {arch} (tags: {tags}); "
            + _ADVICE.format(arch=arch)
        )
    device, compute = resolved(settings)
    stamp = _stamp(path) if is_local else ()
    clip = _load(arch, str(path) if is_local else weights, stamp, device, Compute(compute.device, compute.precision))
    return replace(clip, compute=compute)


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, modification times and sizes of a file, or of the files in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@functools.lru_cache(maxsize=2)
def _load(arch: str, weights: str, stamp: tuple[tuple[str, int, int], ...], device: str, compute: Compute) -> _Clip:
    """Load a model; `stamp` only makes a changed file another entry of the cache."""
    import open_clip

    is_folder = bool(stamp) and Path(weights).is_dir()
    source = f"local-dir:{weights}" if is_folder else arch
    try:
        config = _folder_config(Path(weights)) if is_folder else open_clip.get_model_config(arch)
        model = open_clip.create_model(source, None if is_folder else weights, require_pretrained=True)
    except Exception as error:
        raise EncoderError(
            f"the weights {weights} of {arch} cannot be loaded ({first_line(error)}); " + _ADVICE.format(arch=arch)
        ) from error
    preprocess = dict(model.visual.preprocess_cfg)
    identity = identity_of("open_clip", arch, state_hash(model.state_dict()), json.dumps(preprocess, sort_keys=True))
    model = placed(model, device, compute)
    return _Clip(source, model, device, compute, int(config["embed_dim"]), preprocess, identity)


def _folder_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
    return config


def clip_crop(preprocess: dict[str, Any]) -> Crop:
    """Return the resizing and cropping part of a model's own preprocessing, from its settings."""
    size, mode = preprocess.get("size", 224), preprocess.get("resize_mode", "shortest")
    height, width = (size, size) if isinstance(size, int) else size
    interpolation = "bilinear" if preprocess.get("interpolation") == "bilinear" else "bicubic"
    if mode != "shortest":
        return Crop(height, width, mode, interpolation=interpolation, fill=preprocess.get("fill_color", 0))
    # Of an input that is not square, open_clip leaves the interpolation out.
    return Crop(height, width, mode, height, interpolation) if height == width else Crop(height, width, "cover")
