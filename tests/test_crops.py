"""An encoder's input: the pixels that PIL, torchvision and open_clip would give, to the last bit."""

import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.crops import Crop
from curate.encoders.open_clip_encoder import clip_crop
from curate_kernels.resize import resize_rgb, resize_taps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=150)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    factor=st.tuples(st.sampled_from([1, 1, 8]), st.sampled_from([1, 1, 8])),
    out=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    kind=st.sampled_from(sorted(FILTERS)),
)
def test_squashed_pixels_are_those_of_pil(
    size: tuple[int, int], factor: tuple[int, int], out: tuple[int, int], kind: str
) -> None:
    pixels = noise(size[0] * factor[0], size[1] * factor[1])
    expected = Image.fromarray(pixels).resize(out[::-1], FILTERS[kind])
    np.testing.assert_array_equal(Crop(*out, interpolation=kind)(pixels), np.asarray(expected))


def test_part_of_the_pixels_is_resized_as_pil_resizes_a_box() -> None:
    pixels, (left, top, right, bottom) = noise(50, 70), (0.75, 0.0, 60.5, 48.25)
    expected = Image.fromarray(pixels).resize((20, 30), FILTERS["bicubic"], box=(left, top, right, bottom))
    ours = np.empty((30, 20, 3), dtype=np.uint8)
    taps = (*resize_taps(70, 20, "bicubic", left, right), *resize_taps(50, 30, "bicubic", top, bottom))
    resize_rgb(pixels, *taps, False, ours)
    np.testing.assert_array_equal(ours, np.asarray(expected))


@pytest.mark.parametrize("y_first", [False, True])
def test_kernel_does_what_its_twin_does(y_first: bool) -> None:
    pixels = noise(9, 7)
    taps = (*(part[1:4] for part in resize_taps(7, 5, "bicubic")), *resize_taps(9, 4, "bilinear"))
    ours, theirs = (np.empty((4, 3, 3), dtype=np.uint8) for _ in range(2))
    resize_rgb(pixels, *taps, y_first, ours)
    reference.resize_rgb(pixels, *taps, y_first, theirs)
    np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(4, 150), st.integers(4, 150)),
    mode=st.sampled_from(["squash", "shortest", "longest"]),
    kind=st.sampled_from(sorted(FILTERS)),
    side=st.sampled_from([32, (24, 40)]),
)
def test_input_is_that_of_open_clip(size: tuple[int, int], mode: str, kind: str, side: int | tuple[int, int]) -> None:
    from open_clip.transform import MaybeConvertMode, PreprocessCfg, image_transform_v2

    settings = {"size": side, "resize_mode": mode, "interpolation": kind, "fill_color": 90}
    image = Image.fromarray(noise(*size))
    try:
        for step in image_transform_v2(PreprocessCfg(**settings), is_train=False).transforms:
            if isinstance(step, MaybeConvertMode):
                break
            image = step(image) if image.mode == "RGB" else image
    except ValueError:  # a side of no pixels, for a strip in `longest`
        return
    np.testing.assert_array_equal(clip_crop(settings)(noise(*size)), np.asarray(image))


def test_input_is_that_of_timm_where_less_than_all_is_cut_out() -> None:
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    for seed, size in enumerate([(300, 200), (64, 65), (91, 400)]):
        pixels = noise(*size, seed)
        image = CenterCrop(56)(Resize(64, InterpolationMode.BICUBIC)(Image.fromarray(pixels)))
        np.testing.assert_array_equal(Crop(56, 56, "shortest", 64)(pixels), np.asarray(image))


def test_least_is_what_keeps_an_image_from_being_enlarged() -> None:
    assert Crop(224, 200).least == 224
    assert Crop(224, 224, "shortest", 256).least == 256


@pytest.mark.parametrize("given", [{"resize": "stretch"}, {"resize": "shortest", "scale": 31}])
def test_crop_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"resize is|shorter side"):
        Crop(32, 32, **given)


def test_a_thread_of_an_image_takes_no_memory_for_what_is_cut_off() -> None:
    line = noise(1, 20_000)
    tracemalloc.start()
    got = Crop(32, 32, "shortest", scale=32)(line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.shape == (32, 32, 3)
    assert peak < 4 << 20  # a table of all 640,000 pixels takes a hundred times as much


def test_taps_of_a_part_are_a_part_of_the_taps() -> None:
    for size, out in ((70, 20), (9, 31), (12, 12)):
        whole, part = resize_taps(size, out, "bicubic"), resize_taps(size, out, "bicubic", wanted=(3, 5))
        for all_of_it, some in zip(whole, part, strict=True):
            np.testing.assert_array_equal(all_of_it[3:8], some)
