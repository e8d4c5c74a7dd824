"""Image models in an ONNX file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.crops import Crop
from curate.encoders.compute import NOMINAL_BATCH, Compute, Settings
from curate.encoders.fingerprints import file_hash, fingerprint, first_line
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import encode_rows
from curate.encoders.runtime import thread_count
from curate.encoders.torch_image import scaled
from curate.errors import EncoderError

PREFIX = "onnx:"
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_SIDE = 224
_KEYS = ("size", "mean", "std", "resize", "crop_pct", "interpolation", "output")


@dataclass(frozen=True, slots=True)
class _Preparation:
    """What the model's metadata or the file beside it says, with defaults."""

    crop: Crop
    mean: Sequence[float]
    std: Sequence[float]
    output: str

    def identity(self) -> str:
        return f"{self.crop} {list(self.mean)} {list(self.std)} {self.output}"


class OnnxImageEncoder:
    """An image model in a file: (n, 3, h, w) float or uint8 in, (n, d) out."""

    nonnegative = False
    epsilon: float | None = None

    def __init__(self, name: str, file: Path, batch: int) -> None:
        self.name = name
        self._session = _session(file)
        self._input, shape, self._dtype = _input_of(name, self._session)
        asked = _described(file, self._session.get_modelmeta().custom_metadata_map)
        self._how = _preparation(name, asked, shape, uint8=self._dtype == np.uint8)
        if self._how.output not in [""] + [node.name for node in self._session.get_outputs()]:
            raise EncoderError(f"{name} has no output {self._how.output!r}")
        self._batch = shape[0] if isinstance(shape[0], int) else batch or NOMINAL_BATCH
        nominal = shape[0] if isinstance(shape[0], int) else NOMINAL_BATCH
        self.crop = self._how.crop
        self._item = np.empty((self._how.crop.height, self._how.crop.width, 3), np.uint8)
        self.fingerprint = fingerprint("onnx", _hash(file), self._how.identity(), str(nominal))
        self.dim = self._dimensions()

    @property
    def compute(self) -> str:
        """Return device, precision (as the file has it) and batch: see `Compute`."""
        return str(Compute("cpu", "float32", self._batch))

    def prepare(self, pixels: U8) -> U8:
        """Return the model's input before it is normalised: (h, w, 3) uint8."""
        return self.crop(pixels)

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, dim) f32 unit rows of prepared images, a zero row where the model gives none."""
        return encode_rows(prepared, self._run, batch=self._batch, item=self._item, dim=self.dim)

    def _dimensions(self) -> int:
        shape = self._run(np.zeros((self._batch, *self._item.shape), np.uint8)).shape
        if len(shape) != 2 or shape[0] != self._batch:
            raise EncoderError(
                f"{self.name} gives {shape} for {self._batch} images, where one row each is asked for:"
                ' export it with its pooling, or name another output in the file beside it (output = "…")'
            )
        return int(shape[1])

    def _run(self, block: NDArray[Any]) -> F32:
        x = block.transpose(0, 3, 1, 2)
        if self._dtype != np.uint8:
            mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (self._how.mean, self._how.std))
            x = ((x.astype(np.float32) / 255 - mean) / std).astype(self._dtype)
        try:
            out = self._session.run([self._how.output] if self._how.output else None, {self._input: x})[0]
        except Exception as error:
            raise EncoderError(f"{self.name} cannot compute {x.dtype}{x.shape}: {first_line(error)}") from error
        rows = np.asarray(out)
        if rows.dtype.kind != "f":
            raise EncoderError(f"{self.name} gives {rows.dtype} numbers, where an embedding is asked for")
        features: F32 = rows.astype(np.float32)
        return features.reshape(features.shape[:2]) if features.shape[2:] == (1, 1) else features


def load_onnx_image(name: str, settings: Settings) -> OnnxImageEncoder:
    """Return the image model of `onnx:<file>`.

    How images are prepared is said by a file beside it, model.toml or model.json, or by the model's metadata: `size`
    (side, or [height, width]), `mean` and `std` (of channels in 0..1), `resize` ("crop": shortest side, centre;
    "squash"), `crop_pct`, `interpolation` ("bicubic", "bilinear") and `output` (its name). Else the size is that of the
    input, 224 where that is open, mean and std are ImageNet's, and the centre is cropped. A model of uint8 pixels
    normalises itself.

    Raises:
        EncoderError: there is no such file, it is no image model, or its shapes do not fit.
    """
    file = Path(name.removeprefix(PREFIX)).expanduser()
    if not file.is_file():
        raise EncoderError(f"there is no ONNX file {file}: write onnx:path/to/model.onnx")
    if settings.device not in ("auto", "cpu") or settings.precision not in ("auto", "float32"):
        raise EncoderError(f"{name} runs on the CPU as the file is; leave encode.device and encode.precision at auto")
    return OnnxImageEncoder(name, file, settings.batch)


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EncoderError(f"the ONNX file {file} cannot be loaded ({first_line(error)})") from error


def _input_of(name: str, session: Any) -> tuple[str, list[Any], Any]:
    """Return name, shape (numbers, or what stands for an open one) and dtype of a model's only input."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise EncoderError(f"{name} has {len(inputs)} inputs, an image model has one: (n, 3, height, width)")
    shape = list(inputs[0].shape)
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise EncoderError(f"the input of {name} has shape {shape}; an image model's is (n, 3, height, width)")
    if inputs[0].type not in _DTYPES:
        raise EncoderError(f"the input of {name} is {inputs[0].type}; it must be one of {', '.join(_DTYPES)}")
    return inputs[0].name, shape, _DTYPES[inputs[0].type]


def _described(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the metadata says, and over it what a file beside the model does."""
    found: dict[str, Any] = {}
    for key in _KEYS:
        if key in metadata:
            try:
                found[key] = json.loads(metadata[key])
            except ValueError:
                found[key] = metadata[key]
    for beside, read in ((file.with_suffix(".toml"), tomllib.loads), (file.with_suffix(".json"), json.loads)):
        if beside.is_file():
            try:
                told = read(beside.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise EncoderError(f"{beside} cannot be read: {error}") from error
            if not isinstance(told, dict) or set(told) - set(_KEYS):
                raise EncoderError(f"{beside} says how images are prepared; its keys are: {', '.join(_KEYS)}")
            return found | told
    return found


def _preparation(name: str, asked: Mapping[str, Any], shape: Sequence[Any], *, uint8: bool) -> _Preparation:
    told: dict[str, Any] = {"size": None, "resize": "crop", "crop_pct": 1.0, "interpolation": "bicubic", "output": ""}
    told |= {"mean": [0.0] * 3, "std": [1.0] * 3} if uint8 else _IMAGENET
    told |= asked
    sides = [side if isinstance(side, int) else None for side in shape[2:]]
    size = told["size"] if told["size"] is not None else [side or _SIDE for side in sides]
    told["size"] = size = [size, size] if type(size) is int else size
    if not _sensible(told):
        raise EncoderError(
            f"what is said about the images of {name} makes no sense: {dict(asked)}; size: a side or [height, width];"
            " mean, std: three numbers; resize: crop or squash; crop_pct: 0.1 to 1, where it is cropped;"
            " interpolation: bicubic or bilinear"
        )
    if any(side not in (None, mine) for side, mine in zip(sides, size, strict=True)):
        raise EncoderError(f"{name} takes {sides[0]} x {sides[1]} pixels, and size says {size[0]} x {size[1]}")
    if told["resize"] == "squash":
        crop = Crop(size[0], size[1], "squash", interpolation=told["interpolation"])
    elif size[0] == size[1]:
        crop = Crop(size[0], size[1], "shortest", scaled(size[0], told["crop_pct"]), told["interpolation"])
    else:
        raise EncoderError(f'{name} takes {size[0]} x {size[1]} pixels: only resize = "squash" fits what is not square')
    return _Preparation(crop, told["mean"], told["std"], told["output"])


def _sensible(told: Mapping[str, Any]) -> bool:
    size, share = told["size"], told["crop_pct"]
    good = isinstance(size, list) and len(size) == 2 and all(type(s) is int and 0 < s <= 4096 for s in size)
    good = good and all(_numbers(told[key]) for key in ("mean", "std")) and 0 not in told["std"]
    good = good and told["resize"] in ("crop", "squash") and told["interpolation"] in ("bicubic", "bilinear")
    good = good and type(share) in (int, float) and 0.1 <= share <= 1 and isinstance(told["output"], str)
    return bool(good and (share == 1 or told["resize"] == "crop"))


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)


def _hash(file: Path) -> str:
    """Return the hash of a model's file and of the files beside it that hold its tensors."""
    import onnx

    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:
        raise EncoderError(f"the ONNX file {file} cannot be read ({first_line(error)})") from error
    names = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    digest = hashlib.sha256(file_hash(file).encode())
    for other in sorted(names):
        digest.update(file_hash(file.parent / other).encode())
    return digest.hexdigest()
