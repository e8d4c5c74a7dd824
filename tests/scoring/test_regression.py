"""Surprise of a column of metadata given the image."""

import numpy as np
import pytest

from curate.errors import UsageError
from curate.scoring import regression
from curate.scoring.regression import column_information


def auc(low: np.ndarray, high: np.ndarray) -> float:
    return float(np.mean(low[:, None] < high[None, :]))


def people(n: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that show an age and a site; ages in years, sites as words."""
    rng = np.random.default_rng(seed)
    age, site = rng.uniform(20, 80, n), rng.integers(0, 3, n)
    x = rng.normal(size=(n, 20))
    x[:, :3] += 3 * np.eye(3)[site]
    x[:, 5:9] += (age[:, None] - 50) / 10
    return x.astype(np.float32), age, np.array(["arm", "back", "leg"])[site]


def test_swapped_ages_are_surprising() -> None:
    x, age, _ = people()
    swapped = np.arange(1500) < 150
    age[swapped] = np.roll(age[swapped], 1)
    ours = column_information(x, age, "age")
    assert list(ours) == ["s0_age", "s1_age", "pvi_age"]
    assert auc(ours["s1_age"][~swapped], ours["s1_age"][swapped]) > 0.85
    assert auc(ours["pvi_age"][swapped], ours["pvi_age"][~swapped]) > 0.85
    assert ours["pvi_age"].mean() > 0.5


def test_flipped_sites_are_surprising() -> None:
    x, _, site = people()
    flipped = np.arange(1500) < 150
    site[flipped] = np.where(site[flipped] == "arm", "leg", "arm")
    ours = column_information(x, site, "site")
    assert auc(ours["s1_site"][~flipped], ours["s1_site"][flipped]) > 0.9
    assert auc(ours["pvi_site"][flipped], ours["pvi_site"][~flipped]) > 0.9


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_missing_values_have_no_score_and_teach_nothing(missing: object) -> None:
    x, age, site = people(300)
    for values in (age, site):
        gaps = list(values)
        gaps[::10] = [missing] * 30
        left = np.arange(300) % 10 != 0
        ours = column_information(x, gaps, "c")
        alone = column_information(x[left], values[left], "c")
        for name, value in ours.items():
            assert value.dtype == np.float32
            assert np.isnan(value[~left]).all()
            np.testing.assert_array_equal(value[left], alone[name])


@pytest.mark.parametrize("n", [0, 1, 2, 12])
def test_columns_of_few_equal_or_missing_values_are_finite(n: int) -> None:
    x, age, site = people(12)
    for values in (age[:n], site[:n], [7.5] * n, [True] * n, [3] * n, list(range(n))):
        assert all(np.isfinite(v).all() for v in column_information(x[:n], list(values), "c").values())
    assert all(np.isnan(v).all() for v in column_information(x[:n], [None] * n, "c").values())


def test_constant_column_holds_no_information() -> None:
    ours = column_information(people(50)[0], [42.0] * 50, "c")
    assert [float(np.abs(v).max()) for v in ours.values()] == [0, 0, 0]


def test_units_do_not_matter() -> None:
    x, age, _ = people(400)
    years = column_information(x, age, "c")["pvi_c"]
    for other in (age * 1e30, age * 1e-30, 1e4 - age):
        np.testing.assert_allclose(column_information(x, other, "c")["pvi_c"], years, atol=2e-2)


def test_few_distinct_numbers_are_categories() -> None:
    x, age, _ = people(300)
    flag = (age > 50).astype(int)
    as_words = column_information(x, np.where(flag == 1, "1", "0"), "c")
    for values in (flag, flag.astype(float), flag == 1):
        for name, value in column_information(x, values, "c").items():
            np.testing.assert_allclose(value, as_words[name], atol=1e-5)
    numeric = column_information(x, flag, "c", kind="numeric")
    assert not np.allclose(numeric["s0_c"], as_words["s0_c"])


def test_numbers_can_be_taken_as_categories() -> None:
    x, age, _ = people(300)
    decade = (age // 5).astype(int)
    ours = column_information(x, decade, "c", kind="categorical")
    counts = np.bincount(decade)
    # A class's s0 depends on its size alone.
    assert len(np.unique(ours["s0_c"].round(4))) == len(np.unique(counts[counts > 0]))


def test_too_many_classes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "MAX_CLASSES", 5)
    x, _, _ = people(30)
    with pytest.raises(UsageError, match="'id' has 30 different values"):
        column_information(x, [f"u{i}" for i in range(30)], "id")


def test_wrong_columns_are_named() -> None:
    x, age, site = people(30)
    with pytest.raises(UsageError, match="'c' has 29 values"):
        column_information(x, age[1:], "c")
    with pytest.raises(UsageError, match="'c' is to be numeric"):
        column_information(x, site, "c", kind="numeric")
    with pytest.raises(UsageError, match="infinite"):
        column_information(x, [*age[1:], float("inf")], "c")


def test_scores_follow_the_rows() -> None:
    x, age, site = people(200)
    order = np.random.default_rng(0).permutation(200)
    for values in (age, site):
        straight = column_information(x, values, "c")["s1_c"]
        np.testing.assert_allclose(column_information(x[order], values[order], "c")["s1_c"], straight[order], atol=5e-3)
