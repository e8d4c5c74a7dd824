"""Vision backbones of the timm library (DINOv2 and several hundred others), pooled as the model itself pools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from curate.crops import Crop
from curate.encoders.compute import Settings, resolved
from curate.encoders.fingerprints import first_line, state_hash
from curate.encoders.protocols import U8
from curate.encoders.torch_image import Backbone, TorchImageEncoder, identity_of, placed, scaled
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

PREFIX = "timm:"
_ADVICE = "give its weights, timm:{name}//path/to/file.safetensors, or a tag to download, timm:{name}.<tag>"
_SHAPING = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode", "crop_border_pixels")


def load_timm_image(name: str, settings: Settings) -> TorchImageEncoder:
    """Return the backbone of `timm:<model>//<path>`, or of `timm:<model>.<tag>`, whose weights timm downloads.

    The file is a state dict, .safetensors or what torch.load reads with weights_only=True; a classifier in it is left
    out. With a tag and a path, the tag says how images are prepared.

    Raises:
        EncoderError: the model is unknown, or the weights cannot be had or are not this model's.
    """
    model, weights = _split(name)
    network = _from_file(model, weights) if weights else _from_tag(model)
    return TorchImageEncoder(name, _backbone(name, network, settings))


def _split(name: str) -> tuple[str, Path | None]:
    """Return model and file. `//` stands before the path, which may itself begin with a slash or not."""
    import timm

    model, _, rest = name.removeprefix(PREFIX).partition("/")
    arch = model.partition(".")[0]
    if not timm.is_model(arch):
        raise EncoderError(f"timm has no model {arch!r}: timm.list_models() names those it has")
    if not rest:
        return model, None
    for path in (Path(rest).expanduser(), Path(rest.removeprefix("/")).expanduser()):
        if path.is_file():
            return model, path
    raise EncoderError(f"there is no file {rest} with weights of {model}; " + _ADVICE.format(name=arch))


def _from_tag(model: str) -> torch.nn.Module:
    import timm

    arch, _, tag = model.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{arch}.*")]
    if tag not in tags:
        what = f"timm has no weights {tag!r} of {arch}" if tag else f"timm:{arch} names no weights"
        raise EncoderError(f"{what} (tags: {', '.join(tags) or 'none'}); " + _ADVICE.format(name=arch))
    try:
        return timm.create_model(model, pretrained=True, num_classes=0)
    except Exception as error:
        raise EncoderError(
            f"the weights {tag} of {arch} cannot be had ({first_line(error)}); " + _ADVICE.format(name=arch)
        ) from error


def _from_file(model: str, path: Path) -> torch.nn.Module:
    import timm
    from timm.models import load_state_dict

    network = timm.create_model(model, pretrained=False, num_classes=0)
    try:
        state = load_state_dict(str(path), weights_only=True)
        # Some architectures read the files of their authors by a filter of their own.
        own = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        result = network.load_state_dict(own(state, network) if own else state, strict=False)
    except Exception as error:
        raise EncoderError(f"the weights {path} of {model} cannot be loaded ({first_line(error)})") from error
    if result.missing_keys:
        raise EncoderError(
            f"{path} does not hold the weights of {model}: it lacks {', '.join(result.missing_keys[:3])}"
            f" and {max(len(result.missing_keys) - 3, 0)} more"
        )
    return network


def _backbone(name: str, network: torch.nn.Module, settings: Settings) -> Backbone:
    import timm
    import torch

    config = timm.data.resolve_model_data_config(network)
    device, compute = resolved(settings)
    shaping = json.dumps({key: config[key] for key in _SHAPING if key in config}, sort_keys=True)
    arch = name.removeprefix(PREFIX).partition("/")[0].partition(".")[0]
    identity = identity_of("timm", arch, state_hash(network.state_dict()), shaping)
    network = placed(network, device, compute)
    with torch.inference_mode():
        weights = next(network.parameters())
        shape = network(torch.zeros((1, *config["input_size"]), device=device, dtype=weights.dtype)).shape
    if len(shape) != 2:
        raise EncoderError(f"{name} gives features of shape {tuple(shape[1:])}, not one row; take another timm model")

    def cells(x: torch.Tensor) -> torch.Tensor:
        try:
            last: torch.Tensor = network.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[-1]
        except (AttributeError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{name} gives no patch tokens ({first_line(error)}); leave encode.patches off"
            ) from error
        return last

    return Backbone(
        network, cells, _crop(config), config["mean"], config["std"], int(shape[1]), device, compute, identity
    )


def _crop(config: dict[str, Any]) -> Callable[[U8], U8]:
    """Return the resizing and cropping of timm's own evaluation transform."""
    from timm.data import create_transform

    height, width = config["input_size"][-2:]
    mode, share, interpolation = config["crop_mode"], config["crop_pct"], config["interpolation"]
    if interpolation in ("bicubic", "bilinear") and not config.get("crop_border_pixels"):
        if mode == "center" and height == width:
            return Crop(height, width, "shortest", scaled(height, share), interpolation)
        if mode == "squash" and share == 1:
            return Crop(height, width, "squash", interpolation=interpolation)
    return LibraryCrop(create_transform(**config, is_training=False).transforms)


class LibraryCrop:
    """Resizing and cropping that `Crop` does not know, by the library's own steps on PIL images."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        names = [type(step).__name__ for step in transforms]
        self._steps = transforms[: next(i for i, name in enumerate(names) if "ToTensor" in name)]

    def __call__(self, pixels: U8) -> U8:
        """Return the encoder's input for (H, W, 3) uint8 pixels."""
        image = Image.fromarray(pixels)
        for step in self._steps:
            image = step(image)
        return np.asarray(image)
