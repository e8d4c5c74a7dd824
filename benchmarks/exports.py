"""DataComp exports of large manifests: seconds and peak memory, and the ratio to the plain way to write the same array.

`python -m benchmarks.exports [ROWS]`; ten million rows take .6 GB in the folder for temporary files while it runs.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.paired import paired
from curate.exports import export
from curate.manifest import COLUMNS, read_manifest, write_manifest

_PART = 1_000_000


def made(folder: Path, rows: int) -> Path:
    """Write a manifest of so many rows with random uids and digests, a part at a time."""
    rng = np.random.default_rng(0)
    infos = []
    for start in range(0, rows, _PART):
        n = min(_PART, rows - start)
        digits = rng.bytes(32 * n).hex()
        sha256 = pl.Series([digits[64 * i : 64 * i + 64] for i in range(n)])
        frame = pl.DataFrame({"sha256": sha256}).with_columns(
            uid=pl.col("sha256").str.slice(0, 32),
            key=pl.int_range(start, start + n).cast(pl.String).str.zfill(9),
            source=pl.lit("shards"),
            path=(pl.int_range(start, start + n) // 10_000).cast(pl.String).str.zfill(8) + ".tar",
            offset=pl.int_range(n) * 51_200,
            size=pl.lit(50_000),
            width=pl.lit(224),
            height=pl.lit(224),
            caption=pl.lit("a photograph of item ") + pl.int_range(n).cast(pl.String),
            label=pl.lit(None),
            group=pl.lit(None),
            weight=pl.lit(1.0),
            inclusion_probability=pl.lit(0.1),
            rank=pl.int_range(start, start + n),
            reason=pl.lit("admitted"),
            gain=pl.lit(0.5),
        )
        written = write_manifest(folder / f"{start}", frame.select(*COLUMNS), {"sources": [], "method": "made"})
        infos.append(json.loads(written.read_text()))
        for part in infos[-1]["parts"]:
            (folder / f"{start}" / part["path"]).rename(folder / part["path"])
    whole = infos[0] | {"rows": rows, "parts": [part for info in infos for part in info["parts"]]}
    (folder / "manifest.json").write_text(json.dumps(whole))
    return folder


def plain(manifest: Path, out: Path) -> None:
    """Write the array as a script would: one uid after the other, and numpy's sort of pairs."""
    uids = read_manifest(manifest)["uid"].to_list()
    pairs = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], dtype="u8,u8")
    pairs.sort()
    np.save(out, pairs)


def _ours(manifest: Path, out: Path) -> None:
    out.unlink(missing_ok=True)
    export(manifest, "datacomp", out)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as base:
        small = made(Path(base) / "small", 200_000)
        ours, theirs = Path(base) / "ours.npy", Path(base) / "theirs.npy"
        print(paired("datacomp 200,000", lambda: _ours(small, ours), lambda: plain(small, theirs)).line())
        assert ours.read_bytes() == theirs.read_bytes()
    with tempfile.TemporaryDirectory() as base:
        # A process of its own, whose memory is not our peak.
        maker = multiprocessing.get_context("spawn").Process(target=made, args=(Path(base) / "m", count))
        maker.start()
        maker.join()
        began, worked = time.perf_counter(), time.process_time()
        export(Path(base) / "m", "datacomp", Path(base) / "x.npy")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        took, work = time.perf_counter() - began, time.process_time() - worked
        print(f"datacomp {count:,}: {took:.1f} s, {work:.1f} s of processor time; peak of the process {peak:.2f} GB")
