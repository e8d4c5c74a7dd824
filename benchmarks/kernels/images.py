"""Per-image work before the encoder: the perceptual hash, the quality scores, and the search for near hashes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from benchmarks.paired import Ratio, paired
from curate.cleaning import measure
from curate.hashing import HashIndex, phash


def _photograph(width: int, height: int) -> np.ndarray:
    return np.array(Image.fromarray(load_sample_image("china.jpg")).resize((width, height)))


def _times(function: Callable[[], object], repeats: int) -> Callable[[], None]:
    def many() -> None:
        for _ in range(repeats):
            function()

    return many


def _phash(width: int, height: int, repeats: int) -> Ratio:
    import imagehash

    pixels = _photograph(width, height)
    assert f"{phash(pixels):016x}" == str(imagehash.phash(Image.fromarray(pixels)))
    ours = _times(lambda: phash(pixels), repeats)
    theirs = _times(lambda: imagehash.phash(Image.fromarray(pixels)), repeats)
    return paired(f"pHash {width}x{height}, {repeats}, imagehash", ours, theirs, 9)


def small_phash() -> Ratio:
    return _phash(300, 201, 500)


def large_phash() -> Ratio:
    return _phash(640, 427, 150)


def quality() -> Ratio:
    """Against contrast and sharpness alone, with numpy's percentile."""
    pixels = _photograph(300, 200)

    def two_scores() -> float:
        luma = np.asarray(
            Image.fromarray(pixels).convert("L").resize((224, 149), Image.Resampling.BILINEAR, reducing_gap=2.0),
            dtype=np.float32,
        )
        low, high = np.percentile(luma, (1, 99))
        ring = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        return float(high - low) + float(np.abs(4 * luma[1:-1, 1:-1] - ring).mean())

    return paired("six qualities 300x200, 300, two", _times(lambda: measure(pixels), 300), _times(two_scores, 300), 9)


def near_hashes() -> Ratio:
    import faiss

    faiss.omp_set_num_threads(1)
    stored, asked = (np.random.default_rng(0).integers(0, 2**64, n, dtype=np.uint64) for n in (100_000, 1000))
    ours, theirs = HashIndex(), faiss.IndexBinaryFlat(64)
    ours.add(stored)
    theirs.add(stored.view(np.uint8).reshape(-1, 8))
    queries = asked.view(np.uint8).reshape(-1, 8)
    return paired(
        "nearest of 100,000, 1000, faiss", lambda: ours.search(asked, 10), lambda: theirs.search(queries, 1), 9
    )


BENCHMARKS = (small_phash, large_phash, quality, near_hashes)
