"""Log predictive densities from leverages and class distances."""

import math

import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels.vinfo import lda_bits, student_log2, student_loo_log2

QUADS = hnp.arrays(np.float64, 5, elements=st.floats(0, 50))
SHARES = hnp.arrays(np.float64, 5, elements=st.floats(0.001, 0.9))


def bits(function, leverage, quad, n, d, logdet):
    out = np.empty(len(leverage))
    function(np.asarray(leverage, dtype=float), np.asarray(quad, dtype=float), float(n), d, logdet, out)
    return out


def test_student_density_by_hand() -> None:
    # n = 0, d = 1: a Student-t with 3 degrees of freedom, scale 1/sqrt(3); at 0 its density is 2/pi.
    np.testing.assert_allclose(bits(student_log2, [0.0], [0.0], 0, 1, 0.0), [math.log2(2 / math.pi)], rtol=1e-12)
    # A quadratic form of 1 divides it by (1 + 1)^2, a leverage of 3 by sqrt(1 + 3).
    np.testing.assert_allclose(bits(student_log2, [3.0], [4.0], 0, 1, 0.0), [math.log2(2 / math.pi) - 3], rtol=1e-12)


@given(SHARES, QUADS, st.integers(0, 500), st.integers(1, 5), st.floats(-9, 9))
def test_student_kernel_equals_its_twin(leverage, quad, n, d, logdet) -> None:
    ours = bits(student_log2, leverage, quad, n, d, logdet)
    np.testing.assert_allclose(ours, bits(reference.student_log2, leverage, quad, n, d, logdet), rtol=1e-9, atol=1e-9)


@given(SHARES, SHARES, st.integers(2, 500), st.integers(1, 5), st.floats(-9, 9))
def test_leave_one_out_kernel_equals_its_twin(leverage, share, n, d, logdet) -> None:
    quad = share * (1 - leverage)
    ours = bits(student_loo_log2, leverage, quad, n, d, logdet)
    twin = bits(reference.student_loo_log2, leverage, quad, n, d, logdet)
    np.testing.assert_allclose(ours, twin, rtol=1e-9, atol=1e-9)


def test_leave_one_out_stays_finite_for_a_row_that_explains_itself() -> None:
    assert np.isfinite(bits(student_loo_log2, [1.0, 0.5, 1.0], [0.0, 0.5, 1.0], 10, 3, 0.0)).all()


def lda(function, x, means, counts, label, seen, shrink):
    s0, s1 = np.empty(len(x)), np.empty(len(x))
    cross, norm, gram = x @ means.T, (x * x).sum(axis=1), means @ means.T
    function(cross, norm, gram, np.asarray(counts, dtype=float), np.asarray(label), np.asarray(seen), shrink, s0, s1)
    return s0, s1


def test_two_classes_by_hand() -> None:
    # Ten rows, means at 0 and 1, a new row at 0 of class 0: n - K = 8, so the log odds are 8/2.
    x, means = np.zeros((1, 1)), np.array([[0.0], [1.0]])
    s0, s1 = lda(lda_bits, x, means, [5, 5], [0], [False], 0.0)
    np.testing.assert_allclose(s0, [1.0], rtol=1e-12)
    np.testing.assert_allclose(s1, [math.log2(1 + math.exp(-4))], rtol=1e-9)


def test_row_without_others_of_its_class_is_as_surprising_as_before() -> None:
    x, means = np.ones((2, 1)), np.array([[1.0], [0.0]])
    s0, s1 = lda(lda_bits, x, means, [1, 0], [0, 1], [True, False], 0.0)
    np.testing.assert_array_equal(s0, s1)


def test_empty_class_is_never_predicted() -> None:
    x, means = np.zeros((1, 1)), np.zeros((2, 1))
    s0, s1 = lda(lda_bits, x, means, [4, 0], [0], [False], 0.0)
    assert s1[0] == 0.0
    assert s0[0] > 0.0


# Off by at most 0.2 in three directions, a row never holds the whole scatter of its class.
COORDINATES = st.floats(-0.1, 0.1)


@given(st.data(), st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0]))
def test_class_kernel_equals_its_twin(data: st.DataObject, classes: int, shrink: float) -> None:
    x = data.draw(hnp.arrays(np.float64, (6, 3), elements=COORDINATES))
    means = data.draw(hnp.arrays(np.float64, (classes, 3), elements=COORDINATES))
    label = data.draw(hnp.arrays(np.int64, 6, elements=st.integers(0, classes - 1)))
    seen = data.draw(hnp.arrays(bool, 6))
    extra = data.draw(hnp.arrays(np.int64, classes, elements=st.integers(0, 9)))
    counts = extra + np.bincount(label[seen], minlength=classes)
    ours = lda(lda_bits, x, means, counts, label, seen, shrink)
    twin = lda(reference.lda_bits, x, means, counts, label, seen, shrink)
    np.testing.assert_allclose(ours, twin, rtol=1e-6, atol=1e-6)
