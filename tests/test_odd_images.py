"""Images that are rare and right, and headers that lie: what they become, and what they may cost."""

import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, features
from test_hostile_images import SEEDS
from test_images import encoded, noise, png_bomb, png_chunk, refusal

from curate.errors import DecodeError
from curate.images import decode

PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(
    width: int, height: int, bits: int, colour: int, lines: bytes, interlaced: int = 0, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_interlaced_png_gives_its_pixels() -> None:
    pixels = np.asarray(noise(13, 11))
    lines = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in PASSES for row in pixels[y::dy, x::dx] if row.size)
    np.testing.assert_array_equal(decode(png(11, 13, 8, 2, lines, 1)).pixels, pixels)


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    values = np.array([[[0, 256, 65_535], [32_768, 1, 257]]], dtype=">u2")
    assert decode(png(2, 1, 16, 2, b"\0" + values.tobytes())).pixels.tolist() == [[[0, 1, 255], [128, 0, 1]]]


@pytest.mark.parametrize("mode", ["YCbCr", "LAB", "CMYK", "RGBX"])
def test_tiff_of_another_colour_space_becomes_its_colour(mode: str) -> None:
    image = Image.new("RGB", (8, 6), (200, 60, 30))
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    pixel = decode(encoded(image if mode == "LAB" else image.convert(mode), "TIFF")).pixels[2, 2].astype(int)
    assert np.abs(pixel - (200, 60, 30)).max() <= 3


@pytest.mark.parametrize("compression", ["group4", "packbits", "raw"])
def test_one_bit_tiff(compression: str) -> None:
    image = Image.fromarray(np.eye(16, dtype=bool))
    pixels = decode(encoded(image, "TIFF", compression=compression)).pixels
    np.testing.assert_array_equal(pixels[:, :, 1], np.eye(16, dtype=np.uint8) * 255)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF"])
def test_transparent_parts_of_other_formats_are_white(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = Image.new("RGBA", (32, 16), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (16, 0, 32, 16))
    pixels = decode(encoded(image, kind)).pixels.astype(int)
    assert np.abs(pixels[8, 4] - (255, 0, 0)).max() <= 4
    assert np.abs(pixels[8, 28] - 255).max() <= 4


def test_bad_second_frame_costs_nothing_and_a_bad_first_one_the_image() -> None:
    frames = [noise().quantize(16), noise().rotate(90).quantize(16)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second = data.index(b"\x21\xf9", data.index(b"\x2c"))
    first_only = decode(encoded(frames[0], "GIF")).pixels
    np.testing.assert_array_equal(decode(data[: second + 12]).pixels, first_only)
    assert refusal(data[: second // 2]) == "undecodable"


def test_compressed_text_that_unpacks_to_much_is_refused_and_not_unpacked() -> None:
    bomb = png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(50_000_000), 9))
    tracemalloc.start()
    try:
        assert refusal(png(1, 1, 8, 0, b"\0\0", extra=bomb)) == "undecodable"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("block", ["exif", "icc_profile", "comment"])
@pytest.mark.parametrize("least", [0, 60])
def test_large_blocks_beside_the_image_do_not_matter(block: str, least: int) -> None:
    size = 60_000 if block != "icc_profile" else 900_000
    start = b"Exif\0\0MM\0*\0\0\0\x08" if block == "exif" else b""
    image = noise(300, 400)
    found = decode(encoded(image, "JPEG", **{block: start + b"\x55" * size}), least=least)
    np.testing.assert_array_equal(found.pixels, decode(encoded(image, "JPEG"), least=least).pixels)


def huge() -> dict[str, bytes]:
    """Headers that promise 60,000 pixels a side and hold none, or few."""
    small = noise(16, 16)
    gif = bytearray(encoded(small.quantize(8), "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    bmp = bytearray(encoded(small, "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    jpeg = bytearray(encoded(small, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    tiff = bytearray(encoded(small, "TIFF"))
    for tag in (256, 257):
        entry = tiff.index(struct.pack("<HHI", tag, 4, 1))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", 60_000)
    return {
        "PNG": png_bomb(60_000),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "JPEG": bytes(jpeg),
        "PPM": b"P6 60000 60000 255 \0\0\0",
        "TIFF": bytes(tiff),
    }


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "PPM", "TIFF"])
@pytest.mark.parametrize("least", [0, 60])
def test_header_that_promises_too_much_is_refused_at_no_cost(kind: str, least: int) -> None:
    data = huge()[kind]
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError) as caught:
            decode(data, least=least)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.reason == "too_many_pixels"


def test_threads_give_the_pixels_that_one_thread_gives() -> None:
    def pixels(data: bytes) -> bytes:
        try:
            return decode(data, least=16).pixels.tobytes()
        except DecodeError as error:
            return str(error).encode()

    alone = [pixels(data) for data in SEEDS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pixels, SEEDS * 5)) == alone * 5
