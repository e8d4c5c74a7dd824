"""Embeddings of a small world, and the files in which DataComp, clip-retrieval and numpy keep such things."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

DIMS = {"l14": (48, 48), "b32": (32, 24)}  # of images and of captions
_HIDDEN = 16


def _unit(x: Any) -> Any:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class World:
    """n pictures that show hidden numbers, and captions that say them; both as vectors of two encoders.

    wrong: rows with another row's caption; near: {row: row whose vectors it has but for a cosine of about .998}
    """

    n: int
    seed: int = 0
    wrong: Sequence[int] = ()
    near: dict[int, int] | None = None

    def vectors(self, name: str = "l14") -> tuple[Any, Any]:
        rng = np.random.default_rng((self.seed, len(name)))
        maps = np.random.default_rng(DIMS[name][0])  # the encoder's, whatever it sees
        hidden = np.random.default_rng(self.seed).normal(size=(self.n, _HIDDEN))
        sides = [
            _unit(hidden @ maps.normal(size=(_HIDDEN, dim)) + rng.normal(0, 0.8, (self.n, dim))) for dim in DIMS[name]
        ]
        sides[1][list(self.wrong)] = sides[1][list(np.roll(self.wrong, 1))]
        for side in sides:
            for row, other in (self.near or {}).items():
                side[row] = _unit(side[other : other + 1] + rng.normal(0, 0.05 / np.sqrt(side.shape[1]), side.shape[1]))
        return sides[0], sides[1]

    def uid(self, i: int) -> str:
        return hashlib.sha256(f"{self.seed} {i}".encode()).hexdigest()[:32]

    def sha256(self, i: int) -> str:
        return hashlib.sha256(f"bytes {self.seed} {i}".encode()).hexdigest()

    def table(self) -> pa.Table:
        """Return the columns of DataComp's metadata, in their types."""
        rows = range(self.n)
        f32 = pa.float32()
        return pa.table(
            {
                "uid": [self.uid(i) for i in rows],
                "url": [f"http://example.org/{self.seed}/{i}.jpg" for i in rows],
                "text": [f"picture {i}" for i in rows],
                "original_width": pa.array([100 + i for i in rows], pa.int64()),
                "original_height": pa.array([200 + i for i in rows], pa.int64()),
                "clip_b32_similarity_score": pa.array([0.25] * self.n, f32),
                "clip_l14_similarity_score": pa.array([0.5] * self.n, f32),
                "face_bboxes": pa.array([[[0.1, 0.2, 0.3, 0.4]] * (i % 2) for i in rows], pa.list_(pa.list_(f32))),
                "sha256": [self.sha256(i) for i in rows],
            }
        )


def write_datacomp(
    folder: Path, name: str, world: World, *, packed: bool = False, table: pa.Table | None = None, **changed: Any
) -> Path:
    """Write one shard of metadata; changed: members of the .npz instead of the world's, None for none of it."""
    folder.mkdir(parents=True, exist_ok=True)
    members: dict[str, Any] = {"dedup": np.arange(world.n)}
    for kind in DIMS:
        for side, x in zip(("img", "txt"), world.vectors(kind), strict=True):
            members[f"{kind}_{side}"] = x.astype(np.float16)
    members = {key: value for key, value in (members | changed).items() if value is not None}
    (np.savez_compressed if packed else np.savez)(folder / f"{name}.npz", **members)
    parquet.write_table(world.table() if table is None else table, folder / f"{name}.parquet")
    return folder / f"{name}.npz"


def write_clip_retrieval(folder: Path, world: World, parts: int) -> Path:
    """Write a folder as `clip-retrieval inference` does, rows dealt evenly to the parts."""
    image, text = world.vectors()
    width = int(np.log10(parts)) + 1
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, rows in enumerate(np.array_split(np.arange(world.n), parts)):
        np.save(folder / f"img_emb/img_emb_{i:0{width}}.npy", image[rows].astype(np.float16))
        np.save(folder / f"text_emb/text_emb_{i:0{width}}.npy", text[rows].astype(np.float16))
        columns = {
            "image_path": [f"{row:09d}" for row in rows],
            "caption": [f"picture {row}" for row in rows],
            "url": [f"http://example.org/{row}.jpg" for row in rows],
            "width": [int(row) + 1 for row in rows],
            "height": [int(row) + 2 for row in rows],
        }
        parquet.write_table(pa.table(columns), folder / f"metadata/metadata_{i:0{width}}.parquet")
    return folder
