"""What the last bits of a row depend on beside its encoder: libraries, the processor, and threads."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from curate.encoders.runtime import thread_count
from curate.files import digest
from curate.processor import flags
from curate.version import __version__

_LIBRARIES = (
    "torch", "torchvision", "onnxruntime", "open_clip_torch", "timm", "pillow", "numpy", "simplejpeg", "pydicom",
)  # fmt: skip


@cache
def machine(device: str) -> str:
    """Return a digest of what must be equal for equal encoders to give equal bits. device: cpu, cuda or mps

    On CUDA that holds the models of all GPUs: libraries choose kernels by them, and those add in orders of their own.
    """
    words = sorted(word for word in flags() if word[:1].isalpha())  # without clock rates
    found = {name: _version(name) for name in _LIBRARIES}
    told = [__version__, found, platform.machine(), words, thread_count()]
    return digest([*told, _gpus()] if device == "cuda" else told)


def _gpus() -> list[str]:
    import torch

    return sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
