"""DICOM: what pydicom writes comes out as a viewer shows it, and what is damaged is refused by name."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from dicoms import dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from toys import toy_encoders

import curate
from curate.errors import DecodeError
from curate.images import decode

CT = np.array([[-1000, -160, 40, 240, 1200]], dtype=np.int16)  # air to bone, in Hounsfield units


def levels(data: bytes) -> list[int]:
    decoded = decode(data)
    assert decoded.format == "DICOM"
    assert np.ptp(decoded.pixels, axis=2).max() == 0
    return decoded.pixels[:, :, 0].ravel().tolist()


def refusal(data: bytes, **options: int) -> tuple[str, str]:
    with pytest.raises(DecodeError) as caught:
        decode(data, **options)
    return caught.value.reason, str(caught.value)


def test_rescale_then_window() -> None:
    """(x - (c - .5)) / (w - 1) + .5, for c = 40 and w = 400; stored values are 1024 more."""
    data = dicom(CT + 1024, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert levels(data) == [0, 0, 128, 255, 255]


def test_first_of_several_windows_counts() -> None:
    data = dicom(CT, WindowCenter=[40, 400], WindowWidth=[400, 4000])
    assert levels(data) == levels(dicom(CT, WindowCenter=40, WindowWidth=400))


def test_window_functions() -> None:
    values = np.array([[0, 50, 100]], dtype=np.int16)
    window = {"WindowCenter": 50, "WindowWidth": 100}
    assert levels(dicom(values, VOILUTFunction="LINEAR_EXACT", **window)) == [0, 128, 255]
    sigmoid = [round(255 / (1 + np.exp(-4 * (x - 50) / 100))) for x in (0, 50, 100)]
    assert levels(dicom(values, VOILUTFunction="SIGMOID", **window)) == sigmoid


def test_without_window_percentiles_are_black_and_white() -> None:
    values = np.arange(1001, dtype=np.uint16).reshape(7, 143)
    values[0, 0] = 60_000  # one hot pixel
    shown = np.array(levels(dicom(values)))
    expected = np.clip(np.rint((values.ravel() - 6.0) * 255 / 990.0), 0, 255)
    np.testing.assert_allclose(shown, expected, atol=1)


def test_padding_has_no_say_in_the_range() -> None:
    values = np.array([[-2000, 0, 100, 200]], dtype=np.int16)
    assert levels(dicom(values, PixelPaddingValue=-2000))[0] == 0
    assert levels(dicom(values, PixelPaddingValue=-2000))[2] == 128
    assert levels(dicom(values))[2] > 200


def test_twelve_signed_bits_in_sixteen() -> None:
    stored = (CT.clip(-1000, 1200) & 0x0FFF).astype(np.uint16)
    data = dicom(stored, BitsStored=12, PixelRepresentation=1, WindowCenter=40, WindowWidth=400)
    assert levels(data) == [0, 0, 128, 255, 255]


def test_monochrome1_is_inverted() -> None:
    window = {"WindowCenter": 40, "WindowWidth": 400}
    assert levels(dicom(CT, "MONOCHROME1", **window)) == [255 - v for v in levels(dicom(CT, **window))]


def test_voi_table_is_used_where_there_is_no_window() -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table.LUTData = [10, 20, 200, 250]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    assert levels(dicom(np.array([[0, 1, 2, 3]], dtype=np.uint8), VOILUTSequence=[table])) == [10, 20, 200, 250]


def test_modality_table_comes_before_the_window() -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [3, 0, 16], "US"
    table.LUTData = [0, 500, 1000]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    frame = np.array([[0, 1, 2]], dtype=np.uint8)
    data = dicom(frame, ModalityLUTSequence=[table], WindowCenter=500, WindowWidth=1001)
    assert levels(data) == [0, 128, 255]


def test_colours() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(dicom(frame, "RGB")).pixels, frame)
    wide = frame.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(dicom(wide, "RGB")).pixels, frame)
    ycc = np.asarray(Image.fromarray(frame).convert("YCbCr"))
    assert np.abs(decode(dicom(ycc, "YBR_FULL")).pixels.astype(int) - frame).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(bits: int) -> None:
    scale, dtype = (1, np.uint8) if bits == 8 else (257, np.uint16)
    tables: dict[str, object] = {}
    for name, values in {"Red": [255, 0, 9, 7], "Green": [0, 255, 9, 7], "Blue": [0, 0, 9, 7]}.items():
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, bits]
        tables[f"{name}PaletteColorLookupTableData"] = (np.array(values) * scale).astype(dtype).tobytes()
    pixels = decode(dicom(np.array([[0, 1, 2]], dtype=np.uint8), "PALETTE COLOR", **tables)).pixels
    assert pixels.tolist() == [[[255, 0, 0], [0, 255, 0], [9, 9, 9]]]


def test_first_frame_of_several() -> None:
    frames = np.stack([np.full((4, 4), 3, np.uint8), np.full((4, 4), 9, np.uint8)])
    assert set(levels(dicom(frames, WindowCenter=6, WindowWidth=4))) == {0}
    assert set(levels(dicom(frames[::-1], WindowCenter=6, WindowWidth=4))) == {255}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_transfer_syntaxes_that_need_nothing_more(syntax: str) -> None:
    frame = np.random.default_rng(0).integers(0, 4096, (9, 7), dtype=np.uint16)
    assert levels(dicom(frame, syntax=syntax)) == levels(dicom(frame))


def test_jpeg_inside_is_decoded() -> None:
    grey = Image.fromarray(np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8)
    for kind, syntax, slack in (("JPEG", JPEGBaseline8Bit, 6), ("JPEG2000", JPEG2000Lossless, 0)):
        stream = io.BytesIO()
        grey.save(stream, kind, **({"no_jp2": True} if kind == "JPEG2000" else {"quality": 95}))
        data = dicom(np.asarray(grey), syntax=syntax, PixelData=encapsulate([stream.getvalue()]),
                     WindowCenter=128, WindowWidth=256)  # fmt: skip
        assert np.abs(np.array(levels(data)) - np.asarray(grey).ravel()).max() <= slack + 1


def test_compression_that_needs_another_library_is_named() -> None:
    frame = np.zeros((4, 4), np.uint8)
    reason, words = refusal(dicom(frame, syntax=JPEGLSLossless, PixelData=encapsulate([b"\xff\xd8\xff\xf7"])))
    assert reason == "undecodable"
    assert "JPEG-LS Lossless" in words


def test_deflated_header_is_refused() -> None:
    reason, words = refusal(dicom(np.zeros((4, 4), np.uint8), syntax=DeflatedExplicitVRLittleEndian))
    assert (reason, "deflated" in words) == ("undecodable", True)


def test_pixel_limit_is_read_from_the_header() -> None:
    assert refusal(dicom(np.zeros((10, 10), np.uint8)), max_pixels=99)[0] == "too_many_pixels"
    lie = dicom(np.zeros((4, 4), np.uint8), Rows=60_000, Columns=60_000)
    assert refusal(lie)[0] == "too_many_pixels"


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_pixel_limit_holds_for_the_compressed_image_too(kind: str, boxed: bool) -> None:
    stream = io.BytesIO()
    Image.new("L", (600, 400)).save(stream, kind, **({"no_jp2": not boxed} if kind == "JPEG2000" else {}))
    syntax = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000Lossless
    lie = dicom(np.zeros((4, 4), np.uint8), syntax=syntax, PixelData=encapsulate([stream.getvalue()]))
    assert refusal(lie, max_pixels=600 * 400 - 1)[0] == "too_many_pixels"
    assert refusal(lie, max_pixels=600 * 400)[0] == "undecodable"


@pytest.mark.parametrize("tags", [{"Rows": 0}, {"Rows": 400}, {"BitsAllocated": 17}, {"PixelData": b""}])
def test_headers_that_lie_are_undecodable(tags: dict[str, object]) -> None:
    assert refusal(dicom(np.zeros((4, 4), np.uint8), **tags))[0] == "undecodable"


def test_cut_short_is_undecodable() -> None:
    data = dicom(np.zeros((64, 64), np.uint16))
    assert {refusal(data[:cut])[0] for cut in (132, 140, 300, len(data) // 2, len(data) - 10)} == {"undecodable"}


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(np.zeros((4, 4), np.uint8))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    reason, words = refusal(data)
    assert reason == "undecodable"
    assert "curate-engine[medical]" in words


def test_big_endian_is_read() -> None:
    frame = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
    data = dicom(frame, syntax=ExplicitVRBigEndian, PixelData=frame.astype(">u2").tobytes())
    assert levels(data) == levels(dicom(frame))


def test_folder_of_dicom_files_is_a_source(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        frame = np.kron(rng.integers(0, 4096, (8, 8), dtype=np.uint16), np.ones((8, 8), np.uint16))
        (tmp_path / f"{i}.dcm").write_bytes(dicom(frame, BitsStored=12))
    (tmp_path / "cut.dcm").write_bytes(dicom(frame)[:200])
    with toy_encoders():
        done = curate.grow(tmp_path, tmp_path / "pool")
    assert (done.admitted, done.refused) == (3, {"undecodable": 1})
    assert set(curate.Pool.open(tmp_path / "pool").frame(["format"])["format"]) == {"DICOM", ""}
