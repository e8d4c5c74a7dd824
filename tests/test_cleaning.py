"""Image quality without a model."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture
from PIL import Image, ImageFilter

from curate.cleaning import Quality, aspect, measure, refusal
from curate.recipe import CleanTable


def flat(red: int, green: int, blue: int, side: int = 40):
    return np.full((side, side, 3), (red, green, blue), dtype=np.uint8)


def test_plain_grey_has_brightness_and_nothing_else() -> None:
    assert measure(flat(90, 90, 90)) == Quality(0.0, 0.0, 90.0, 0.0, 0.0, 0.0)


def test_plain_red_is_colourful_by_its_mean_alone() -> None:
    # rg = 255, yb = 127.5, no variance.
    assert measure(flat(255, 0, 0)).colourfulness == pytest.approx(0.3 * math.hypot(255, 127.5))


def test_black_and_white_halves() -> None:
    pixels = flat(0, 0, 0)
    pixels[:, 20:] = 255
    quality = measure(pixels)
    assert (quality.contrast, quality.brightness, quality.entropy, quality.clipped) == (255.0, 127.5, 1.0, 1.0)


def test_red_and_green_halves_are_colourful_by_variance() -> None:
    # rg is 255 and -255, yb is 127.5 in both.
    pixels = flat(255, 0, 0)
    pixels[:, 20:] = (0, 255, 0)
    assert measure(pixels).colourfulness == pytest.approx(255 + 0.3 * 127.5)


@pytest.mark.parametrize("change", ["blur", "dark", "light", "grey"])
def test_a_defect_moves_its_score(change: str) -> None:
    image = picture(3)[0]
    before = measure(np.asarray(image))
    changed = {
        "blur": lambda: image.filter(ImageFilter.GaussianBlur(3)),
        "dark": lambda: image.point(lambda v: v * 0.1),
        "light": lambda: image.point(lambda v: min(255, v * 4)),
        "grey": lambda: image.convert("L").convert("RGB"),
    }[change]()
    after = measure(np.asarray(changed))
    if change == "blur":
        assert after.sharpness < before.sharpness / 3
    elif change == "dark":
        assert after.brightness < before.brightness / 5
        assert after.entropy < before.entropy
    elif change == "light":
        assert after.clipped > before.clipped + 0.1
        assert after.brightness > before.brightness
    else:
        assert after.colourfulness == 0.0 < before.colourfulness


@given(st.integers(1, 40), st.integers(1, 400), st.integers(0, 2**32))
def test_contrast_and_sharpness_are_those_of_the_formula(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    quality = measure(pixels)
    picture_ = Image.fromarray(pixels).convert("L")
    if width > 224:
        size = (224, max(1, round(height * 224 / width)))
        picture_ = picture_.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    luma = np.asarray(picture_, dtype=np.float32)
    low, high = np.percentile(luma, (1, 99))
    assert quality.contrast == high - low
    if min(luma.shape) > 2:
        ring = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        assert quality.sharpness == np.abs(4 * luma[1:-1, 1:-1] - ring).mean()
    assert quality.brightness == pytest.approx(luma.mean(), rel=1e-5)
    assert 0.0 <= quality.entropy <= 8.0
    assert 0.0 <= quality.clipped <= 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (900, 1), (2, 2), (3, 900)])
def test_thin_images_have_finite_quality(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    quality = measure(pixels)
    assert all(math.isfinite(getattr(quality, name)) for name in Quality.__dataclass_fields__)


def test_size_of_the_camera_changes_little() -> None:
    image = picture(5)[0].resize((224, 224), Image.Resampling.BICUBIC)
    small = measure(np.asarray(image))
    large = measure(np.asarray(image.resize((1344, 1344), Image.Resampling.BICUBIC)))
    assert large.colourfulness == pytest.approx(small.colourfulness, rel=0.05)
    assert large.brightness == pytest.approx(small.brightness, rel=0.05)
    assert large.entropy == pytest.approx(small.entropy, rel=0.05)


def test_aspect_is_the_same_both_ways() -> None:
    assert aspect(300, 100) == aspect(100, 300) == 3.0
    assert aspect(5, 0) == 5.0


def test_refusal_names_its_reason() -> None:
    table, good = CleanTable(), Quality(200.0, 20.0)
    side = table.min_side
    assert refusal(side - 1, 500, good, table) == "too_small"
    assert refusal(side, int(side * table.max_aspect) + 1, good, table) == "low_quality"
    assert refusal(300, 300, Quality(0.0, 20.0), table) == "low_quality"
    assert refusal(300, 300, Quality(200.0, 0.0), table) == "low_quality"
    assert refusal(300, 300, good, table) == ""
