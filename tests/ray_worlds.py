"""Small collections, an encoder of ten numbers, and what a pool holds, for tests that grow twice."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.pool import Pool
from curate.samples import Sample


def picture(seed: int) -> bytes:
    """Return a small JPEG; every fifth is the one before it, saved anew."""
    rng = np.random.default_rng(seed - (seed % 5 == 4))
    pixels = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80 + seed % 5)
    return out.getvalue()


def write_images(folder: Path, numbers: range) -> Path:
    """Write pictures of two classes, one in forty damaged."""
    for i in numbers:
        path = folder / ("cat" if i % 2 else "dog") / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i) if i % 40 != 7 else b"no picture")
    return folder


def write_encoder(file: Path) -> str:
    """Write an ONNX model, pixels times a fixed matrix; return its name as an encoder."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    plane = np.random.default_rng(1).normal(size=(3 * 24 * 24, 10)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "plane"], ["rows"])]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 24, 24])]
    made = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 10])]
    graph = helper.make_graph(nodes, "g", given, made, [numpy_helper.from_array(plane, "plane")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return f"onnx:{file}"


def content(path: Path) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Return everything that a pool holds: how many versions, its state, its rows with every column."""
    pool = Pool.open(path)
    return pool.version, pool.state(), pool.dataset.to_table().to_pylist()


@dataclass
class Slow:
    """Pictures, of which all but 64 take their time until a third machine reads; who reads is written to a folder."""

    folder: str
    count: int
    seconds: float
    id: str = "slow"
    root: str = "/"
    kind: str = "slow"
    fingerprint: str = "1"
    meta: dict[str, Any] = field(default_factory=dict)

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from `start` on."""
        import ray

        here = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "driver"
        (Path(self.folder) / here).touch()
        for i in range(start, self.count):
            if i >= 64 and len(list(Path(self.folder).iterdir())) < 3:
                time.sleep(self.seconds)
            data = picture(i)
            yield Sample(self.id, f"{i:05}", f"{i}.jpg", 0, len(data), data)
