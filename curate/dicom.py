"""DICOM files to 8-bit RGB, as a viewer opens them: rescaled, windowed, inverted where the tag says so."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import DecodeError

if TYPE_CHECKING:
    from pydicom import Dataset

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

_MAGIC = b"DICM"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_TAILS = (0.5, 99.5)  # percentiles that become black and white where a file names no window


def is_dicom(data: bytes) -> bool:
    """Tell whether bytes begin as a DICOM file does: 128 bytes of anything, then `DICM`."""
    return data[128:132] == _MAGIC


def decode_dicom(data: bytes, max_pixels: int) -> U8:
    """Return the first frame as (H, W, 3) uint8 RGB.

    Grey values go through the rescale slope and intercept (or the modality table), then the first window of the file
    (linear, linear exact or sigmoid), or the first VOI table where there is no window. With neither, the .5th
    percentile becomes black and the 99.5th white, without what the file marks as padding. MONOCHROME1 is inverted;
    palettes and YBR become RGB, of which more than 8 bits are scaled by their range. Overlays are ignored.

    Raises DecodeError: `too_many_pixels` from the header, or that of a compressed image inside; `undecodable` for a
    damaged file, one without an image, a compression that needs another library (named), or where pydicom is not
    installed.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError as error:
        raise DecodeError("undecodable", "a DICOM file needs pydicom: pip install 'curate-engine[medical]'") from error
    try:
        if _syntax(data) == _DEFLATED:  # it could unpack to any size
            raise DecodeError("undecodable", "a deflated DICOM file; save it in explicit little endian")
        dataset = dcmread(io.BytesIO(data))
        _check_header(dataset, max_pixels)
        return _as_rgb(dataset, _first_frame(dataset, max_pixels))
    except (InvalidDicomError, BytesLengthException, RecursionError) as error:
        raise DecodeError("undecodable", f"the DICOM file is damaged: {error}") from error


def _syntax(data: bytes) -> str:
    """Return the transfer syntax, from the group of elements that is never deflated."""
    from pydicom.filereader import read_dataset

    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return str(meta.get("TransferSyntaxUID", ""))


def _check_header(dataset: Dataset, max_pixels: int) -> None:
    height, width = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if height < 1 or width < 1:
        raise DecodeError("undecodable", "the DICOM file holds no image: it has no rows and columns")
    if height * width > max_pixels:
        raise DecodeError("too_many_pixels", f"the header says {width} x {height} pixels, allowed are {max_pixels:,}")


def _check_stream(dataset: Dataset, max_pixels: int) -> None:
    """Compare the size in a compressed frame's own header: that is the one that decoders believe."""
    from PIL import Image, UnidentifiedImageError
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import DecodeRunner

    run = DecodeRunner(dataset.file_meta.TransferSyntaxUID)  # which frame is the first is for pydicom to say
    run.set_source(dataset)
    frames, offsets = run.number_of_frames, run.extended_offsets
    frame = get_frame(run.src, 0, number_of_frames=frames, extended_offsets=offsets)
    try:
        image = Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000"))
    except UnidentifiedImageError:  # run lengths, which bound their size, or what Pillow does not decode
        return
    width, height = image.size
    if height * width > max_pixels:
        raise DecodeError("too_many_pixels", f"its image is of {width} x {height} pixels, allowed are {max_pixels:,}")


def _first_frame(dataset: Dataset, max_pixels: int) -> NDArray[Any]:
    """Return (H, W) stored values, or (H, W, 3) RGB."""
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        if syntax is not None and syntax.is_compressed:
            _check_stream(dataset, max_pixels)
        return np.asarray(pixel_array(dataset, index=0))
    except (RuntimeError, NotImplementedError) as error:
        name = getattr(syntax, "name", "") or "an unnamed compression"
        raise DecodeError("undecodable", f"the DICOM image ({name}) does not decode: {error}") from error


def _as_rgb(dataset: Dataset, frame: NDArray[Any]) -> U8:
    kind = str(dataset.get("PhotometricInterpretation", "")).strip()
    if kind == "PALETTE COLOR" and frame.ndim == 2:
        from pydicom.pixels import apply_color_lut

        frame = np.asarray(apply_color_lut(frame, dataset))
    if frame.ndim == 3 and frame.shape[2] >= 3:
        return _eight_bits(frame[:, :, :3], dataset, kind)
    if frame.ndim != 2:
        raise DecodeError("undecodable", f"the DICOM image has the shape {frame.shape}")
    grey = _grey(dataset, frame)
    return np.repeat((255 - grey if kind == "MONOCHROME1" else grey)[:, :, None], 3, axis=2)


def _eight_bits(frame: NDArray[Any], dataset: Dataset, kind: str) -> U8:
    if frame.dtype == np.uint8:
        return np.ascontiguousarray(frame)
    bits = 8 * frame.dtype.itemsize if kind == "PALETTE COLOR" else int(dataset.get("BitsStored", 16))
    return _bytes(frame.astype(np.float64) * (255.0 / (2**bits - 1)))


def _grey(dataset: Dataset, frame: NDArray[Any]) -> U8:
    """Return stored values as 0..255, before any inversion."""
    from pydicom.pixels import apply_modality_lut

    values = np.asarray(apply_modality_lut(frame, dataset))
    window = _window(dataset)
    if window is not None:
        return _windowed(values.astype(np.float64), *window)
    if dataset.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi_lut

        table = dataset.VOILUTSequence[0]
        shown = np.asarray(apply_voi_lut(values, dataset, index=0)).astype(np.float64)
        return _bytes(shown * (255.0 / (2 ** int(table.LUTDescriptor[2]) - 1)))
    exact = values.astype(np.float64)
    inside = exact[np.isfinite(exact) & _is_image(dataset, frame)]
    low, high = np.percentile(inside, _TAILS) if inside.size else (0.0, 0.0)
    scale = 255.0 / (high - low) if high > low else 0.0
    shown = np.where(np.isfinite(exact), exact, low)
    return _bytes((shown - low) * scale)


def _window(dataset: Dataset) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window that makes sense."""
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or not np.isfinite([centre, width]).all() or width <= 0:
        return None
    return centre, width, str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    many = not isinstance(value, (str, int, float)) and hasattr(value, "__len__")
    if many:
        return float(value[0]) if len(value) else None
    return float(value)


def _windowed(values: F64, centre: float, width: float, function: str) -> U8:
    """Return values inside a window as 0..255: DICOM PS3.3, C.11.2.1.2.1 and C.11.2.1.3."""
    if function == "SIGMOID":
        share = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / max(width - 1.0, 1e-9) + 0.5
    return _bytes(np.nan_to_num(share, posinf=1.0, neginf=0.0) * 255.0)


def _bytes(values: F64) -> U8:
    levels: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _is_image(dataset: Dataset, frame: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which stored values are not padding, (H, W) bool."""
    padding = dataset.get("PixelPaddingValue")
    inside: NDArray[np.bool_] = np.ones(frame.shape, dtype=np.bool_)
    if isinstance(padding, int):
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((padding, limit if isinstance(limit, int) else padding))
        inside = (frame < low) | (frame > high)
    return inside
