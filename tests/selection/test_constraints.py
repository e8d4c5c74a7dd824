"""What a selection must keep to, against enumeration of all subsets."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate.errors import UsageError
from curate.selection import Constraints, Quota
from curate.selection import feasible as feasible_module
from curate.selection.choose import constrained
from curate.selection.constraints import limits_of
from curate_selectors.types import Selection


def ranked(order: list[int], nested: bool = True) -> object:
    """A method with this ranking; one that is not nested turns it round for each count."""

    def rank(count: int) -> Selection:
        taken = order if nested else order[count % 3 :] + order[: count % 3]
        ones = np.ones(count, dtype=np.float32)
        return Selection(np.array(taken[:count], dtype=np.int64), ones, ones, ones)

    return rank


def take(order: list[int], count: int, given: Constraints, columns: dict[str, list[object]]) -> list[int]:
    n = len(order)
    limits = limits_of(given, columns, n, np.array(given.keep, dtype=np.int64))
    return constrained(ranked(order), n, count, limits).index.tolist()


def bounds(given: Constraints, columns: dict[str, list[object]]) -> list[tuple[set[int], int, int]]:
    """(rows, low, high) of every value of every bounded column."""
    found = []
    for column in {quota.column for quota in given.all_quotas()}:
        values = columns[column]
        named = {q.value for q in given.all_quotas() if q.column == column and q.value is not None}
        for value in {*named, *(str(v) for v in values if v is not None)}:
            mine = [
                q for q in given.all_quotas() if q.column == column and q.value == (value if value in named else None)
            ]
            rows = {i for i, v in enumerate(values) if v is not None and str(v) == value}
            low = max([q.min for q in mine], default=0)
            found.append((rows, low, min([q.max for q in mine if q.max is not None], default=len(values))))
    return found


def feasible(n: int, count: int, given: Constraints, columns: dict[str, list[object]]) -> list[set[int]]:
    """Every subset that meets everything."""
    limits = bounds(given, columns)
    whole = columns[given.group] if given.group and not given.at_most() else None
    found = []
    for size in range(count + 1) if whole else [count]:
        for rows in map(set, combinations(range(n), size)):
            if not set(given.keep) <= rows:
                continue
            if any(not low <= len(rows & members) <= high for members, low, high in limits):
                continue
            if whole and any(
                whole[i] is not None and whole[i] == whole[j] and j not in rows for i in rows for j in range(n)
            ):
                continue
            found.append(rows)
    return found


def first_in_order(order: list[int], sets: list[set[int]], keep: list[int]) -> list[int]:
    """Down the ranking, each row that some subset with all rows so far holds."""
    taken = sorted(set(keep))
    for row in order:
        if row not in taken and any({*taken, row} <= rows for rows in sets):
            taken.append(row)
    return taken


SMALL = st.integers(0, 3)
VALUE = st.sampled_from(["a", "b", "c", None])


@st.composite
def cases(draw: st.DrawFn, columns: int) -> tuple[list[int], int, Constraints, dict[str, list[object]]]:
    n = draw(st.integers(1, 8))
    names = [f"c{i}" for i in range(columns)]
    data: dict[str, list[object]] = {name: draw(st.lists(VALUE, min_size=n, max_size=n)) for name in names}
    quotas = []
    for name in names:
        for value in draw(st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=2, unique=True)):
            low, more = draw(SMALL), draw(SMALL)
            if low or more < 3:
                quotas.append(Quota(name, low, None if more == 3 else low + more, value))
    keep = draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True))
    order = draw(st.permutations(range(n)))
    return list(order), draw(st.integers(0, n)), Constraints(tuple(quotas), keep=keep), data


def check_first(case: tuple[list[int], int, Constraints, dict[str, list[object]]]) -> None:
    order, count, given, data = case
    sets = feasible(len(order), count, given, data)
    if not sets:
        with pytest.raises(UsageError, match="no selection meets the constraints: "):
            take(order, count, given, data)
        return
    assert take(order, count, given, data) == first_in_order(order, sets, list(given.keep))


@given(cases(1))
def test_with_one_column_the_first_selection_in_the_ranking_is_taken(case: tuple) -> None:
    check_first(case)


@given(cases(2))
def test_with_two_columns_that_overlap_too(case: tuple) -> None:
    check_first(case)


@given(cases(3))
def test_with_three_columns_that_overlap_too(case: tuple) -> None:
    check_first(case)


@given(cases(1), st.lists(st.sampled_from(["p", "q", "r", None]), min_size=8, max_size=8))
def test_whole_groups_are_never_split_and_the_budget_is_never_exceeded(case: tuple, groups: list[str | None]) -> None:
    order, count, bounded, data = case
    data = {**data, "patient": groups[: len(order)]}
    given = Constraints(bounded.quotas, keep=bounded.keep, group="patient")
    sets = feasible(len(order), count, given, data)
    if not sets:
        with pytest.raises(UsageError, match="no selection meets the constraints: "):
            take(order, count, given, data)
        return
    assert set(take(order, count, given, data)) in sets


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_beyond_few_kinds_everything_still_holds(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasible_module, "_FEW", 0)

    @given(cases(columns), st.lists(st.sampled_from(["p", "q", "r", None]), min_size=8, max_size=8), st.booleans())
    def check(case: tuple, groups: list[str | None], whole: bool) -> None:
        order, count, bounded, data = case
        data = {**data, "patient": groups[: len(order)]}
        given_ = Constraints(bounded.quotas, keep=bounded.keep, group="patient" if whole else "")
        sets = feasible(len(order), count, given_, data)
        if sets:
            assert set(take(order, count, given_, data)) in sets
        else:
            with pytest.raises(UsageError, match="no selection meets the constraints: "):
                take(order, count, given_, data)

    check()


def test_scarce_rows_are_taken_though_their_patients_come_earlier_otherwise() -> None:
    """One row a patient, and the ranking begins with each patient's common row: the sums alone would take those."""
    patients = 600
    data = {
        "patient": [f"p{i % patients}" for i in range(2 * patients)],
        "label": ["common"] * patients + ["rare" if i < 40 else "common" for i in range(patients)],
    }
    given = Constraints((Quota("label", min=40, value="rare"),), group="patient", group_rule="at-most:1")
    index = take(list(range(2 * patients)), 590, given, data)
    assert [i for i in index if i >= patients] == list(range(patients, patients + 40))
    assert [i for i in index if i < patients] == list(range(40, 590))


def test_whole_groups_come_in_order_until_one_does_not_fit() -> None:
    patient = ["p", "q", "q", "q", None, "p", None]
    assert take([4, 0, 1, 2, 3, 5, 6], 5, Constraints(group="patient"), {"patient": patient}) == [4, 0, 5]
    assert take([4, 0, 1, 2, 3, 5, 6], 6, Constraints(group="patient"), {"patient": patient}) == [4, 0, 5, 1, 2, 3]


def test_what_a_minimum_asks_for_is_still_taken_after_a_group_that_does_not_fit() -> None:
    data = {"patient": ["p", "p", "q", "q", "q", "r"], "label": ["x", "x", "x", "x", "x", "y"]}
    given = Constraints((Quota("label", 1, value="y"),), group="patient")
    assert take([0, 1, 2, 3, 4, 5], 5, given, data) == [0, 1, 5]


def test_no_group_counts_more_often_than_allowed() -> None:
    patient = ["p"] * 5 + ["q"] * 2 + [None] * 3
    given = Constraints(group="patient", group_rule="at-most:2")
    assert take(list(range(10)), 6, given, {"patient": patient}) == [0, 1, 5, 6, 7, 8]


def test_a_quota_that_names_a_value_replaces_the_general_one() -> None:
    given = Constraints((Quota("label", max=1), Quota("label", max=3, value="a")))
    assert take(list(range(6)), 4, given, {"label": list("aaaabb")}) == [0, 1, 2, 4]


def test_no_quota_lifts_what_a_group_rule_allows() -> None:
    patient = {"patient": ["p"] * 5 + ["q"] * 5}
    for quota in (Quota("patient", min=1, value="p"), Quota("patient", max=4, value="p"), Quota("patient", max=4)):
        given = Constraints((quota,), group="patient", group_rule="at-most:2")
        assert take(list(range(10)), 4, given, patient) == [0, 1, 5, 6]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (Constraints((Quota("patient", min=3), Quota("patient", max=2))), "p"),
        (Constraints((Quota("patient", min=3, value="q"), Quota("patient", max=2, value="q"))), "q"),
        (Constraints((Quota("patient", min=3, value="q"),), group="patient", group_rule="at-most:2"), "q"),
    ],
)
def test_bounds_of_one_value_that_contradict_each_other_are_named(given: Constraints, value: str) -> None:
    with pytest.raises(UsageError, match=f"patient '{value}' needs at least 3 rows and may have at most 2"):
        take(list(range(10)), 4, given, {"patient": ["p"] * 5 + ["q"] * 5})


def test_minima_are_reserved_for_as_late_as_possible() -> None:
    given = Constraints((Quota("label", min=2, value="b"),))
    assert take([0, 1, 2, 3, 4, 5], 4, given, {"label": list("aaabab")}) == [0, 1, 3, 5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Constraints((Quota("label", 3),)), "label 'b' needs at least 3 rows and has 2: 1 too few"),
        (Constraints((Quota("label", 1, value="z"),)), "label 'z' needs at least 1 rows and has 0: 1 too few"),
        (Constraints((Quota("label", max=1),)), "the maxima of label allow 2 rows and the budget is 4: 2 too few"),
        (
            Constraints((Quota("label", 2), Quota("site", 2, value="s")), keep=[0]),
            "beside the others",
        ),
        (Constraints((Quota("label", max=2),), keep=[0, 1, 2]), "at most 2 rows and 3 must be kept: 1 too many"),
        (Constraints(keep=[0, 1, 2, 3, 5]), "5 rows must be kept and the budget is 4: 1 too many"),
        (
            Constraints((Quota("label", 2),), keep=[0, 1, 2]),
            "the minima of label and what must be kept add up to 5 rows and the budget is 4: 1 too many",
        ),
    ],
)
def test_what_cannot_be_met_is_named_with_by_how_much(given: Constraints, message: str) -> None:
    data = {"label": list("aaaabb"), "site": ["x", "s", "x", "s", "x", "x"]}
    with pytest.raises(UsageError, match=message):
        take(list(range(6)), 4, given, data)


def test_overlapping_columns_may_need_rows_that_count_twice() -> None:
    """Two labels and two sites at one row each fit into two rows only if they lie crosswise."""
    given = Constraints((Quota("label", 1), Quota("site", 1)))
    data = {"label": list("aabb"), "site": list("sstt")}
    assert take([0, 1, 2, 3], 2, given, data) == [0, 2]
    data = {"label": list("aab"), "site": list("sts")}
    assert take([0, 1, 2], 2, given, data) == [1, 2]


# --- through curate.select


def rows(n: int = 60, d: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


@pytest.mark.parametrize("method", ["random", "kcenter", "infogrowth"])
def test_constraints_hold_around_any_method(method: str) -> None:
    labels, patients = ["abc"[i % 7 % 3] for i in range(60)], [f"p{i // 5}" for i in range(60)]
    given = Constraints(
        (Quota("label", 4, 10), Quota("site", min=6, value="north")),
        keep=[7, 50],
        drop=[0, 1, 2],
        group="group",
        group_rule="at-most:3",
    )
    site = {"site": ["north" if i % 9 == 0 else "south" for i in range(60)]}
    chosen = curate.select(
        rows(), method=method, budget=24, labels=labels, groups=patients, columns=site, constraints=given
    )
    index = chosen.index.tolist()
    assert len(index) == len(set(index)) == 24
    assert {7, 50} <= set(index)
    assert not {0, 1, 2} & set(index)
    assert all(4 <= n <= 10 for n in Counter(labels[i] for i in index).values())
    assert max(Counter(patients[i] for i in index).values()) <= 3
    assert sum(i % 9 == 0 for i in index) >= 6


def test_constraints_that_do_not_bind_change_nothing() -> None:
    free = curate.select(rows(), method="kcenter", budget=20, labels=["a", "b"] * 30)
    bound = curate.select(
        rows(), method="kcenter", budget=20, labels=["a", "b"] * 30, constraints=Constraints((Quota("label", 1, 20),))
    )
    assert bound.index.tolist() == free.index.tolist()
    np.testing.assert_array_equal(bound.gain, free.gain)


def test_what_is_dropped_is_no_candidate() -> None:
    x = rows()
    chosen = curate.select(x, method="kcenter", budget="50%", constraints=Constraints(drop=range(0, 60, 3)))
    left = np.flatnonzero(np.arange(60) % 3)
    assert chosen.index.tolist() == left[curate.select(x[left], method="kcenter", budget=20).index].tolist()


def test_probabilities_of_draws_that_constraints_move_are_not_made_up() -> None:
    given = Constraints((Quota("label", max=5, value="a"),), keep=[3])
    chosen = curate.select(None, method="random", budget=10, labels=["a", "b"] * 10, constraints=given)
    chance = dict(zip(chosen.index.tolist(), chosen.probability.tolist(), strict=True))
    assert chance.pop(3) == 1.0
    assert np.isnan(list(chance.values())).all()
    dropped = curate.select(None, method="random", budget=5, labels=["a"] * 20, constraints=Constraints(drop=range(10)))
    np.testing.assert_allclose(dropped.probability, 0.5)


@given(st.lists(st.integers(1, 50), min_size=6, max_size=30), st.integers(60, 900))
def test_bytes_are_never_exceeded_under_constraints(sizes: list[int], most: int) -> None:
    n = len(sizes)
    given = Constraints((Quota("label", max=max(1, n // 3)),))
    labels = ["abcd"[i % 4] for i in range(n)]
    chosen = curate.select(rows(n), method="kcenter", budget=f"{most}B", sizes=sizes, labels=labels, constraints=given)
    total = sum(sizes[i] for i in chosen.index)
    assert total <= most
    assert max(Counter(labels[i] for i in chosen.index).values(), default=0) <= max(1, n // 3)
    if chosen.index.size < n:  # a row more is not possible, by bytes or by maxima
        try:
            more = curate.select(
                rows(n), method="kcenter", budget=chosen.index.size + 1, labels=labels, constraints=given
            )
        except UsageError:
            return
        assert sum(sizes[i] for i in more.index) > most


@pytest.mark.parametrize(
    ("given", "columns", "budget", "most"),
    [
        # five rows of each of two columns that never meet
        (
            Constraints((Quota("a", 5, value="x"), Quota("b", 5, value="y"))),
            ("x" + "." * 9, "y".rjust(6, ".") + "." * 4),
            12,
            12,
        ),
        # the one patient with a row of `x` has ten rows
        (
            Constraints((Quota("a", 1, value="x"),), group="b"),
            ("." * 59 + "x", "".join(c * 10 for c in "pqrstu")),
            25,
            20,
        ),
    ],
)
def test_bytes_suffice_though_the_fewest_rows_are_more_than_the_sums_say(
    given: Constraints, columns: tuple[str, str], budget: int, most: int
) -> None:
    data = {name: list((text * 6)[:60]) for name, text in zip("ab", columns, strict=True)}
    options = {"sizes": [10] * 60, "columns": data, "constraints": given}
    assert curate.select(None, method="random", budget=f"{10 * budget}B", **options).index.size == most
    with pytest.raises(UsageError, match="ask for 10 rows, which take 10 bytes more than the budget 90"):
        curate.select(None, method="random", budget="90B", **options)


def test_bytes_that_the_constraints_exceed_are_named() -> None:
    given = Constraints((Quota("label", 3),))
    with pytest.raises(UsageError, match="ask for 6 rows, which take 10 bytes more than the budget 50"):
        curate.select(rows(8), budget="50B", sizes=[10] * 8, labels=["a", "b"] * 4, constraints=given)


@given(cases(2), st.lists(st.sampled_from(["p", "q", None]), min_size=8, max_size=8), st.integers(0, 8))
def test_bytes_suffice_wherever_a_selection_fits_into_them(case: tuple, groups: list[str | None], most: int) -> None:
    order, _, bounded, data = case
    n = len(order)
    for group in ("", "patient"):
        bound = Constraints(bounded.quotas, keep=bounded.keep, group=group)
        columns = {**data, "patient": groups[:n]}
        counts = range(1) if group else range(min(most, n) + 1)  # whole groups: a budget of n allows every size
        sets = [rows for count in counts for rows in feasible(n, n if group else count, bound, columns)]
        options = {"budget": f"{10 * most}B", "sizes": [10] * n, "columns": columns, "constraints": bound}
        if any(len(rows) <= most for rows in sets):
            index = curate.select(None, method="random", **options).index
            assert set(index.tolist()) in sets
            assert index.size <= most
        else:
            with pytest.raises(UsageError):
                curate.select(None, method="random", **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": [1], "drop": [1]}, "row 1 must be kept and must be dropped"),
        ({"keep": [60]}, "rows to be kept must be numbers from 0 to 59"),
        ({"drop": [-1]}, "rows to be dropped"),
        ({"group": "patient"}, "names the column 'patient'; there are: label"),
        ({"quotas": (Quota("site", 1),)}, "names the column 'site'"),
    ],
)
def test_constraints_that_name_nothing_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        curate.select(rows(), budget=5, labels=["a"] * 60, constraints=Constraints(**given))


@pytest.mark.parametrize("rule", ["", "half", "at-most:0", "at-most:-1", "at-most:x", "at-most"])
def test_unknown_group_rule_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="group rule"):
        Constraints(group="patient", group_rule=rule)


@pytest.mark.parametrize(
    "quota",
    [
        {"column": "", "min": 1},
        {"column": "a"},
        {"column": "a", "min": 3, "max": 2},
        {"column": "a", "min": -1},
        {"column": "a", "max": 1.5},
        {"column": "a", "min": True},
    ],
)
def test_quota_that_makes_no_sense_is_refused(quota: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Quota(**quota)


def test_a_method_that_is_not_nested_is_bisected_to_its_bytes() -> None:
    from curate.selection.choose import _bisected

    order = np.random.default_rng(0).permutation(30).tolist()
    sizes = np.arange(1, 31)
    chosen = _bisected(ranked(order, nested=False), sizes, 200, 0)
    assert sizes[chosen.index].sum() <= 200
    assert sizes[ranked(order, nested=False)(chosen.index.size + 1).index].sum() > 200


def test_a_method_that_is_not_nested_is_followed_for_growing_counts() -> None:
    columns = {"label": ["a"] * 6 + ["b"] * 6}
    limits = limits_of(Constraints((Quota("label", 3),)), columns, 12, np.zeros(0, dtype=np.int64))
    chosen = constrained(ranked(list(range(12)), nested=False), 12, 6, limits)
    assert Counter(columns["label"][i] for i in chosen.index) == {"a": 3, "b": 3}
