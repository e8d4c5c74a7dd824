"""The online decision inside one batch."""

import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels.admit import admit_batch

OUT = ("admitted", "twin", "gain_image", "gain_text")
GRID = np.array([-0.25, 0, 0.25, 0.5, 0.75, 1], dtype=np.float32).tolist()


def run(function, **inputs) -> dict[str, np.ndarray]:
    """Call a kernel or its twin with fresh outputs; what is not given is free, uncaptioned and alone."""
    b = inputs["sim_image"].shape[0]
    given = {
        "stage": np.zeros(b, dtype=np.uint8),
        "kept_twin": np.full(b, -1, dtype=np.int64),
        "top_image": np.full((b, 2), -np.inf, dtype=np.float32),
        "top_text": np.full((b, 2), -np.inf, dtype=np.float32),
        "sim_image": None,
        "sim_text": np.zeros((b, b), dtype=np.float32),
        "pixel": np.full(b, -1, dtype=np.int64),
        "alike": np.zeros((b, b), dtype=bool),
        "has_text": np.zeros(b, dtype=bool),
        "eps": np.array([0.1, 0.1, 0.1], dtype=np.float32),
        "luck": np.zeros(b),
        "bar": np.array([-np.inf, np.inf]),
    } | inputs
    out = [np.empty(b, dtype=kind) for kind in (bool, np.int64, np.float32, np.float32)]
    function(*given.values(), *out)
    return dict(zip(OUT, out, strict=True))


def square(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_gain_is_the_mean_distance_to_the_nearest_admitted() -> None:
    sim = square([1, 0.8, 0.6, 0.2], [0.8, 1, 0.4, 0.0], [0.6, 0.4, 1, 0.5], [0.2, 0.0, 0.5, 1])
    out = run(admit_batch, sim_image=sim)
    assert out["admitted"].all()
    # Nothing kept: 1. One kept: its distance. Then the mean over the k = 2 nearest.
    np.testing.assert_allclose(out["gain_image"], [1, 0.2, (0.4 + 0.6) / 2, (0.5 + 0.8) / 2], atol=1e-6)
    assert np.isnan(out["gain_text"]).all()


def test_kept_neighbours_and_batch_neighbours_compete() -> None:
    top = np.array([[0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    out = run(admit_batch, sim_image=square([1, 0.5], [0.5, 1]), top_image=top)
    np.testing.assert_allclose(out["gain_image"], [(0.1 + 0.9) / 2, (0.1 + 0.5) / 2], atol=1e-6)


def test_twin_is_the_most_similar_admitted_row_and_equal_pixels_come_first() -> None:
    sim = np.full((4, 4), 0.5, dtype=np.float32)
    sim[3] = [0.92, 0.97, 0.0, 1]
    assert run(admit_batch, sim_image=sim)["twin"].tolist() == [-1, -1, -1, 1]
    pixel = np.array([-1, -1, 7, 7], dtype=np.int64)
    assert run(admit_batch, sim_image=sim, pixel=pixel)["twin"].tolist() == [-1, -1, -1, 2]


def test_ties_between_twins_go_to_the_lowest_row() -> None:
    sim = np.zeros((3, 3), dtype=np.float32)
    sim[2, :2] = 1
    assert run(admit_batch, sim_image=sim)["twin"].tolist() == [-1, -1, 0]


def test_refused_rows_are_no_reference_but_learn_what_they_duplicate() -> None:
    stage = np.array([1, 0, 1, 2], dtype=np.uint8)
    out = run(admit_batch, sim_image=np.ones((4, 4), dtype=np.float32), stage=stage)
    assert out["admitted"].tolist() == [False, True, False, False]
    assert out["twin"].tolist() == [-1, -1, 1, -1]
    np.testing.assert_array_equal(out["gain_image"], np.float32([1, 1, 0, np.nan]))


def test_row_with_a_kept_twin_is_not_admitted() -> None:
    out = run(admit_batch, sim_image=np.zeros((2, 2), dtype=np.float32), kept_twin=np.array([5, -1]))
    assert out["admitted"].tolist() == [False, True]
    assert out["twin"].tolist() == [-1, -1]


def test_captions_must_match_where_there_are_any() -> None:
    ones = np.ones((4, 4), dtype=np.float32)
    text = np.zeros((4, 4), dtype=np.float32)
    text[2, 0] = 1
    has_text = np.array([True, True, True, False])
    out = run(admit_batch, sim_image=ones, sim_text=text, has_text=has_text)
    assert out["twin"].tolist() == [-1, -1, 0, 0]  # row 1 says something else; row 3 says nothing


def test_pictures_that_look_alike_are_twins_farther_apart() -> None:
    sim = square([1, 0.8, 0.8], [0.8, 1, 0.8], [0.8, 0.8, 1])
    alike = np.zeros((3, 3), dtype=bool)
    alike[2, 0] = True
    eps = np.array([0.1, 0.1, 0.3], dtype=np.float32)
    assert run(admit_batch, sim_image=sim, alike=alike, eps=eps)["twin"].tolist() == [-1, -1, 0]
    eps[2] = 0.1
    assert run(admit_batch, sim_image=sim, alike=alike, eps=eps)["twin"].tolist() == [-1, -1, -1]


def test_row_enters_where_gain_and_luck_reach_the_bar() -> None:
    sim = square([1, 0.5, 0.9], [0.5, 1, 0.9], [0.9, 0.9, 1])
    luck = np.array([0.0, 0.0, 1.0])
    bar = np.array([np.log(0.6), np.inf])  # gains: 1, .5, .1
    assert run(admit_batch, sim_image=sim, luck=luck, bar=bar, eps=np.zeros(3, np.float32))["admitted"].tolist() == [
        True,
        False,
        False,
    ]
    luck[2] = 2.0
    assert run(admit_batch, sim_image=sim, luck=luck, bar=bar, eps=np.zeros(3, np.float32))["admitted"][2]
    bar[1] = 0.5  # a gain counts for at most .5
    assert not run(admit_batch, sim_image=sim, luck=luck, bar=bar)["admitted"][0]


@st.composite
def batches(draw: st.DrawFn) -> dict[str, np.ndarray]:
    b, k = draw(st.integers(0, 6)), draw(st.integers(1, 3))
    sims = hnp.arrays(np.float32, (b, b), elements=st.sampled_from(GRID))
    tops = hnp.arrays(np.float32, (b, k), elements=st.sampled_from([-np.inf, *GRID]))
    return {
        "stage": draw(hnp.arrays(np.uint8, b, elements=st.sampled_from([0, 0, 0, 1, 2]))),
        "kept_twin": draw(hnp.arrays(np.int64, b, elements=st.sampled_from([-1, -1, -1, 3]))),
        "top_image": -np.sort(-draw(tops), axis=1),
        "top_text": -np.sort(-draw(tops), axis=1),
        "sim_image": draw(sims),
        "sim_text": draw(sims),
        "pixel": draw(hnp.arrays(np.int64, b, elements=st.integers(-1, 2))),
        "alike": draw(hnp.arrays(bool, (b, b))),
        "has_text": draw(hnp.arrays(bool, b)),
        "eps": draw(hnp.arrays(np.float32, 3, elements=st.sampled_from([0, 0.25, 0.5]))),
        "luck": draw(hnp.arrays(np.float64, b, elements=st.sampled_from([-0.123, 0.0123, 1.23]))),
        "bar": np.array([draw(st.sampled_from([-np.inf, -1.0, -0.5, 0.4])), draw(st.sampled_from([0.7, np.inf]))]),
    }


@given(batches())
def test_kernel_equals_its_twin(batch: dict[str, np.ndarray]) -> None:
    ours, twin = run(admit_batch, **batch), run(reference.admit_batch, **batch)
    for name in OUT:
        np.testing.assert_allclose(ours[name], twin[name], atol=1e-6, err_msg=name)
