"""Decoding: every format to the same kind of pixels, and every kind of bad bytes to one named error."""

import io
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from curate.errors import DecodeError
from curate.images import decode, pixel_hash

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def two_by_one() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image


def noise(height: int = 24, width: int = 32, bands: int = 3) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, bands), dtype=np.uint8))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")


def refusal(data: bytes, **options: int) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, **options)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    image = noise()
    decoded = decode(encoded(image, kind))
    assert (decoded.width, decoded.height, decoded.format) == (32, 24, kind)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    np.testing.assert_array_equal(decoded.pixels, np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_formats_give_the_size_and_nearly_the_colour(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    decoded = decode(encoded(Image.new("RGB", (20, 10), (200, 30, 60)), kind))
    assert (decoded.width, decoded.height, decoded.format) == (20, 10, kind)
    assert np.abs(decoded.pixels.astype(int) - (200, 30, 60)).max() <= 8


def test_equal_bytes_give_equal_pixels() -> None:
    data = encoded(noise(), "JPEG")
    np.testing.assert_array_equal(decode(data).pixels, decode(data).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(two_by_one(), exif=exif))
    turned = orientation >= 5
    assert (decoded.width, decoded.height) == ((1, 2) if turned else (2, 1))
    first = RED if orientation in (1, 4, 5, 6) else BLUE
    assert tuple(decoded.pixels[0, 0]) == first


def test_exif_orientation_of_a_tiff_is_applied_once() -> None:
    decoded = decode(encoded(two_by_one(), "TIFF", tiffinfo={274: 6}))
    assert decoded.pixels[:, 0].tolist() == [list(RED), list(BLUE)]


def test_damaged_exif_does_not_cost_the_image() -> None:
    decoded = decode(encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0junkjunkjunk"))
    assert (decoded.width, decoded.height) == (32, 24)


def test_cmyk_jpeg_becomes_its_colour() -> None:
    cyan_free = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixel = decode(encoded(cyan_free, "JPEG", quality=95)).pixels[8, 8].astype(int)
    assert np.abs(pixel - RED).max() <= 8


def test_ycck_jpeg_is_converted_as_pillow_marks_it() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    position = data.index(b"Adobe")
    marked = bytearray(data)
    marked[position + 11] = 2  # the transform byte of the Adobe segment: YCCK
    assert decode(bytes(marked)).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_one_bit_become_three_equal_channels(mode: str) -> None:
    image = Image.new(mode, (3, 2), 0)
    image.putpixel((1, 1), 255)
    pixels = decode(encoded(image)).pixels
    assert pixels[1, 1].tolist() == [255, 255, 255]
    assert pixels.sum() == 3 * 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    clear, half = ((0, 0, 0, 0), (0, 0, 0, 127)) if mode == "RGBA" else ((0, 0), (0, 127))
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), half)
    pixels = decode(encoded(image)).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [128, 128, 128]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    pixels = decode(encoded(image, kind, transparency=0)).pixels
    assert pixels[0].tolist() == [list(WHITE), list(BLUE)]


@pytest.mark.parametrize(("mode", "clear"), [("RGB", RED), ("L", 7)])
def test_transparent_colour_of_a_png_is_white(mode: str, clear: object) -> None:
    data = encoded(Image.new(mode, (2, 2), clear), transparency=clear)
    assert decode(data).pixels.min() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32_768, 65_535]], dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(values), kind)).pixels
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert pixels.shape == (1, 4, 3)


def test_integer_tiff_beyond_sixteen_bits_is_scaled_by_its_range() -> None:
    values = np.array([[-100, 0, 155]], dtype=np.int32)
    assert decode(encoded(Image.fromarray(values), "TIFF")).pixels[0, :, 1].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-3.0, np.nan, 1.0], [0, 0, 255]),
        ([2.0, 2.0, 2.0], [0, 0, 0]),
        ([np.nan, np.inf, -np.inf], [0, 0, 0]),
    ],
)
def test_float_tiff_is_scaled_by_its_finite_range(values: list[float], levels: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert decode(encoded(image, "TIFF")).pixels[0, :, 2].tolist() == levels


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data).pixels[4, 4].tolist() == list(RED)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"not an image, though named .jpg", SVG, b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"P6 0 0 255 ", b"BM"],
)
def test_bytes_that_are_no_image_are_undecodable(data: bytes) -> None:
    assert refusal(data) == "undecodable"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_truncated_image_is_undecodable(kind: str) -> None:
    data = encoded(noise(), kind)
    assert refusal(data[: len(data) // 2]) == "undecodable"


def test_truncated_progressive_jpeg_is_undecodable() -> None:
    data = encoded(noise(), "JPEG", progressive=True)
    assert refusal(data[: len(data) // 2]) == "undecodable"


def test_format_that_is_not_allowed_is_undecodable() -> None:
    assert refusal(encoded(noise(), "ICO")) == "undecodable"


def test_bomb_is_refused_before_it_costs_memory() -> None:
    tracemalloc.start()
    try:
        assert refusal(png_bomb(30_000)) == "too_many_pixels"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_pixel_limit_is_inclusive_and_named() -> None:
    data = encoded(noise(10, 10))
    assert decode(data, max_pixels=100).width == 10
    assert refusal(data, max_pixels=99) == "too_many_pixels"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM"])
def test_global_pixel_limit_of_pillow_plays_no_part(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert decode(data).width == 32
    assert Image.MAX_IMAGE_PIXELS == 1


def test_importing_leaves_truncated_images_an_error() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_warnings_of_pillow_stay_inside() -> None:
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(io.BytesIO(data)) as image:
        image.getexif()
    filters = list(warnings.filters)
    assert decode(data).width == 32
    assert warnings.filters == filters


def test_threads_restore_the_warning_filters() -> None:
    filters = list(warnings.filters)
    data = encoded(noise(64, 64), "JPEG")
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda _: decode(data).width, range(64)))
    assert sizes == [64] * 64
    assert warnings.filters == filters


def test_pixel_hash_sees_values_and_shape_but_not_layout() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert len(pixel_hash(pixels)) == 32
    assert pixel_hash(pixels) == pixel_hash(np.asfortranarray(pixels))
    assert pixel_hash(pixels) != pixel_hash(pixels.reshape(4, 2, 3))
    assert pixel_hash(pixels) != pixel_hash(pixels + 1)


def test_pixel_hash_is_the_same_for_two_encodings() -> None:
    image = noise()
    assert pixel_hash(decode(encoded(image)).pixels) == pixel_hash(decode(encoded(image, "BMP")).pixels)


def decode_or_none(data: bytes) -> np.ndarray | None:
    try:
        return decode(data, max_pixels=1_000_000).pixels
    except DecodeError:
        return None


EXIF = Image.Exif()
EXIF[0x0112] = 6
SEEDS = [
    encoded(noise(), "JPEG", exif=EXIF),
    encoded(noise(), "JPEG", progressive=True),
    encoded(noise(bands=4), "PNG"),
    encoded(noise().quantize(16), "GIF"),
    encoded(noise(), "TIFF"),
    encoded(noise(), "TIFF", compression="tiff_lzw"),
    encoded(noise(), "WEBP"),
    encoded(noise(), "BMP"),
    encoded(noise(), "PPM"),
]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    head=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    keep=st.floats(0.05, 1),
)
def test_mutated_images_decode_or_are_refused(
    seed: bytes, changes: list[tuple[float, int]], head: list[tuple[int, int]], keep: float
) -> None:
    data = bytearray(seed)
    for place, value in [(int(share * len(data)), value) for share, value in changes] + head:
        data[place] = value
    data = data[: int(keep * len(data))]
    pixels = decode_or_none(bytes(data))
    assert pixels is None or (pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8)


MAGIC = st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM", b"P5 "])


@settings(max_examples=200, deadline=None)
@given(magic=MAGIC, body=st.binary(max_size=300))
def test_random_bytes_decode_or_are_refused(magic: bytes, body: bytes) -> None:
    decode_or_none(magic + body)
