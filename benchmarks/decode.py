"""From a JPEG's bytes to an encoder's input, one thread, processor time, and what each step of it takes.

    python -m benchmarks.decode            # against open_clip's own transform (PIL and torchvision) for ViT-B-32
    python -m benchmarks.decode processes  # threads against processes that run already, everything before the encoder

Three sizes of one photograph (scikit-learn's china.jpg): 336x224 as in img2dataset's collections, 640x427 as it is
(170 KB after saving), 1920x1281 scaled up. Both end at the same float32 (3, 224, 224), normalised.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from benchmarks.paired import Ratio, paired, seconds
from curate.cleaning import measure
from curate.encoders.open_clip_encoder import clip_crop
from curate.engine.decoders import Decoders
from curate.engine.examine import examine, terms
from curate.hashing import phash
from curate.images import decode, pixel_hash
from curate.recipe import Recipe

SIZES = {"336x224": (336, 224, 90), "640x427": (640, 427, 97), "1920x1281": (1920, 1281, 85)}
MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
CROP = clip_crop({"size": 224})


TERMS = terms(Recipe(), CROP)


def photograph(width: int, height: int, quality: int) -> bytes:
    image = Image.fromarray(load_sample_image("china.jpg"))
    stream = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def repeated(function: Callable[[], object], times: int) -> Callable[[], None]:
    def many() -> None:
        for _ in range(times):
            function()

    return many


def normalised(crop: np.ndarray) -> np.ndarray:
    out = np.empty((3, *crop.shape[:2]), np.float32)
    for c in range(3):
        np.multiply(crop[:, :, c], 1 / (255 * STD[c]), out=out[c])
        out[c] -= MEAN[c] / STD[c]
    return out


def against_open_clip(name: str, data: bytes, times: int) -> Ratio:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(), is_train=False)

    def ours() -> np.ndarray:
        return normalised(CROP(decode(data, least=TERMS.least).pixels))

    def theirs() -> np.ndarray:
        return transform(Image.open(io.BytesIO(data))).numpy()

    assert np.abs(ours() - theirs()).mean() < 0.1  # of 3.7: open_clip's 335 columns of 1920 x 1281 are 336 at a quarter
    label = f"{name}, {len(data) // 1000} KB, {times} times"
    return paired(label, repeated(ours, times), repeated(theirs, times), 9, time.process_time)


def steps(data: bytes) -> str:
    image = decode(data, least=TERMS.least)
    work = {
        "decode": lambda: decode(data, least=TERMS.least),
        "whole": lambda: decode(data),
        "hash": lambda: pixel_hash(image.pixels, (image.width, image.height)),
        "phash": lambda: phash(image.pixels),
        "quality": lambda: measure(image.pixels),
        "crop": lambda: CROP(image.pixels),
    }
    times = {
        name: statistics.median(seconds(step, time.process_time) for _ in range(25)) for name, step in work.items()
    }
    return ", ".join(f"{name} {1e3 * time:.2f}" for name, time in times.items())


def against_threads(name: str, data: bytes, count: int) -> Ratio:
    decoders, images = Decoders(2, TERMS, CROP, 60.0), [data] * count
    try:
        with ThreadPoolExecutor(2) as pool:
            ours = paired(
                f"{name}, {count}, 2 processes, 2 threads",
                lambda: list(pool.map(decoders.examine, images)),
                lambda: list(pool.map(lambda image: examine(image, TERMS, CROP), images)),
                5,
            )
    finally:
        decoders.close()
    return ours


def main(processes: bool) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    for (name, size), times in zip(SIZES.items(), (100, 40, 10), strict=True):
        data = photograph(*size)
        if processes:
            print(against_threads(name, data, 4 * times).line(), flush=True)
        else:
            print(against_open_clip(name, data, times).line(), flush=True)
            print(f"    ms: {steps(data)}", flush=True)


if __name__ == "__main__":
    main("processes" in sys.argv[1:])
