"""Every subset method passes the conformance suite, and the suite can fail."""

from collections.abc import Callable

import numpy as np
import pytest

from curate_kernels.arrays import unit_rows
from curate_selectors.checks import Make, subset_checks
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.registry import METHODS, entry, make
from curate_selectors.types import Candidates, Selection
from curate_selectors.uniform import Random

CHECKS = {check.__name__: check for check in subset_checks()}
SUBSET = sorted(name for name, row in METHODS.items() if "subset" in row.kind)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", SUBSET)
def test_method_passes(method: str, check: str) -> None:
    CHECKS[check](lambda: make(method))


def first(data: Candidates, count: int) -> Selection:
    index = np.arange(count, dtype=np.int64)
    ones = np.ones(count, dtype=np.float32)
    return Selection(index, ones, ones, ones)


class OneTooMany:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, min(count + 1, data.n))


class DropsZeroRows:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, min(count, int((need_rows(data, "bad") ** 2).sum(axis=1).astype(bool).sum())))


class Normalises:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        data.x[:] = unit_rows(data.x + 1)
        return first(data, count)


class Unseeded:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return Random().select(data, count, int(np.random.default_rng().integers(2**31)))


class SortsItsPicks:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        chosen = Random().select(data, count, seed)
        return Selection(np.sort(chosen.index), chosen.gain, chosen.weight, chosen.probability)


class AcceptsAnyCount:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, int(np.clip(count, 0, data.n)))


class ReadsNaN:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        index = np.argsort(data.x[:, 2], kind="stable")[::-1][:count].astype(np.int64)
        ones = np.ones(count, dtype=np.float32)
        return Selection(index, ones, ones, ones)


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        ("check_counts", OneTooMany),
        ("check_degenerate_rows", DropsZeroRows),
        ("check_purity", Normalises),
        ("check_repeatable", Unseeded),
        ("check_nested", SortsItsPicks),
        ("check_refusals", AcceptsAnyCount),
        ("check_refusals", ReadsNaN),
    ],
)
def test_bad_selector_fails(check: str, bad: Make) -> None:
    failing: Callable[[Make], None] = CHECKS[check]
    with pytest.raises(AssertionError):
        failing(bad)


def test_every_check_has_a_selector_that_fails_it() -> None:
    named = test_bad_selector_fails.pytestmark[0].args[1]
    assert {check for check, _ in named} == set(CHECKS)


def test_unknown_method_is_named_with_those_that_exist() -> None:
    with pytest.raises(SelectorError, match="'magic'; there are: infogrowth, infogrowth-reference, kcenter, random"):
        entry("magic")


def test_every_method_says_who_wrote_it_and_what_it_does() -> None:
    for row in METHODS.values():
        assert row.paper
        assert row.summary.endswith(".")
