"""DICOM files for the tests, written by pydicom itself."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def dicom(frame: np.ndarray, kind: str = "MONOCHROME2", syntax: str = ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """Return an image, (H, W), (H, W, 3) or with a leading axis of frames, as the bytes of a DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = syntax
    data = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
    )
    colour = kind in {"RGB", "YBR_FULL"}
    shape = frame.shape[:-1] if colour else frame.shape
    data.Rows, data.Columns = shape[-2:]
    if len(shape) == 3:
        data.NumberOfFrames = shape[0]
    data.SamplesPerPixel = 3 if colour else 1
    if colour:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsAllocated = 8 * frame.dtype.itemsize
    data.BitsStored = tags.pop("BitsStored", data.BitsAllocated)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(np.issubdtype(frame.dtype, np.signedinteger))
    for name, value in tags.items():
        setattr(data, name, value)
    if "PixelData" not in tags:
        data.PixelData = frame.tobytes() + b"\0" * (frame.nbytes % 2)
    if syntax != ExplicitVRLittleEndian and "RLE" in syntax.name:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(syntax)
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
