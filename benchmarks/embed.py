"""What embedding costs end to end, against the encoder alone; and bfloat16 weights against float32.

    python -m benchmarks.embed SOURCE [--images N] [--arch ViT-B-32]

End to end: JPEG bytes in, decoded, hashed, measured, prepared and encoded, in batches of 256 as `curate grow` has
them, one batch ahead. The baseline encodes the same prepared batches, and does nothing else. One thread encodes
(OMP_NUM_THREADS=1), so that the other processors decode; with one processor for both, the ratio says what it must.
Weights are random: time does not depend on them. SOURCE: images of your own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.paired import paired
from curate.encoders import ImageEncoder, Settings, load_image_encoder
from curate.engine.arrivals import Arrival, Arrivals
from curate.engine.prepare import prepared_batches
from curate.recipe import Recipe
from curate.sources import open_sources


def rows(source: str, n: int) -> list[list[Arrival]]:
    batches, found = Arrivals(open_sources([source]), {}, None).batches(256), []
    for batch in batches:
        found.append(batch)
        if sum(map(len, found)) >= n:
            break
    return found


def prepared(batches: list[list[Arrival]], encoder: ImageEncoder) -> Iterator[list[np.ndarray]]:
    for batch in prepared_batches(iter(batches), encoder, Recipe()):
        yield [p.crop for p in batch if p.crop is not None]


def end_to_end(name: str, encoder: ImageEncoder, batches: list[list[Arrival]], pairs: int) -> None:
    crops = list(prepared(batches, encoder))
    n = sum(map(len, crops))

    def alone() -> None:
        for batch in crops:
            encoder.encode(batch)

    def whole() -> None:
        for batch in prepared(batches, encoder):
            encoder.encode(batch)

    ratio = paired(f"{name} alone / end to end", whole, alone, pairs)
    print(f"{ratio.line()}   {n / ratio.baseline:.1f} / {n / ratio.ours:.1f} images/s", flush=True)


def precisions(arch: str, file: Path, crops: list[np.ndarray], pairs: int) -> None:
    name = f"open_clip:{arch}/{file}"
    half, full = (load_image_encoder(name, Settings("cpu", p)) for p in ("bfloat16", "float32"))
    cosine = (half.encode(crops) * full.encode(crops)).sum(axis=1)
    ratio = paired(f"{arch} float32 / bfloat16", lambda: half.encode(crops), lambda: full.encode(crops), pairs)
    print(f"{ratio.line()}   cosine {cosine.min():.5f} at least, {cosine.mean():.5f} on average", flush=True)


def main(source: str, images: int, arch: str, pairs: int) -> None:
    import open_clip
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        file = Path(folder) / "weights.pt"
        torch.save(open_clip.create_model(arch).state_dict(), file)
        batches = rows(source, images)
        end_to_end("builtin", load_image_encoder("builtin"), batches, pairs)
        clip = load_image_encoder(f"open_clip:{arch}/{file}")
        end_to_end(f"{arch} {clip.compute.split()[1]}", clip, batches, pairs)
        precisions(arch, file, next(prepared(batches, clip))[:64], pairs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--arch", default="ViT-B-32")
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    main(given.source, given.images, given.arch, given.pairs)
