"""Caption pictures with a transformers image-to-text model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from curate.encoders.fingerprints import fingerprint, state_hash
from curate.encoders.protocols import U8
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

_BATCH = 8
_MAX_TOKENS = 40
_HUB = "hf:"


class Captioner(Protocol):
    """Pictures in, captions out.

    fingerprint: 32 hex digits over weights, preprocessing and decoding; batch: how many pictures it likes at once
    """

    fingerprint: str
    batch: int

    def caption(self, images: Sequence[U8]) -> list[str]:
        """Return a caption for each picture (H, W, 3) uint8 RGB, "" where it has nothing to say."""
        ...


def load_captioner(name: str) -> TransformersCaptioner:
    """Return the captioner that lies in a folder, or as `hf:<name>` in the local cache; nothing is downloaded.

    The model must caption a picture that comes without a prompt: BLIP, GIT, a vision encoder-decoder, or their like.

    Raises:
        EncoderError: the model is not here, or not of this kind.
    """
    place = name.removeprefix(_HUB)
    try:
        processor, tokenizer, model = _load(place)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise EncoderError(
            f"no captioner {name!r} can be loaded from here ({first}); give a folder with its weights, config, image "
            f"processor and tokenizer, or fetch it first: hf download {place}"
        ) from error
    return TransformersCaptioner(processor, tokenizer, model)


def _load(place: str) -> tuple[Any, Any, torch.nn.Module]:
    import transformers as hf

    processor = hf.AutoImageProcessor.from_pretrained(place, local_files_only=True)
    tokenizer = hf.AutoTokenizer.from_pretrained(place, local_files_only=True)
    kind = hf.AutoModelForImageTextToText
    model, report = kind.from_pretrained(place, local_files_only=True, output_loading_info=True)
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"its weights lack {missing}, which would be drawn at random")
    return processor, tokenizer, model.eval()


class TransformersCaptioner:
    """A `Captioner` of a transformers model, greedy: float32 on a CPU, bfloat16 on a GPU.

    It only ever sees batches of one size, so that a caption does not depend on which pictures came together.
    """

    batch = _BATCH

    def __init__(self, processor: Any, tokenizer: Any, model: torch.nn.Module) -> None:
        import torch

        self._processor, self._tokenizer = processor, tokenizer
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        prepared = json.dumps(processor.to_dict(), sort_keys=True, default=str)
        self.fingerprint = fingerprint("caption", state_hash(model.state_dict()), prepared, f"{_BATCH} {_MAX_TOKENS}")
        self._dtype = torch.float32 if self._device == "cpu" else torch.bfloat16
        self._model: Any = model.to(self._device, self._dtype)

    def caption(self, images: Sequence[U8]) -> list[str]:
        """Return a caption for each picture; see `Captioner`."""
        out: list[str] = []
        for start in range(0, len(images), _BATCH):
            part = list(images[start : start + _BATCH])
            out += self._batch([*part, *[np.zeros((32, 32, 3), np.uint8)] * (_BATCH - len(part))])[: len(part)]
        return out

    def _batch(self, images: list[U8]) -> list[str]:
        import torch
        from PIL import Image

        shown = self._processor(images=[Image.fromarray(picture) for picture in images], return_tensors="pt")
        with torch.inference_mode():
            pixels = shown["pixel_values"].to(self._device, self._dtype)
            said = self._model.generate(pixel_values=pixels, max_new_tokens=_MAX_TOKENS, do_sample=False, num_beams=1)
        texts = self._tokenizer.batch_decode(said, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]
