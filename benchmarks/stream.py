"""The whole engine without encoding: precomputed embeddings and captions through every stage, each batch committed.

    python -m benchmarks.stream 1000000 [--folder F]

Rows are synthetic: Zipf clusters of images (512-d), captions (384-d) that follow them through a linear map, one in ten
with another image's caption, one in ten a near-duplicate of an earlier row. Prints seconds, the cost of each 100,000
rows, the share of commits, the share of checkpoints, and peak memory.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curate.engine import checkpoint, core
from curate.engine.arrivals import Arrival
from curate.engine.prepare import Prepared
from curate.engine.state import Encoder, State
from curate.pool import Pool, Writer
from curate.recipe import Recipe
from curate.samples import Sample
from curate_kernels.arrays import unit_rows

DIM, TEXT, BATCH = 512, 384, 256


class Rows:
    """Vectors of rows by number, made in blocks of a batch."""

    def __init__(self, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        k = max(50, n // 200)
        self.n, self.seed = n, seed
        self.centre = unit_rows(rng.normal(size=(k, DIM)).astype(np.float32))
        weight = 1.0 / np.arange(1, k + 1)
        self.share = np.cumsum(weight / weight.sum())
        self.map = (rng.normal(size=(DIM, TEXT)) / np.sqrt(DIM)).astype(np.float32)

    def block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image (BATCH, DIM) and text (BATCH, TEXT) unit rows of a block."""
        rng = np.random.default_rng((self.seed, number))
        which = np.searchsorted(self.share, rng.random(BATCH)).clip(max=len(self.centre) - 1)
        image = self.centre[which] + rng.normal(0, 0.7 / np.sqrt(DIM), (BATCH, DIM)).astype(np.float32)
        text = image @ self.map + rng.normal(0, 0.6 / np.sqrt(TEXT), (BATCH, TEXT)).astype(np.float32)
        wrong = rng.permutation(BATCH)[: BATCH // 10]
        text[wrong] = text[np.roll(wrong, 1)]
        if number:
            copies = rng.permutation(BATCH)[: BATCH // 10]
            older = Rows.block(self, int(rng.integers(0, number))) if number % 16 == 1 else (image, text)
            for mine, theirs in zip((image, text), older, strict=True):
                mine[copies] = theirs[np.roll(copies, 1)] + rng.normal(0, 1e-4, mine[copies].shape)
        return unit_rows(image.astype(np.float32)), unit_rows(text.astype(np.float32))


class Precomputed:
    """Both encoders: what they are asked to encode are row numbers."""

    epsilon, nonnegative, fingerprint, compute = 0.05, False, "0" * 32, ""

    def __init__(self, rows: Rows, side: int) -> None:
        self.rows, self.side, self.dim, self.name = rows, side, (DIM, TEXT)[side], f"precomputed-{side}"
        self._held = (-1, np.zeros((0, 0), dtype=np.float32))

    def encode(self, given) -> np.ndarray:
        number = int(given[0]) // BATCH
        if self._held[0] != number:
            self._held = (number, self.rows.block(number)[self.side])
        return self._held[1][[int(row) % BATCH for row in given]].astype(np.float16)


class Source:
    id, root, kind, fingerprint, count = "synthetic", "/", "table", "0", None


def batches(rows: Rows) -> Iterator[list[Prepared]]:
    for start in range(0, rows.n, BATCH):
        batch = []
        for i in range(start, min(start + BATCH, rows.n)):
            sha = hashlib.sha256(str(i).encode()).hexdigest()
            sample = Sample("synthetic", f"{i:08d}", f"{i}.jpg", 0, 50_000, b"", caption=str(i))
            crop = np.full((1, 1, 3), 0, dtype=np.uint8)
            arrival = Arrival(sample, sha[:32], sha, Source, i + 1)
            batch.append(Prepared(arrival=arrival, width=256, height=256, format="JPEG", pixel_hash=sha[32:], crop=crop,
                                  phash=sha[:16]))  # fmt: skip
        yield batch


class Clock:
    """Seconds spent inside a function, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: object, name: str, label: str) -> None:
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - started

        setattr(owner, name, timed)


def main(n: int, folder: Path) -> None:
    rows, clock = Rows(n), Clock()
    clock.wrap(Writer, "append", "commits")
    clock.wrap(checkpoint, "run", "checkpoints")
    images, texts = Precomputed(rows, 0), Precomputed(rows, 1)
    # Captions are row numbers, and so is what stands for the pixels.
    core.Engine._encode_images = lambda engine, batch: images.encode([p.arrival.sample.caption for p in batch])
    core.bind_text_encoder = lambda engine, captions: bound(engine, texts)
    recipe = Recipe()
    state = State(
        recipe={k: v for k, v in recipe.as_dict().items() if k not in ("source", "select")},
        image=Encoder(images.name, images.fingerprint, DIM, images.epsilon),
    )
    with Writer(folder) as writer:
        engine = core.Engine(writer, writer.create(DIM, state.as_dict()), recipe, state, images)
        started = mark = time.perf_counter()
        for batch in batches(rows):
            engine.step(batch)
            if checkpoint.is_due(engine):
                checkpoint.run(engine)
            if engine.state.rows % 102_400 == 0:
                now = time.perf_counter()
                print(f"{engine.state.rows:9,} rows: {now - mark:7.1f} s for 102,400; kept {len(engine.index):,};"
                      f" peak {peak():.2f} GB", flush=True)  # fmt: skip
                mark = now
        checkpoint.run(engine, final=True)
        total = time.perf_counter() - started
    shares = ", ".join(f"{name} {100 * s / total:.1f} %" for name, s in clock.seconds.items())
    kept = (Pool.open(folder).frame(["decision"])["decision"] == "admit").sum()
    print(f"{n:,} rows in {total:.0f} s, {1e6 * total / n:.0f} us a row; {shares}; kept {kept:,}; peak {peak():.2f} GB")


def bound(engine: core.Engine, texts: Precomputed) -> Precomputed:
    if engine.state.text is None:
        engine.state.text = Encoder(texts.name, texts.fingerprint, TEXT, texts.epsilon)
        engine.pool = engine.writer.add_view(engine.pool, "text", TEXT)
    return texts


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        main(given.rows, folder)
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
