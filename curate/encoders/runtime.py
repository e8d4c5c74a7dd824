"""Runs a frozen network: through ONNX Runtime on a CPU (4x eager torch there), as torch on a GPU.

The network is exported once and kept in the cache folder, so that later runs import neither torch nor its
architecture. The file's name carries the weights' hash, the graph's version and torch's: whatever would change the
file changes its name, and nothing has to be invalidated.

A network holds threads: it works in the process that opened it, not in one forked from it afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.encoders.compute import Settings, resolved
from curate.encoders.protocols import F32
from curate.encoders.rows import Network
from curate.errors import EncoderError
from curate.files import cache_folder

if TYPE_CHECKING:
    import torch


def has_gpu() -> bool:
    """Tell whether torch would find a CUDA device; costs no import of torch where there is no NVIDIA driver."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return bool(torch.cuda.is_available())


def builtin_device(name: str, settings: Settings) -> str:
    """Return where a built-in network runs: `cpu`, or torch's name of a CUDA device.

    Raises:
        EncoderError: the settings ask for a precision or a device that it does not have.
    """
    if settings.precision not in ("auto", "float32"):
        raise EncoderError(f"{name} computes in float32 only; leave encode.precision at auto")
    if settings.device == "auto":
        return "cuda" if has_gpu() else "cpu"
    if settings.device.startswith("mps"):
        return "cpu"
    return settings.device if settings.device == "cpu" else resolved(settings)[0]


def open_network(
    stem: str,
    build: Callable[[], torch.nn.Module],
    example: NDArray[Any],
    *,
    dynamic_axis: int | None = None,
    device: str = "cpu",
) -> Network:
    """Return a function from one batch to its f32 features.

    stem: names the graph and its weights; equal stems must mean equal networks.
    build: makes the network, of one input; called only where there is no exported file yet, or on a GPU.
    example: one batch; every later one has its shape, but for the length of `dynamic_axis`.

    Raises:
        EncoderError: the network cannot be exported, or the cache folder cannot be written or holds a damaged file.
    """
    if device != "cpu":
        return _gpu_network(build(), device)
    file = cache_folder() / f"{stem}-torch{version('torch')}.onnx"
    if not file.exists():
        _export(file, build, example, dynamic_axis)
    return _onnx_network(file)


def _gpu_network(module: torch.nn.Module, device: str) -> Network:
    import torch

    module = module.eval().to(device)

    def run(block: NDArray[Any]) -> F32:
        # Plain fp32: TF32 would move a row by 1e-3, more than its rounding to float16 does.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            features: F32 = module(torch.from_numpy(block).to(device)).float().cpu().numpy()
        return features

    return run


def _export(file: Path, build: Callable[[], torch.nn.Module], example: NDArray[Any], dynamic_axis: int | None) -> None:
    """Write the network's ONNX file under a private name, then move it to its place: two at once do no harm."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as folder:
            draft = Path(folder) / file.name
            _write_onnx(draft, build, example, dynamic_axis)
            draft.replace(file)
    except OSError as error:
        raise EncoderError(
            f"the network cannot be kept at {file} ({error.strerror or error}): set CURATE_CACHE to a writable folder"
        ) from error


def _write_onnx(
    draft: Path, build: Callable[[], torch.nn.Module], example: NDArray[Any], dynamic_axis: int | None
) -> None:
    import torch

    shapes = None if dynamic_axis is None else ({dynamic_axis: torch.export.Dim.DYNAMIC},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter: nothing that a user could act on
            torch.onnx.export(
                build().eval(), (torch.from_numpy(example),), draft,
                input_names=["input"], output_names=["features"], dynamic_shapes=shapes,
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except (OSError, EncoderError):
        raise
    except Exception as error:
        raise EncoderError(
            f"torch {torch.__version__} cannot export {draft.name} ({type(error).__name__}: {error}): "
            "install the versions of torch, onnx and onnxscript that curate-engine names"
        ) from error


def _onnx_network(file: Path) -> Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderError(f"onnxruntime does not import ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EncoderError(f"{file} does not load ({error}): delete it, it is made anew") from error

    def run(block: NDArray[Any]) -> F32:
        return np.asarray(session.run(None, {"input": block})[0], np.float32)

    return run


def thread_count() -> int:
    """Return $OMP_NUM_THREADS where it is a number, else how many CPUs this process may use."""
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
