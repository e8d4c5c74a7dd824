"""Encoders turn photographs and captions into unit rows. Importing this package loads no network library."""

from __future__ import annotations

import importlib
from typing import Any

from curate.encoders.calibration import calibrate_epsilon, spread_epsilon
from curate.encoders.compute import Compute, Settings
from curate.encoders.precomputed import is_precomputed
from curate.encoders.protocols import ImageEncoder, PatchEncoder, TextEncoder
from curate.errors import EncoderError

__all__ = [
    "Compute",
    "ImageEncoder",
    "PatchEncoder",
    "Settings",
    "TextEncoder",
    "calibrate_epsilon",
    "default_text_encoder",
    "load_image_encoder",
    "load_text_encoder",
    "spread_epsilon",
]

# What stands before the colon of a name: the function (name, settings) that loads it.
_IMAGE = {
    "builtin": "curate.encoders.builtin_image:load_builtin_image",
    "open_clip": "curate.encoders.open_clip_encoder:load_open_clip_image",
    "timm": "curate.encoders.timm_encoder:load_timm_image",
    "onnx": "curate.encoders.onnx_encoder:load_onnx_image",
}
_TEXT = {
    "builtin": "curate.encoders.builtin_text:load_builtin_text",
    "open_clip": "curate.encoders.open_clip_encoder:load_open_clip_text",
    "st": "curate.encoders.sentence_encoder:load_sentence_text",
}
_TWO_TOWERS = ("open_clip",)  # kinds whose captions are encoded by the same model
_FORMS = {
    "builtin": "builtin",
    "open_clip": "open_clip:<architecture>/<tag or path>, e.g. open_clip:ViT-B-32/laion2b_s34b_b79k",
    "timm": "timm:<model>//<path>",
    "onnx": "onnx:<file>",
    "st": "st:<folder or name>",
}


def load_image_encoder(name: str, settings: Settings | None = None) -> ImageEncoder:
    """Return the image encoder that a name means, see `_FORMS`; several devices share the images.

    A tag of pretrained weights may make its library download them; nothing else reaches for the network.

    Raises:
        EncoderError: the name is unknown or encodes no images, its weights cannot be had or are damaged, or the
            settings ask for what is not there.
    """
    settings = settings or Settings()
    if "," in settings.device:
        from curate.encoders.split import SplitEncoder

        return SplitEncoder(_checked(name, _IMAGE, "images"), settings)
    encoder: ImageEncoder = _load(name, _IMAGE, "images", settings)
    return encoder


def load_text_encoder(name: str, settings: Settings | None = None) -> TextEncoder:
    """Return the text encoder that a name means, on the first of the settings' devices.

    Raises:
        EncoderError: as for images.
    """
    encoder: TextEncoder = _load(name, _TEXT, "captions", (settings or Settings()).one_device())
    return encoder


def default_text_encoder(image_name: str) -> str:
    """Return the text encoder that goes with an image encoder: open_clip's own tower, what gave given embeddings,
    `builtin` with all others.

    Raises:
        EncoderError: the name is unknown.
    """
    if is_precomputed(image_name):
        return image_name
    name = _checked(image_name, _IMAGE, "images")
    return name if name.partition(":")[0] in _TWO_TOWERS else "builtin"


def _load(name: str, table: dict[str, str], what: str, settings: Settings) -> Any:
    name = _checked(name, table, what)
    module, function = table[name.partition(":")[0]].split(":")
    return getattr(importlib.import_module(module), function)(name, settings)


def _checked(name: str, table: dict[str, str], what: str) -> str:
    name = name.strip()
    if is_precomputed(name):
        raise EncoderError(f"{name} embeddings were given by their source: there is no encoder that makes more of them")
    kind, colon, _ = name.partition(":")
    if kind in table and bool(colon) == (":" in _FORMS.get(kind, kind)):
        return name
    forms = "; ".join(_FORMS.get(known, known) for known in table)
    if kind in _FORMS and colon and kind not in table:
        raise EncoderError(f"{name!r} does not encode {what}; use {forms}")
    raise EncoderError(f"unknown encoder {name!r}: use {forms}")
