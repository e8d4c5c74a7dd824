"""Encoders of the open_clip library: both towers of one model, from a tag on the hub or a file on disk."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.crops import Crop
from curate.encoders.fingerprints import fingerprint, state_hash
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import encode_rows
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

PREFIX = "open_clip:"
_BATCH = 32
_ADVICE = "give a local checkpoint: open_clip:{arch}//path/to/file.pt"


@dataclass(frozen=True, slots=True)
class _Clip:
    """One loaded model; `source` is what open_clip calls it, `preprocess` its image settings."""

    source: str
    model: torch.nn.Module
    device: str
    dim: int
    preprocess: dict[str, Any]
    identity: tuple[str, ...]

    def run(self, tower: Callable[[torch.Tensor], torch.Tensor], block: NDArray[Any]) -> F32:
        """Return one tower's f32 features of a batch: half precision on a GPU, full on a CPU."""
        import torch

        half = torch.autocast("cuda", torch.float16, enabled=self.device == "cuda")
        with torch.inference_mode(), half:
            features: F32 = tower(torch.from_numpy(block).to(self.device)).float().cpu().numpy()
        return features


class OpenClipImageEncoder:
    """The image tower of an open_clip model."""

    nonnegative = False
    epsilon: float | None = None

    def __init__(self, name: str, clip: _Clip) -> None:
        self.name = name
        self.dim = clip.dim
        self.fingerprint = fingerprint(*clip.identity, "image")
        self._clip = clip
        self.crop = clip_crop(clip.preprocess)
        self._item = self.prepare(np.zeros((8, 8, 3), np.uint8))
        self._mean, self._std = (_channels(clip.preprocess[key], clip.device) for key in ("mean", "std"))

    def prepare(self, pixels: U8) -> U8:
        """Return the crop that the model's own preprocessing gives, before it becomes a tensor: (s, s, 3) uint8."""
        return self.crop(pixels)

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, dim) f32 unit rows of prepared images, a zero row where the model gives none."""
        return encode_rows(prepared, self._run, batch=_BATCH, item=self._item, dim=self.dim)

    def _run(self, block: NDArray[Any]) -> F32:
        return self._clip.run(self._tower, block)

    def _tower(self, pixels: torch.Tensor) -> torch.Tensor:
        # Channels last, as the pixels already lie.
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        features: torch.Tensor = self._clip.model.encode_image(x)
        return features


class OpenClipTextEncoder:
    """The text tower of an open_clip model, in the same space as its image tower."""

    epsilon: float | None = None

    def __init__(self, name: str, clip: _Clip, tokenizer: Callable[[list[str]], torch.Tensor]) -> None:
        self.name = name
        self.dim = clip.dim
        self.fingerprint = fingerprint(*clip.identity, "text")
        self._clip = clip
        self._tokenizer = tokenizer
        self._item: NDArray[np.int64] = tokenizer([""]).numpy()[0]

    def encode(self, texts: Sequence[str]) -> F32:
        """Return (n, dim) f32 unit rows; a text longer than the model's context is truncated."""
        tokens = list(self._tokenizer(list(texts)).numpy()) if texts else []
        return encode_rows(tokens, self._run, batch=_BATCH, item=self._item, dim=self.dim)

    def _run(self, block: NDArray[Any]) -> F32:
        return self._clip.run(self._clip.model.encode_text, block)


def load_open_clip_image(name: str) -> OpenClipImageEncoder:
    """Return the image tower of `open_clip:<architecture>/<tag or path>`.

    Raises:
        EncoderError: the name is unknown, or the weights cannot be had or are not of this architecture.
    """
    return OpenClipImageEncoder(name, _find(name))


def load_open_clip_text(name: str) -> OpenClipTextEncoder:
    """Return the text tower of `open_clip:<architecture>/<tag or path>`; it shares the model with the image tower.

    Raises:
        EncoderError: as for the image tower, or the tokenizer cannot be had.
    """
    import open_clip

    clip = _find(name)
    try:
        tokenizer = open_clip.get_tokenizer(clip.source)
    except Exception as error:
        raise EncoderError(
            f"the tokenizer of {name} cannot be had ({_first_line(error)}): give a folder with open_clip_config.json, "
            "weights and tokenizer"
        ) from error
    return OpenClipTextEncoder(name, clip, tokenizer)


def _find(name: str) -> _Clip:
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
    return _load(arch, str(path) if is_local else weights, _stamp(path) if is_local else ())


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, modification times and sizes of a file, or of the files in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@functools.lru_cache(maxsize=2)
def _load(arch: str, weights: str, stamp: tuple[tuple[str, int, int], ...]) -> _Clip:
    """Load a model; `stamp` only makes a changed file another entry of the cache."""
    import open_clip
    import torch

    is_folder = bool(stamp) and Path(weights).is_dir()
    source = f"local-dir:{weights}" if is_folder else arch
    try:
        config = _folder_config(Path(weights)) if is_folder else open_clip.get_model_config(arch)
        model = open_clip.create_model(source, None if is_folder else weights, require_pretrained=True).eval()
    except Exception as error:
        raise EncoderError(
            f"the weights {weights} of {arch} cannot be loaded ({_first_line(error)}); " + _ADVICE.format(arch=arch)
        ) from error
    preprocess = dict(model.visual.preprocess_cfg)
    settings = json.dumps(preprocess, sort_keys=True)
    identity = ("open_clip", arch, state_hash(model.state_dict()), settings, str(_BATCH))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device, memory_format=torch.channels_last)
    return _Clip(source, model, device, int(config["embed_dim"]), preprocess, identity)


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


def _channels(values: Sequence[float], device: str) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device).reshape(1, 3, 1, 1)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
