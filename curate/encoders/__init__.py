"""Encoders turn photographs and captions into unit rows. Importing this package loads no network library."""

from __future__ import annotations

from curate.encoders.calibration import calibrate_epsilon, spread_epsilon
from curate.encoders.precomputed import is_precomputed
from curate.encoders.protocols import ImageEncoder, TextEncoder
from curate.errors import EncoderError

__all__ = [
    "ImageEncoder",
    "TextEncoder",
    "calibrate_epsilon",
    "default_text_encoder",
    "load_image_encoder",
    "load_text_encoder",
    "spread_epsilon",
]

_BUILTIN = "builtin"
_OPEN_CLIP = "open_clip:"


def load_image_encoder(name: str) -> ImageEncoder:
    """Return the image encoder that a name means: `builtin`, or `open_clip:<architecture>/<tag or path>`.

    A tag may make open_clip download its weights; nothing else reaches for the network.

    Raises:
        EncoderError: the name is unknown, or its weights cannot be had or are damaged.
    """
    name = _checked(name)
    if name == _BUILTIN:
        from curate.encoders.builtin_image import load_builtin_image

        return load_builtin_image()
    from curate.encoders.open_clip_encoder import load_open_clip_image

    return load_open_clip_image(name)


def load_text_encoder(name: str) -> TextEncoder:
    """Return the text encoder that a name means; the names are those of image encoders.

    Raises:
        EncoderError: the name is unknown, or its weights cannot be had or are damaged.
    """
    name = _checked(name)
    if name == _BUILTIN:
        from curate.encoders.builtin_text import load_builtin_text

        return load_builtin_text()
    from curate.encoders.open_clip_encoder import load_open_clip_text

    return load_open_clip_text(name)


def default_text_encoder(image_name: str) -> str:
    """Return the text encoder that goes with an image encoder: open_clip with its own tower, others with their
    own name.

    Raises:
        EncoderError: the name is unknown.
    """
    return image_name if is_precomputed(image_name) else _checked(image_name)


def _checked(name: str) -> str:
    name = name.strip()
    if is_precomputed(name):
        raise EncoderError(f"{name} embeddings were given by their source: there is no encoder that makes more of them")
    if name == _BUILTIN or name.startswith(_OPEN_CLIP):
        return name
    raise EncoderError(
        f"unknown encoder {name!r}: use builtin, or open_clip:<architecture>/<tag or path>, "
        "e.g. open_clip:ViT-B-32/laion2b_s34b_b79k"
    )
