"""One image encoder on several devices: a process each, and the same rows as on one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import IO, Any

import numpy as np

from curate.encoders.compute import Compute, Settings
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import filled
from curate.errors import EncoderError


class SplitEncoder:
    """An `ImageEncoder` whose blocks of images go to the processes in turn.

    A block is what one device computes at once, so that an image shares its block with the same others as it would on
    one device, and its row has the same bits as long as the devices are of one kind.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        from curate.encoders import load_image_encoder

        devices = [device.strip() for device in settings.device.split(",")]
        if len({device.partition(":")[0] for device in devices}) != 1 or not all(devices):
            raise EncoderError(
                f"encode.device is {settings.device!r}; several devices must be of one kind: cuda:0,cuda:1"
            )
        self._local = load_image_encoder(name, replace(settings, device=devices[0]))
        self.name, self.dim, self.fingerprint = name, self._local.dim, self._local.fingerprint
        self.nonnegative, self.epsilon = self._local.nonnegative, self._local.epsilon
        if (crop := getattr(self._local, "crop", None)) is not None:
            self.crop = crop
        made = Compute.parse(self._local.compute)
        self._batch = made.batch if made else 1
        self._item = self.prepare(np.zeros((8, 8, 3), np.uint8))
        self.devices = len(devices)
        self._workers = [_Worker(name, replace(settings, device=device, batch=self._batch)) for device in devices[1:]]

    def __getattr__(self, name: str) -> Any:
        """Return what patch tokens need, which are computed on the first device."""
        if name in ("patches", "patch_shape") and "_local" in self.__dict__:
            return getattr(self._local, name)
        raise AttributeError(name)

    @property
    def compute(self) -> str:
        """Return what computed the smallest batches: the memory of one device may be fuller than that of the others."""
        told = [self._local.compute, *(worker.compute for worker in self._workers if worker.compute)]
        return min(told, key=lambda one: made.batch if (made := Compute.parse(one)) else 0)

    def prepare(self, pixels: U8) -> U8:
        """Return the input of the network for one image."""
        return self._local.prepare(pixels)

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, dim) f32 unit rows, computed on all devices at once.

        Raises:
            EncoderError: an image has not the shape that `prepare` gives, or a process has died.
        """
        blocks = [prepared[start : start + self._batch] for start in range(0, len(prepared), self._batch)]
        out: list[F32] = [np.zeros((0, self.dim), np.float32)] * len(blocks)
        runners = [self._local.encode, *(worker.encode for worker in self._workers)]
        errors: list[BaseException] = []

        def run(which: int) -> None:
            try:
                for i in range(which, len(blocks), len(runners)):
                    out[i] = runners[which](blocks[i])
            except BaseException as error:  # raised below, in the thread that asked
                errors.append(error)

        for block, start in zip(blocks, range(0, len(prepared), self._batch), strict=True):
            filled(block, len(block), self._item, start)  # refuses what has another shape
        threads = [threading.Thread(target=run, args=(i,)) for i in range(1, len(runners))]
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return np.concatenate(out) if out else np.zeros((0, self.dim), np.float32)

    def close(self) -> None:
        """End the processes; they also end with this one."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """A process with the encoder on one device. It reads blocks and writes rows, as plain bytes; it ends with us."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._device, self.compute = settings.device, ""
        places = os.pathsep.join(place for place in sys.path if place)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "curate.encoders.split", name, json.dumps(asdict(settings))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": places},
        )  # fmt: skip

    def encode(self, prepared: Sequence[U8]) -> F32:
        given, answer = self._process.stdin, self._process.stdout
        assert given is not None
        assert answer is not None
        block = np.stack(prepared)
        try:
            given.write(f"{json.dumps(block.shape)}\n".encode())
            given.write(block.data)
            given.flush()
            head = json.loads(answer.readline() or b"{}")
            if "shape" not in head:
                raise EncoderError(f"the encoder on {self._device} failed: {head.get('error', 'its process has died')}")
            self.compute = head["compute"]
            return _read(answer, head["shape"], np.float32)
        except (OSError, ValueError) as error:
            if isinstance(error, EncoderError):
                raise
            raise EncoderError(f"the encoder on {self._device} failed: its process has died ({error})") from error

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def __del__(self) -> None:
        self.close()


def _read(stream: IO[bytes], shape: Sequence[int], dtype: type) -> np.ndarray:
    data = stream.read(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(data, dtype).reshape(shape)


def serve(name: str, settings: Settings, given: IO[bytes], answer: IO[bytes]) -> None:
    """Encode blocks from one stream until it ends, and write their rows, or what went wrong, to the other."""
    from curate.encoders import load_image_encoder

    encoder = None
    while head := given.readline():
        try:
            images = _read(given, json.loads(head), np.uint8)
            encoder = encoder or load_image_encoder(name, settings)
            rows = encoder.encode(list(images))
        except EncoderError as error:
            answer.write(f"{json.dumps({'error': str(error)})}\n".encode())
        else:
            answer.write(f"{json.dumps({'shape': rows.shape, 'compute': encoder.compute})}\n".encode())
            answer.write(rows.data)
        answer.flush()


def _main() -> None:
    told = json.loads(sys.argv[2])
    like = Compute(**told["like"]) if told["like"] else None
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not stand between rows
    serve(sys.argv[1], Settings(**told | {"like": like}), sys.stdin.buffer, answer)


if __name__ == "__main__":
    _main()
