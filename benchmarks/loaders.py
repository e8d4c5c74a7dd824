"""The readers of manifests against webdataset, and the opening of a large manifest.

    python -m benchmarks.loaders SHARDS [--rows 10000000] [--folder F]

SHARDS: a folder of WebDataset tars with .jpg and .txt members. A subset is 5 % of all images, drawn at random;
webdataset reads the whole stream and filters by key. `decoded` adds PIL's decoding to both sides. The second part
writes a synthetic manifest of --rows rows (70 bytes each on disk; deleted afterwards) and opens it in processes of
their own, first with nothing in the cache folder. --rows 0 leaves it out. Needs `pip install webdataset`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from benchmarks.paired import Ratio, paired
from curate.loaders import Subset, iterate
from curate.manifest import COLUMNS, write_manifest
from curate.samples import content_hash, sample_uid
from curate.sources import open_sources

PART = 1_000_000
SHARD_ROWS = 10_000
OPEN = """
import json, sys, time
import numpy, pyarrow.parquet
from curate.loaders import Subset

def peak():
    return next(int(line.split()[1]) / 1e6 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def measured(work):
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor, peak()

def opened():
    global subset
    subset = Subset(sys.argv[1])
    return len(subset) + subset.file[-1] + subset.offset[-1] + subset.size[-1]

print(json.dumps([
    measured(opened),
    measured(lambda: subset.by_place[0]),
    measured(lambda: subset.values("caption", [0, len(subset) - 1])),
]))
"""


def write_subset(shards: str, out: Path, share: float) -> Subset:
    """Write a manifest of a random share of the images of tars."""
    rows, sources = [], []
    for source in open_sources([shards]):
        sources.append({"id": source.id, "kind": source.kind, "root": source.root})
        for sample in source.rows():
            if sample.data:
                sha = content_hash(sample.data)
                row = {
                    "uid": sample.uid or sample_uid(source.id, sample.key, sha),
                    "key": sample.key,
                    "source": source.id,
                }
                place = {"path": sample.path, "offset": sample.offset, "size": sample.size, "sha256": sha}
                rows.append(row | place | {"caption": sample.caption, "weight": 1.0, "reason": "admitted"})
    chosen = np.random.default_rng(0).permutation(len(rows))[: max(1, round(share * len(rows)))]
    table = pl.DataFrame([{"rank": rank} | rows[i] for rank, i in enumerate(chosen)], schema=COLUMNS)
    info = {"method": "random", "budget": f"{share:.0%}", "seed": 0, "nested": True, "sources": sources}
    return Subset(str(write_manifest(out, table, info)))


def ours(subset: Subset, decode: Callable[[bytes], object] | str) -> Callable[[], None]:
    epochs = iter(range(1000))

    def run() -> None:
        options = {"decode": decode, "columns": ("key", "caption"), "threads": 0}
        seen = sum(len(item["caption"] or "") >= 0 for item in iterate(subset, epoch=next(epochs), **options))
        assert seen == len(subset)

    return run


def theirs(shards: str, subset: Subset, decode: Callable[[bytes], object] | None, filtered: bool) -> Callable[[], None]:
    import webdataset

    urls = sorted(str(path) for path in Path(shards).glob("*.tar"))
    keys = set(subset.values("key", range(len(subset))))

    def run() -> None:
        stream = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        if filtered:
            stream = stream.select(lambda sample: sample["__key__"] in keys)
        seen = 0
        for sample in stream:
            if decode is not None:
                decode(sample["jpg"])
            seen += len(sample["txt"].decode()) >= 0
        assert seen == len(keys)

    return run


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def against_webdataset(shards: str, folder: Path) -> Iterator[Ratio]:
    part, whole = write_subset(shards, folder / "part", 0.05), write_subset(shards, folder / "whole", 1.0)
    print(f"{len(whole):,} images, {len(part):,} in the subset")
    yield paired("5 %, bytes", ours(part, "raw"), theirs(shards, part, None, True), 7)
    yield paired("5 %, decoded", ours(part, pixels), theirs(shards, part, pixels, True), 3)
    yield paired("all, shuffled / in sequence, bytes", ours(whole, "raw"), theirs(shards, whole, None, False), 7)
    yield paired("all, decoded", ours(whole, pixels), theirs(shards, whole, pixels, False), 3)


def synthetic(number: int, rows: int) -> pl.DataFrame:
    """Return rows `number` · PART and on of a manifest of tars of 10,000 images, in random order."""
    rng = np.random.default_rng(number)
    shard, place = rng.integers(0, 1000, rows), rng.integers(0, SHARD_ROWS, rows)
    uid, sha = rng.bytes(16 * rows).hex(), rng.bytes(32 * rows).hex()
    values = {
        "uid": [uid[i : i + 32] for i in range(0, 32 * rows, 32)],
        "key": [f"{s:05d}{p:04d}" for s, p in zip(shard, place, strict=True)],
        "source": [f"shards/{s:05d}.tar" for s in shard],
        "path": [f"{s:05d}.tar" for s in shard],
        "offset": place * 20_480 + 512,
        "size": rng.integers(5_000, 20_000, rows),
        "sha256": [sha[i : i + 64] for i in range(0, 64 * rows, 64)],
        "caption": [
            f"image {p} of the {s}th tar, as a caption of usual length" for s, p in zip(shard, place, strict=True)
        ],
        "weight": np.ones(rows),
        "rank": np.arange(rows) + number * PART,
        "reason": ["admitted"] * rows,
    }
    return pl.DataFrame(values).select(
        pl.col(name).cast(kind) if name in values else pl.lit(None, dtype=kind).alias(name)
        for name, kind in COLUMNS.items()
    )


def open_large(rows: int, folder: Path) -> None:
    sources = [{"id": f"shards/{s:05d}.tar", "kind": "tar", "root": "/data/shards"} for s in range(1000)]
    info = {"method": "random", "budget": "100%", "seed": 0, "nested": True, "sources": sources}
    started = time.perf_counter()
    frames = (synthetic(number, min(PART, rows - start)) for number, start in enumerate(range(0, rows, PART)))
    write_manifest(folder / "large", frames, info)
    print(f"{rows:,} rows written in {time.perf_counter() - started:.0f} s")
    for name in ("first", "again"):
        environment = os.environ | {"CURATE_CACHE": str(folder / "cache")}
        done = subprocess.run([sys.executable, "-c", OPEN, folder / "large"], env=environment, capture_output=True,
                              text=True, check=True)  # fmt: skip
        for what, (wall, processor, peak) in zip(("opened", "sorted by place", "captions"), json.loads(done.stdout),
                                                  strict=True):  # fmt: skip
            print(f"{what}, {name}: {wall:.2f} s, {processor:.2f} s of processors; at most {peak:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        for ratio in against_webdataset(given.shards, folder):
            print(ratio.line(), flush=True)
        if given.rows:
            open_large(given.rows, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
