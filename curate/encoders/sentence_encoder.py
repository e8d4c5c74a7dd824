"""Captions by any model of the sentence-transformers library."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.encoders.compute import NOMINAL_BATCH, Compute, Settings, TorchNetwork, resolved
from curate.encoders.fingerprints import fingerprint, first_line, state_hash
from curate.encoders.protocols import F32
from curate.encoders.rows import unit_rows
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

PREFIX = "st:"
_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SPARE = 1  # attention takes another path, and gives other last bits, where no row of a batch is padded


class SentenceEncoder:
    """Sentence embeddings of a transformer with its own pooling, in unit rows."""

    epsilon: float | None = None

    def __init__(self, name: str, model: Any, device: str, compute: Compute) -> None:
        self.name = name
        self._model, self._tokenizer = model, model.tokenizer
        self._prompt = (model.prompts or {}).get(model.default_prompt_name or "", "")
        self._longest = int(min(model.max_seq_length or _LENGTHS[-1], _LENGTHS[-1]))
        self._lengths = [*(length for length in _LENGTHS if length < self._longest), self._longest]
        parts = (json.dumps([_config(module) for module in model]), _words(self._tokenizer), self._prompt)
        lengths = f"lengths {self._lengths} batch {NOMINAL_BATCH}"
        weights = state_hash(model.state_dict())
        self.fingerprint = fingerprint("st", weights, *parts, lengths, *compute.identity())
        self._names = [n for n in self._tokenizer.model_input_names if n != "position_ids"]
        import torch

        self._model = model.eval().to(device, getattr(torch, compute.precision))
        self._network = TorchNetwork(self._forward, device, compute, spare=_SPARE)
        shown, longest = self._tokens([""], self._lengths[0]), self._lengths[0]
        with torch.inference_mode():
            self.dim = int(self._forward(torch.from_numpy(shown).to(device)).shape[1])
        assert shown.shape[2] == longest

    @property
    def compute(self) -> str:
        """Return device, precision and batch: see `Compute`."""
        return str(self._network.compute)

    def encode(self, texts: Sequence[str]) -> F32:
        """Return (n, dim) f32 unit rows; a text longer than the model reads is truncated.

        Texts are put together by their own length in tokens, so that what one is padded to, and so its row, does not
        depend on the others.
        """
        shown = [self._prompt + text.strip() for text in texts]
        out = np.empty((len(shown), self.dim), np.float32)
        if not shown:
            return out
        ids = self._tokenizer(shown, truncation=True, max_length=self._longest)["input_ids"]
        bucket = np.searchsorted(self._lengths, [len(tokens) for tokens in ids])
        for b in np.unique(bucket):
            rows = np.flatnonzero(bucket == b)
            tokens = self._tokens([shown[i] for i in rows], self._lengths[b])
            out[rows] = self._network(list(tokens), tokens[0], self.dim)
        return unit_rows(out)

    def _tokens(self, texts: list[str], length: int) -> NDArray[np.int64]:
        """Return (n, inputs, length) int64: what the tokenizer gives, padded to `length`."""
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "np"}
        told = self._tokenizer(texts, **options)
        return np.stack([told[name] for name in self._names], axis=1).astype(np.int64)

    def _forward(self, block: torch.Tensor) -> torch.Tensor:
        features = {name: block[:, i].contiguous() for i, name in enumerate(self._names)}
        rows: torch.Tensor = self._model(features)["sentence_embedding"]
        return rows


def load_sentence_text(name: str, settings: Settings) -> SentenceEncoder:
    """Return the text encoder of `st:<folder>`, or of `st:<name on the hub>`, which may be downloaded.

    Raises:
        EncoderError: sentence-transformers is not installed, or the model cannot be had or reads no text.
    """
    try:
        import sentence_transformers
    except ImportError as error:
        raise EncoderError(f"{name} needs sentence-transformers: pip install 'curate-engine[st]' ({error})") from error
    where = name.removeprefix(PREFIX)
    folder = Path(where).expanduser()
    is_local = folder.exists()
    if not is_local and not _HUB.fullmatch(where):
        raise EncoderError(f"there is no folder {where}: write st:path/to/model, or st:<name on the hub>")
    device, compute = resolved(settings.one_device())
    try:
        # Code from a model's folder is never run: neither its modules, nor what its configuration names.
        model = sentence_transformers.SentenceTransformer(
            str(folder) if is_local else where, device="cpu", local_files_only=is_local, trust_remote_code=False
        )
    except Exception as error:
        todo = (
            "it must be a folder as sentence-transformers saves it" if is_local else "give a folder: st:path/to/model"
        )
        raise EncoderError(f"the text encoder {where} cannot be loaded ({first_line(error)}); {todo}") from error
    if not hasattr(model.tokenizer, "model_input_names"):
        raise EncoderError(f"{name} is no transformer over tokens, which is what captions can be encoded by")
    return SentenceEncoder(name, model, device, compute)


def _config(module: Any) -> Any:
    """Return the settings of one module of a model, without those that name where it lies."""
    if hasattr(module, "get_config_dict"):
        return [type(module).__name__, json.loads(json.dumps(module.get_config_dict(), default=str, sort_keys=True))]
    return [type(module).__name__]


def _words(tokenizer: Any) -> str:
    """Return a tokenizer as text that depends on what it does alone."""
    if not getattr(tokenizer, "is_fast", False):
        return json.dumps(sorted(tokenizer.get_vocab().items()))
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({k: v for k, v in told.items() if k not in ("truncation", "padding")}, sort_keys=True)
