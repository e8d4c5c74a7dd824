"""What the engine costs on top of its encoder: `curate.grow` against decoding and encoding the same images alone."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import curate
from benchmarks.paired import paired
from curate.encoders import load_image_encoder, load_text_encoder
from curate.errors import DecodeError
from curate.images import decode
from curate.sources import open_sources


def encode_alone(source: str) -> None:
    """Decode and encode every image and caption in batches of 256; nothing is compared, scored or stored."""
    images, texts = load_image_encoder("builtin"), load_text_encoder("builtin")
    crops, captions = [], []
    for opened in open_sources([source]):
        for sample in opened.rows():
            try:
                crops.append(images.prepare(decode(sample.data).pixels))
            except DecodeError:
                continue
            if sample.caption:
                captions.append(sample.caption)
            if len(crops) == 256:
                images.encode(crops)
                texts.encode(captions)
                crops, captions = [], []
    images.encode(crops)
    texts.encode(captions)


def main(source: str, pairs: int = 3) -> None:
    folder = Path(tempfile.mkdtemp())

    def grow() -> None:
        shutil.rmtree(folder)
        curate.grow(source, folder)

    try:
        print(paired("encode alone / grow", grow, lambda: encode_alone(source), pairs).line())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
