"""Nearest rows, against sorting everything."""

import numpy as np
import pytest

from curate.errors import UsageError
from curate.processor import has_bfloat16_units
from curate.scoring import nearest as module
from curate.scoring.nearest import nearest

PRODUCTS = ["float32", "bfloat16"]


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def sorted_all(x: np.ndarray, queries: np.ndarray, k: int, exclude_self: bool) -> tuple[np.ndarray, np.ndarray]:
    sim = queries.astype(np.float64) @ x.T.astype(np.float64)
    if exclude_self:
        sim[np.arange(len(queries)), np.arange(len(queries))] = -np.inf
    row = np.argsort(-sim, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(sim, row, axis=1), row


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_neighbours_equal_sorting_everything_across_tiles(
    monkeypatch: pytest.MonkeyPatch, product: str, exclude_self: bool, kind: type
) -> None:
    monkeypatch.setattr(module, "_ROWS", 300)
    monkeypatch.setattr(module, "_QUERIES", 170)
    x = unit(np.random.default_rng(0).standard_normal((1000, 24)) + 0.5).astype(kind)
    sim, row = nearest(x, k=7, exclude_self=exclude_self, product=product)
    true_sim, true_row = sorted_all(x, x, 7, exclude_self)
    np.testing.assert_allclose(sim, true_sim, atol=1e-6)
    assert (row == true_row).mean() > 0.999  # all but ties in float32


@pytest.mark.parametrize("d", [3, 64, 700])
def test_both_products_agree_where_many_rows_are_almost_equal(d: int) -> None:
    """Similarities closer to each other than bfloat16 can tell: every candidate has to be computed again."""
    rng = np.random.default_rng(d)
    x = unit(1 + 0.02 * rng.standard_normal((900, d)))
    queries = unit(1 + 0.02 * rng.standard_normal((50, d)))
    exact, exact_row = nearest(x, queries, k=5, product="float32")
    ours, row = nearest(x, queries, k=5, product="bfloat16")
    np.testing.assert_allclose(ours, exact, atol=1e-6)  # both are sums in float32, in another order
    if d == 64:
        assert (row == exact_row).mean() > 0.95


def test_bound_on_rounding_holds_for_any_length_of_rows() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((700, 32), dtype=np.float32) * rng.uniform(0.1, 30, (700, 1)).astype(np.float32)
    np.testing.assert_array_equal(nearest(x, k=3, product="bfloat16")[1], nearest(x, k=3, product="float32")[1])


@pytest.mark.parametrize("product", PRODUCTS)
def test_ties_go_to_the_lowest_row(product: str) -> None:
    x = np.tile(np.float32([[1, 0], [0, 1]]), (3, 1))
    sim, row = nearest(x, np.float32([[1, 0]]), k=4, product=product)
    assert row.tolist() == [[0, 2, 4, 1]]
    assert sim.tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("product", PRODUCTS)
def test_places_stay_empty_where_there_are_too_few_rows(product: str) -> None:
    one = np.float32([[1, 0]])
    sim, row = nearest(one, k=2, exclude_self=True, product=product)
    assert sim.tolist() == [[-np.inf, -np.inf]]
    assert row.tolist() == [[-1, -1]]
    assert nearest(one[:0], one, k=1, product=product)[1].tolist() == [[-1]]
    assert nearest(one, one[:0], k=1, product=product)[1].shape == (0, 1)
    zero = nearest(np.zeros((2, 2), np.float32), one, k=2, product=product)
    assert zero[0].tolist() == [[0, 0]]
    assert zero[1].tolist() == [[0, 1]]


@pytest.mark.parametrize("product", PRODUCTS)
def test_senseless_searches_are_refused(product: str) -> None:
    x = np.ones((2, 2), dtype=np.float32)
    with pytest.raises(UsageError, match="k = 0"):
        nearest(x, k=0, product=product)
    with pytest.raises(UsageError, match="equal d"):
        nearest(x, np.ones((2, 3), np.float32), k=1, product=product)
    with pytest.raises(UsageError, match="exclude_self"):
        nearest(x, np.ones((3, 2), np.float32), k=1, exclude_self=True, product=product)
    with pytest.raises(ValueError, match="NaN"):
        nearest(x, np.full((1, 2), np.nan, np.float32), k=1, product=product)
    with pytest.raises(ValueError, match="NaN"):
        nearest(np.full((1, 2), np.nan, np.float32), x, k=1, product=product)


def test_unknown_product_is_refused() -> None:
    with pytest.raises(UsageError, match="int8"):
        nearest(np.ones((2, 2), np.float32), k=1, product="int8")


def test_large_problems_take_the_units_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(module, "_search_float32", lambda *_: taken.append("float32"))
    monkeypatch.setattr(module, "_search_bfloat16", lambda *_: taken.append("bfloat16"))
    x = np.ones((2, 2), dtype=np.float32)
    for units, worth in ((True, 8.0), (True, 8.1), (False, 8.0)):
        monkeypatch.setattr(module, "has_bfloat16_units", lambda units=units: units)
        monkeypatch.setattr(module, "_WORTH_TORCH", worth)
        nearest(x, k=1)
    assert taken == ["bfloat16", "float32", "float32"]
    assert has_bfloat16_units() in (True, False)
