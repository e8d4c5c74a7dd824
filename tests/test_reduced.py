"""JPEG at reduced size: which size, which pixels, what becomes of the hash, and when PIL decodes it all."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.cleaning import measure
from curate.errors import DecodeError
from curate.hashing import phash
from curate.images import decode, pixel_hash
from curate.jpeg import decode_reduced, shrinkage


def scene(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth shapes of three colours, one bright corner: none of its turns and mirrors looks like another."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = np.stack([np.sin(9 * x + y), np.cos(7 * y * x), np.sin(5 * y) * np.cos(11 * x)], axis=2)
    pixels = np.clip(128 + 70 * waves, 0, 255).astype(np.uint8)
    pixels[: height // 4, : width // 4] = (250, 240, 40)
    return Image.fromarray(pixels).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **({"quality": 92} | options))
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("size", "shrunk"),
    [((1920, 1281), 4), ((640, 427), 1), ((640, 560), 2), ((560, 561), 2), ((558, 900), 1), ((8000, 2240), 8)],
)
def test_no_side_falls_below_what_is_needed(size: tuple[int, int], shrunk: int) -> None:
    assert shrinkage(*size, 280) == shrunk
    assert shrunk == 1 or min(round(side / shrunk) for side in size) >= 280


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_whole_size_is_what_pil_gives(mode: str, options: dict[str, object]) -> None:
    data = jpeg(scene(101, 67, mode), **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, least=60).pixels, expected)


@pytest.mark.parametrize("size", [(400, 300), (401, 299), (803, 601), (2000, 1111)])
def test_reduced_pixels_are_close_to_the_whole_ones_shrunk(size: tuple[int, int]) -> None:
    decoded = decode(jpeg(scene(*size)), least=100)
    scale = shrinkage(*size, 100)
    assert scale > 1
    assert decoded.pixels.shape == (round(size[1] / scale), round(size[0] / scale), 3)
    assert (decoded.width, decoded.height) == size
    shrunk = Image.fromarray(decode(jpeg(scene(*size))).pixels).resize(
        decoded.pixels.shape[1::-1], Image.Resampling.BOX
    )
    assert np.abs(np.asarray(shrunk).astype(int) - decoded.pixels).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_side_that_does_not_divide_shifts_nothing(orientation: int) -> None:
    """101 columns stand for 401 / 4 = 100.25; taken as they are, every pixel would lie a little off."""
    data = jpeg(scene(401, 285), exif=turned(orientation), quality=98)
    whole, reduced = decode(data), decode(data, least=70)
    assert sorted(reduced.pixels.shape) == [3, 71, 100]
    expected = Image.fromarray(whole.pixels).resize(reduced.pixels.shape[1::-1], Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(expected).astype(int) - reduced.pixels).mean() < 1.2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_image_is_upright(orientation: int) -> None:
    data = jpeg(scene(320, 240), exif=turned(orientation))
    whole, reduced = decode(data), decode(data, least=60)
    assert (whole.width, whole.height) == (reduced.width, reduced.height) == whole.pixels.shape[1::-1]
    assert reduced.pixels.shape[:2] == (whole.height // 4, whole.width // 4)
    assert reduced.pixels.flags.c_contiguous
    shrunk = Image.fromarray(whole.pixels).resize(reduced.pixels.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk).astype(int) - reduced.pixels).mean() < 4


def test_orientation_counts_though_other_tags_are_damaged() -> None:
    exif = turned(6)
    exif[0x010F] = "maker"
    block = exif.tobytes().replace(b"\x0f\x01\x02\x00", b"\x0f\x01\x63\x00")  # a type that does not exist
    data = jpeg(scene(40, 30), exif=block)
    assert [(d.width, d.height) for d in (decode(data), decode(data, least=10))] == [(30, 40)] * 2


def test_same_bytes_give_the_same_pixels_each_time() -> None:
    """A digest of what libjpeg-turbo 3 gives, the same on any processor: whole-number arithmetic."""
    data = (Path(__file__).parent / "golden" / "scene.jpg").read_bytes()
    seen = {hashlib.sha256(decode(data, least=100).pixels.tobytes()).hexdigest() for _ in range(3)}
    assert seen == {"e17110c76376f566975fb111636f7ea91472be843b3ec6c5aa781ea185023c38"}


def test_hash_holds_the_size_of_the_stored_image() -> None:
    pixels = decode(jpeg(scene(401, 301)), least=100).pixels
    assert pixels.shape[:2] == decode(jpeg(scene(400, 300)), least=100).pixels.shape[:2]
    assert pixel_hash(pixels, (401, 301)) != pixel_hash(pixels, (400, 300))
    assert pixel_hash(pixels, pixels.shape[1::-1]) == pixel_hash(pixels)


def test_measures_of_a_reduced_image_are_those_of_the_whole_nearly() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((1200, 800))
    data = jpeg(Image.blend(scene(1200, 800), noise, 0.3))
    whole, reduced = decode(data).pixels, decode(data, least=280).pixels
    assert reduced.shape == (400, 600, 3)
    one, other = measure(whole), measure(reduced)
    assert other.sharpness == pytest.approx(one.sharpness, rel=0.1)
    assert other.contrast == pytest.approx(one.contrast, abs=2)
    assert other.colourfulness == pytest.approx(one.colourfulness, rel=0.02)
    assert (phash(whole) ^ phash(reduced)).bit_count() <= 2


def test_cmyk_and_odd_files_are_left_to_pil() -> None:
    inverted = jpeg(Image.new("CMYK", (400, 300), (0, 255, 255, 0)))
    assert decode(inverted, least=60).pixels.shape == (300, 400, 3)
    assert np.abs(decode(inverted, least=60).pixels[9, 9].astype(int) - (255, 0, 0)).max() <= 8
    junk = jpeg(scene(400, 300))
    junk = junk[:2] + b"\xff\xe5\x00\x04hi" + b"stray bytes" + junk[2:]
    assert decode(junk, least=60).width == 400


def test_bytes_behind_the_end_do_not_matter() -> None:
    data = jpeg(scene(400, 300))
    np.testing.assert_array_equal(decode(data + b"garbage" * 99, least=100).pixels, decode(data, least=100).pixels)


def test_damaged_restart_marker_is_decoded_or_refused_as_pil_does() -> None:
    data = bytearray(jpeg(scene(400, 300), restart_marker_rows=1))
    places = [i for i in range(len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
    assert len(places) > 5
    data[places[3] + 1] = 0xD0 + (data[places[3] + 1] + 3) % 8
    assert decode_reduced(bytes(data), 400, 300, 100) is None
    np.testing.assert_array_equal(decode(bytes(data), least=100).pixels, decode(bytes(data)).pixels)


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_is_refused_at_reduced_size_too(progressive: bool) -> None:
    data = jpeg(scene(400, 300), progressive=progressive)
    for share in (0.3, 0.6, 0.95):
        with pytest.raises(DecodeError) as caught:
            decode(data[: int(share * len(data))], least=100)
        assert caught.value.reason == "undecodable"


def test_pixel_limit_is_that_of_the_stored_image() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(jpeg(scene(400, 300)), max_pixels=100_000, least=60)
    assert caught.value.reason == "too_many_pixels"


def test_other_formats_are_never_reduced() -> None:
    for kind in ("PNG", "WEBP", "TIFF"):
        stream = io.BytesIO()
        scene(400, 300).save(stream, kind)
        assert decode(stream.getvalue(), least=60).pixels.shape == (300, 400, 3)
