"""`embed`, `score` and `select` with `--on ray` against one process, on one pool of as many rows as you ask for.

    python -m benchmarks.ray_bulk 102400 FOLDER

Shards of small drawn JPEGs with a class each are written to FOLDER and grown, by an encoder of 512 random projections;
both stay there for the next time. Each command is a process of its own, on a copy of the pool; seconds are the call's
own, without starting Ray. The cluster has two CPUs of this machine. What one process and the cluster made is compared.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

_SHARD = 10_240
_SIDE = 48
_CLASSES = 100
_START = """
import json, re, sys, time
from pathlib import Path
name, pool, out, encoder, on, given = (*sys.argv[1:5], sys.argv[5] or None, json.loads(sys.argv[6]))
if on:
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
import curate
call = {
    "embed": lambda: curate.embed(pool, "more", encoder, on=on),
    "score": lambda: curate.score_pool(pool, **given, on=on),
    "select": lambda: curate.select_from_pool(pool, out, **given, on=on),
}[name]
started = time.perf_counter()
call()
seconds = time.perf_counter() - started
peak = re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]  # ru_maxrss counts the parent's
print(json.dumps([seconds, int(peak) / 2**20]))
"""


def _command(name: str, **given: Any) -> tuple[str, dict[str, Any]]:
    return name, given


def commands(rows: int) -> list[tuple[str, dict[str, Any]]]:
    """Return what is measured: the command and its arguments."""
    parts = {"params": {"parts": 16}, "budget": 1000}
    return [
        _command("embed"),
        _command("score", names=["vinfo", "density"]),
        _command("select", method="semdedup", budget=rows // 2, params={"clusters": 1000}),
        _command("select", method="hierarchical", budget=rows // 10, params={"levels": [1000, 30]}),
        _command("select", method="kcenter", **parts),
        _command("select", method="log-det", **parts),
    ]


def write_shards(folder: Path, rows: int) -> None:
    """Write tars of JPEGs of 48 x 48, whose classes are patches of 6 x 6 and a little noise."""
    folder.mkdir(parents=True)
    middle = np.random.default_rng(0).integers(30, 226, (_CLASSES, 6, 6, 3))
    for start in range(0, rows, _SHARD):
        n = min(_SHARD, rows - start)
        rng = np.random.default_rng([1, start])
        label = rng.integers(0, _CLASSES, n)
        small = np.clip(middle[label] + rng.normal(0, 40, (n, 6, 6, 3)), 0, 255).astype(np.uint8)
        images = small.repeat(_SIDE // 6, axis=1).repeat(_SIDE // 6, axis=2)
        with tarfile.open(folder / f"{start // _SHARD:05}.tar", "w") as tar:
            for i, image in enumerate(images):
                data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=85)
                for suffix, content in (("jpg", data), ("cls", str(label[i]).encode())):
                    info = tarfile.TarInfo(f"{start + i:08}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_encoder(file: Path, seed: int) -> str:
    """Write an ONNX model, pixels times a fixed matrix; return its name as an encoder."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    plane = np.random.default_rng(seed).normal(size=(3 * 24 * 24, 512)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "plane"], ["rows"])]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 24, 24])]
    made = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 512])]
    graph = helper.make_graph(nodes, "g", given, made, [numpy_helper.from_array(plane, "plane")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return f"onnx:{file}"


def collection(folder: Path, rows: int) -> Path:
    """Return the pool, grown with what is there already."""
    from curate import grow

    pool, shards = folder / "pool", folder / "shards"
    if not (folder / "grown").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_shards(shards, rows)
        options = {"encode": {"image": write_encoder(folder / "one.onnx", 1)}, "limits": {"batch_size": 1024}}
        # All rows are kept: what is measured comes after.
        options |= {"dedup": {"epsilon": 1e-6, "phash": -1}, "clean": {"labels": False, "checkpoint_growth": 1e9}}
        told = grow(str(shards), pool, options=options)
        print(f"{told.seen:,} rows grown in {told.seconds:,.0f} s, {told.admitted:,} kept", flush=True)
        write_encoder(folder / "two.onnx", 2)
        (folder / "grown").touch()
    return pool


def run(name: str, pool: Path, out: Path, encoder: str, on: str, given: dict[str, Any]) -> tuple[float, float]:
    """Return seconds and GiB of a command."""
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    script = [sys.executable, "-c", _START, name, str(pool), str(out), encoder, on, json.dumps(given)]
    done = subprocess.run(script, check=True, env=env, stdout=subprocess.PIPE, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def same(name: str, folder: Path) -> str:
    """Say whether one process and the cluster made the same."""
    if name == "select":
        files = [(folder / way / "manifest.json").read_bytes() for way in ("one", "ray")]
        return "the same manifest" if files[0] == files[1] else "ANOTHER MANIFEST"
    from curate.pool import Pool

    pools = [Pool.open(folder / f"pool-{way}") for way in ("one", "ray")]
    if name == "embed":
        equal = all(
            ours.column("more").equals(theirs.column("more"))
            for ours, theirs in zip(*(pool.scan(["more"], size=65_536) for pool in pools), strict=True)
        )
        return "the same bits" if equal else "OTHER BITS"
    ours, theirs = (pool.frame() for pool in pools)
    columns = [column for column in ours.columns if column.startswith(("s1_label", "pvi_label", "density"))]
    most = max(np.abs(ours[column] - theirs[column]).max() or 0.0 for column in columns)
    return f"{', '.join(columns)} within {most:.1e}"


def main(rows: int, folder: Path) -> None:
    pool = collection(folder, rows)
    for name, given in commands(rows):
        told = []
        for way, on in (("one", ""), ("ray", "ray")):
            copy, out = folder / f"pool-{way}", folder / way
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(pool, copy, copy_function=os.link)  # files of a pool are never changed in place
            told.append(run(name, copy, out, f"onnx:{folder / 'two.onnx'}", on, given))
        (one, gib), (ray, ray_gib) = told
        method = given.get("method", "+".join(given.get("names", [])))
        print(
            f"{name} {method}: {one:,.1f} s in one process ({gib:.1f} GiB),"
            f" {ray:,.1f} s on ray (driver {ray_gib:.1f} GiB): {ray / one:.2f}x; {same(name, folder)}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    main(given.rows, given.folder)
