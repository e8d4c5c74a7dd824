"""Statistics against scipy and plain re-derivations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from curate.benchmark.statistics import bootstrap, holm, mean_ranks, multiplier, paired


def test_bootstrap_of_many_values_is_the_normal_interval() -> None:
    x = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap(x.tolist())
    low, high = stats.t.interval(0.95, 399, x.mean(), x.std(ddof=1) / 20)
    assert found.mean == pytest.approx(x.mean())
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.02)


def test_bootstrap_of_few_values_reaches_to_their_ends_and_covers() -> None:
    found = bootstrap([1.0, 2.0, 4.0])
    assert (found.low, found.high) == (1.0, 4.0)
    rng = np.random.default_rng(1)
    covered = [bootstrap(rng.normal(size=5).tolist(), draws=2000) for _ in range(300)]
    assert np.mean([one.low <= 0 <= one.high for one in covered]) > 0.9


def test_bootstrap_of_one_value_has_no_interval() -> None:
    found = bootstrap([0.5])
    assert found.mean == 0.5
    assert np.isnan([found.low, found.high]).all()


def test_paired_is_a_paired_t_test_on_common_seeds() -> None:
    a, b = {0: 0.5, 1: 0.7, 2: 0.65, 5: 0.1}, {0: 0.4, 1: 0.65, 2: 0.5, 3: 0.9}
    assert paired(a, b) == pytest.approx(stats.ttest_rel([0.5, 0.7, 0.65], [0.4, 0.65, 0.5]).pvalue)
    assert np.isnan(paired({0: 1.0}, {0: 2.0}))
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = holm([0.5, float("nan"), 0.6])
    assert np.isnan(found[1])
    assert found[0] == found[2] == 1.0


def test_holm_rejects_as_the_step_down_procedure_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(6) ** 3
        rejected = set()
        for step, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (6 - step):
                break
            rejected.add(int(i))
        assert {i for i, q in enumerate(holm(p.tolist())) if q <= 0.05} == rejected


def test_mean_ranks_and_critical_difference_as_published() -> None:
    """Demšar's table 6: q of 5 classifiers is 2.728, so 30 blocks give 1.11; ranks by counting."""
    rng = np.random.default_rng(0)
    table = np.round(rng.normal(size=(5, 30)), 1)
    found = mean_ranks({str(i): row.tolist() for i, row in enumerate(table)})
    assert found.critical == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 30)), abs=1e-3)
    for i in range(5):
        above = (table > table[i]).sum(axis=0) + ((table == table[i]).sum(axis=0) - 1) / 2
        assert found.rank[str(i)] == pytest.approx((1 + above).mean())
    assert found.p == pytest.approx(stats.friedmanchisquare(*table).pvalue)


def test_multiplier_is_read_off_the_curve() -> None:
    assert multiplier([0.1, 0.2, 0.4], [0.5, 0.6, 0.7], 0.6) == pytest.approx(5)
    assert multiplier([0.1, 0.4], [0.5, 0.7], 0.6) == pytest.approx(5)  # half way in log budget
    assert multiplier([0.4, 0.1], [0.7, 0.5], 0.4) == pytest.approx(10)
    assert np.isnan(multiplier([0.1, 0.4], [0.5, 0.7], 0.8))
    for a, b in itertools.pairwise(np.linspace(0.5, 0.7, 9)):
        assert multiplier([0.1, 0.4], [0.5, 0.7], b) < multiplier([0.1, 0.4], [0.5, 0.7], a)
