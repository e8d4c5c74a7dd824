"""How an encoder computes: on which device, in which precision, how many items at a time; and the loop that does it.

The fingerprint of an encoder holds its precision, unless that is float32: rows in bfloat16 are another encoder's. What
else moves the last bits of a row, the device and the shape of the batch, is told by `Compute`: a pool writes down which
rows were computed how.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.encoders.protocols import F32
from curate.encoders.rows import filled
from curate.errors import EncoderError
from curate.processor import has_bfloat16_units

if TYPE_CHECKING:
    import torch

NOMINAL_BATCH = 32  # of a CPU, and the one that stands in fingerprints
_BATCH = {"cpu": NOMINAL_BATCH, "cuda": 128, "mps": 64}
_AHEAD = 2  # batches under way at once: one computes while the next is copied
PRECISIONS = ("float32", "bfloat16", "float16")

_LOG = logging.getLogger("curate")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user asks for.

    device: `auto` (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, mps; several, as cuda:0,cuda:1, share the images
    precision: of weights and activations: `auto`, float32, bfloat16, float16
    batch: items a forward pass, 0: the device's own; compile: by torch.compile, for networks that torch runs
    like: what rows were computed with before; an open precision is its, and an open batch where the device is the same
    """

    device: str = "auto"
    precision: str = "auto"
    batch: int = 0
    compile: bool = False
    like: Compute | None = None

    def one_device(self) -> Settings:
        """Return the settings with the first device only."""
        return replace(self, device=self.device.partition(",")[0])


@dataclass(frozen=True, slots=True)
class Compute:
    """What rows were computed with, so that equal encoders with an equal one give equal bits."""

    device: str  # cpu, cuda or mps
    precision: str = "float32"
    batch: int = NOMINAL_BATCH
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.device} {self.precision} {self.batch}" + (" compiled" if self.compiled else "")

    @classmethod
    def parse(cls, text: str) -> Compute | None:
        """Return what `str` gave, or None for the empty text of an encoder that computes nothing."""
        parts = text.split()
        return cls(parts[0], parts[1], int(parts[2]), "compiled" in parts[3:]) if len(parts) >= 3 else None

    def identity(self) -> tuple[str, ...]:
        """Return what a fingerprint holds of it: the precision where it is reduced."""
        return () if self.precision == "float32" else (self.precision,)


def resolved(settings: Settings) -> tuple[str, Compute]:
    """Return torch's name of the device and how it computes: what `auto` is on this machine.

    Reduced precision is bfloat16 wherever the machine has units for it: a CPU with AVX512-BF16 or AMX, and CUDA from
    compute capability 8 on, so that a pool may go from one to the other. Older CUDA devices take float16, MPS float32.

    Raises:
        EncoderError: there is no such device or precision.
    """
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind, False) or not _numbered(device):
        has = ", ".join(name for name, found in there.items() if found)
        raise EncoderError(f"encode.device is {settings.device!r}, and this machine has: {has}; `auto` takes the best")
    like = settings.like
    precision = (like.precision if like else _best(kind)) if settings.precision == "auto" else settings.precision
    if precision not in PRECISIONS:
        raise EncoderError(f"encode.precision is {precision!r}; it must be auto, {', '.join(PRECISIONS)}")
    batch = settings.batch or (like.batch if like and like.device == kind else 0) or _BATCH[kind]
    return device, Compute(kind, precision, batch, settings.compile)


def _numbered(device: str) -> bool:
    import torch

    kind, _, number = device.partition(":")
    return not number or (number.isdigit() and (kind != "cuda" or int(number) < torch.cuda.device_count()))


def _best(kind: str) -> str:
    import torch

    if kind == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return "bfloat16" if kind == "cpu" and has_bfloat16_units() else "float32"


class TorchNetwork:
    """Fixed batches through a torch function; on CUDA the next batch is copied while one is computed.

    function: a tensor (batch, …) on the device to features (batch, d) of any dtype there
    spare: rows of every batch that hold no item, for networks that take another path where no row is padded

    Where the device's memory does not do, the batch is halved from there on, and `compute` tells it.
    """

    def __init__(
        self, function: Callable[[torch.Tensor], torch.Tensor], device: str, compute: Compute, spare: int = 0
    ) -> None:
        import torch

        self.compute = compute
        self._device, self._spare = device, spare
        self._function = torch.compile(function, dynamic=False) if compute.compiled else function
        self._copies = torch.cuda.Stream(device) if compute.device == "cuda" else None

    def __call__(self, items: Sequence[NDArray[Any]], item: NDArray[Any], width: int) -> F32:
        """Return (n, width) f32 features of items; each must have the shape and dtype of `item`.

        Raises:
            EncoderError: an item has another shape or dtype, or not even one fits into memory.
        """
        import torch

        out = np.empty((len(items), width), np.float32)
        waiting: deque[tuple[int, int, Callable[[], F32]]] = deque()
        at = 0
        while at < len(items) or waiting:
            if at == len(items) or len(waiting) == _AHEAD:
                start, count, answer = waiting.popleft()
                out[start : start + count] = answer()[:count]
                continue
            part = items[at : at + self.compute.batch - self._spare]
            try:
                answer = self._start(filled(part, self.compute.batch, item, at))
            except torch.OutOfMemoryError as error:
                self._halve(error)
                continue
            waiting.append((at, len(part), answer))
            at += len(part)
        return out

    def _start(self, block: NDArray[Any]) -> Callable[[], F32]:
        """Begin a batch; return what waits for its features."""
        import torch

        # Plain float32 where that is asked for: TF32 would move a row by 1e-3, more than its rounding to float16 does.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            if self._copies is not None:
                return self._start_on_cuda(torch.from_numpy(block).pin_memory())
            features: F32 = self._function(torch.from_numpy(block).to(self._device)).float().cpu().numpy()
        return lambda: features

    def _start_on_cuda(self, host: torch.Tensor) -> Callable[[], F32]:
        """Queue copy, computation and copy back; nothing waits, so that the next batch is filled meanwhile."""
        import torch

        with torch.cuda.device(self._device):
            main = torch.cuda.current_stream()
            with torch.cuda.stream(self._copies):
                given = host.to(self._device, non_blocking=True)
            main.wait_stream(self._copies)
            given.record_stream(main)
            features = self._function(given).float()
            back = torch.empty(features.shape, dtype=torch.float32, pin_memory=True)
            back.copy_(features, non_blocking=True)
            done = torch.cuda.Event()
            done.record()

        def answer() -> F32:
            done.synchronize()
            assert host.is_pinned()  # keeps it until it was copied
            rows: F32 = back.numpy()
            return rows

        return answer

    def _halve(self, error: BaseException) -> None:
        import torch

        if self.compute.batch // 2 <= self._spare:
            raise EncoderError(f"not even one item fits into the memory of {self._device}: {error}") from error
        self.compute = replace(self.compute, batch=self.compute.batch // 2)
        _LOG.warning("the memory of %s is full; batches of %d from here on", self._device, self.compute.batch)
        if self._copies is not None:
            torch.cuda.empty_cache()
