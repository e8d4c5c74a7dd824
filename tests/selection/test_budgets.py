"""What a budget means, and the selectors on plain arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate.errors import UsageError
from curate.selection import Amount, parse_budget
from curate_selectors.errors import UnknownSelectorError


@pytest.mark.parametrize(
    ("budget", "rows"),
    [
        (0, 0),
        (5, 5),
        (200, 200),
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        (0.05, 10),
        (1.0, 200),
        (0.29, 58),
        ("5%", 10),
        ("29%", 58),
        ("0.5%", 1),
        ("100%", 200),
        ("0.001%", 1),
        (1e-9, 1),
        ("1.9 %", 3),
    ],
)
def test_counts_and_shares(budget: int | float | str, rows: int) -> None:
    assert parse_budget(budget, 200) == Amount(rows=rows)


@pytest.mark.parametrize(
    ("budget", "size"),
    [("2GB", 2 * 10**9), ("1.5kb", 1500), ("700B", 700), ("3 MB", 3 * 10**6), ("1tb", 10**12), ("0B", 0)],
)
def test_bytes(budget: str, size: int) -> None:
    assert parse_budget(budget, 200) == Amount(bytes=size)


@pytest.mark.parametrize(
    "budget",
    [
        *("", "x", "-1", "-5%", "5%%", "1e3", "0%", "101%", "0.5", "2.5", "5 rows", "2PB", "201"),
        *(-1, 201, 0.0, -0.1, 1.01, float("nan"), float("inf"), True, None, [5]),
    ],
)
def test_budgets_that_make_no_sense_are_refused(budget: object) -> None:
    with pytest.raises(UsageError, match="budget"):
        parse_budget(budget, 200)


def test_fraction_of_a_row_suggests_the_share() -> None:
    with pytest.raises(UsageError, match="write 5% for a share"):
        parse_budget("0.05", 200)


def test_share_of_nothing_is_nothing() -> None:
    assert parse_budget("5%", 0) == Amount(rows=0)


@given(st.text(alphabet="0123456789.%kKMGTPbB e-+_", max_size=8))
def test_any_text_is_an_amount_or_a_usage_error(text: str) -> None:
    try:
        amount = parse_budget(text, 200)
    except UsageError:
        return
    assert (amount.rows is None) != (amount.bytes is None)
    assert amount.rows is None or 0 <= amount.rows <= 200


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 6))


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30),
    st.integers(0, 600),
    st.sampled_from(["random", "kcenter", "infogrowth"]),
)
def test_byte_budget_takes_picks_in_order_until_one_does_not_fit(sizes: list[int], most: int, method: str) -> None:
    x = rows(len(sizes))
    order = curate.select(x, method=method, budget=1.0).index
    fits, used = 0, 0
    while fits < len(order) and used + sizes[order[fits]] <= most:
        used += sizes[order[fits]]
        fits += 1
    chosen = curate.select(x, method=method, budget=f"{most}B", sizes=sizes)
    assert chosen.index.tolist() == order[:fits].tolist()


def test_byte_budget_tells_the_probability_of_what_was_taken() -> None:
    chosen = curate.select(None, method="random", budget="300B", sizes=[100] * 9 + [1] * 91, seed=1)
    np.testing.assert_allclose(chosen.probability, chosen.index.size / 100, rtol=1e-6)


def test_whole_set_is_taken_with_certainty() -> None:
    chosen = curate.select(None, method="infogrowth", scores={"gain": [1, 2, 3, 4]}, budget=4)
    np.testing.assert_allclose(chosen.probability, 1.0)


def test_byte_budget_needs_sizes() -> None:
    with pytest.raises(UsageError, match="needs sizes="):
        curate.select(rows(5), budget="10B")


def test_rows_are_scaled_before_they_are_compared() -> None:
    x = rows(40)
    scaled = x * np.random.default_rng(1).uniform(0.5, 20, size=(40, 1))
    ours, theirs = (curate.select(v, method="kcenter", budget=12).index.tolist() for v in (x, scaled))
    assert ours == theirs


def test_lists_and_other_dtypes_are_accepted() -> None:
    x = rows(12)
    assert curate.select(x.tolist(), budget=3).index.tolist() == curate.select(x, budget=3).index.tolist()


def test_another_seed_gives_another_selection() -> None:
    first, second = (
        curate.select(rows(100), method="infogrowth", budget=20, seed=seed).index.tolist() for seed in (0, 1)
    )
    assert first != second


def test_method_without_embeddings_needs_only_a_length() -> None:
    assert curate.select(None, method="random", budget=2, labels=["a", "b", "b"]).index.size == 2
    assert curate.select(None, method="infogrowth", budget=2, scores={"gain": [1, 2, 3]}).index.size == 2


@pytest.mark.parametrize(
    "columns", [{}, {"labels": ["a"], "sizes": [1, 2]}, {"scores": {"gain": [1]}, "labels": [1, 2]}]
)
def test_lengths_must_agree(columns: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="must have one length"):
        curate.select(None, budget=1, **columns)


def test_method_that_needs_embeddings_says_so() -> None:
    with pytest.raises(UsageError, match="'kcenter' needs embeddings"):
        curate.select(None, method="kcenter", budget=1, labels=[1, 2])


def test_unknown_method_is_named() -> None:
    with pytest.raises(UnknownSelectorError, match="no method is called 'best'"):
        curate.select(rows(3), method="best", budget=1)


@pytest.mark.parametrize("bad", [[0, 0], [[[0]]], [[1, np.nan]], [[1, np.inf]]])
def test_rows_that_are_no_matrix_of_numbers_are_refused(bad: list[object]) -> None:
    with pytest.raises(ValueError, match="x has"):
        curate.select(np.array(bad, dtype=float), budget=1)


def test_parameters_reach_the_method() -> None:
    x = rows(60)
    near = curate.select(x, method="infogrowth", budget=60, k=1)
    wide = curate.select(x, method="infogrowth", budget=60, k=30)
    assert dict(zip(near.index, near.gain, strict=True))[59] < dict(zip(wide.index, wide.gain, strict=True))[59]


# --- needs


def test_a_score_that_is_not_given_is_computed_from_the_arrays() -> None:
    x = rows(50)
    text = x + 0.5 * np.random.default_rng(1).normal(size=x.shape)
    align = curate.score(x, "align", text=text)["align"]
    chosen = curate.select(x, method="clip-score", text=text, budget=7)
    assert chosen.index.tolist() == np.argsort(-align, kind="stable")[:7].tolist()


def test_a_score_that_is_given_is_taken_as_it_is() -> None:
    x = rows(50)
    given_ = np.random.default_rng(2).random(50)
    chosen = curate.select(x, method="clip-score", text=x, scores={"align": given_}, budget=7)
    assert chosen.index.tolist() == np.argsort(-given_.astype(np.float32), kind="stable")[:7].tolist()


def test_a_score_may_be_named_by_its_own_name_or_by_a_column() -> None:
    x, labels = rows(40), ["ab"[i % 2] for i in range(40)]
    by_column = curate.select(x, method="top-score", column="el2n", labels=labels, budget=5)
    by_name = curate.select(x, method="top-score", column="probe", labels=labels, budget=5)
    assert by_name.index.tolist() == by_column.index.tolist()  # the first column of `probe`


@pytest.mark.parametrize("method", ["ccs", "dual", "d2"])
def test_a_named_score_is_computed_and_embeddings_stand_in_for_the_default_only(method: str) -> None:
    x, labels = rows(60), ["abc"[i % 3] for i in range(60)]
    scores = curate.score(x, "probe", labels=labels)

    def index(**options: object) -> list[int]:
        return curate.select(x, method=method, budget=9, **options).index.tolist()

    assert index(labels=labels, score="margin") == index(score="margin", scores={"margin": scores["margin"]})
    assert index(labels=labels) == index(scores={"el2n": scores["el2n"]})
    assert len({tuple(index()), tuple(index(labels=labels)), tuple(index(labels=labels, score="margin"))}) == 3
    with pytest.raises(UsageError, match="score:margin cannot be computed: this score needs labels"):
        index(score="margin")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("clip-score", {}, "score:align cannot be computed: this score needs captions"),
        ("top-score", {"column": "beauty"}, "no score computes 'beauty'; `curate methods --scores`"),
        ("metaclip", {}, "needs captions: give captions="),
        ("water-fill", {}, "needs labels: give labels="),
        ("water-fill", {"by": "groups"}, "needs groups: give groups="),
        ("knn-shapley", {"labels": ["a", "b"] * 5}, "score:shapley_knn cannot be computed: this score compares with a"),
    ],
)
def test_what_is_needed_and_missing_is_named(method: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        curate.select(rows(10), method=method, budget=2, **options)


def test_a_row_that_lacks_a_needed_score_is_no_candidate() -> None:
    quality = [0.1, np.nan, 0.3, 0.2]
    chosen = curate.select(None, method="top-score", column="q", scores={"q": quality}, budget="100%")
    assert chosen.index.tolist() == [2, 3, 0]
    with pytest.raises(UsageError, match="budget of 4 was asked, and there are 3 candidates"):
        curate.select(None, method="top-score", column="q", scores={"q": quality}, budget=4)


def test_what_is_read_where_it_is_at_hand_excludes_nobody() -> None:
    pvi = [1, np.nan, -1] + [1] * 27
    chosen = curate.select(rows(30), method="default", scores={"pvi": pvi}, budget=30)
    assert chosen.index[-2:].tolist() == [2, 1]


def test_a_score_that_is_welcome_is_computed_where_it_can_be() -> None:
    x = rows(200)
    text = x + 0.5 * np.random.default_rng(1).normal(size=x.shape)
    text[:40] = text[np.roll(np.arange(40), 1)]
    chosen = curate.select(x, method="default", text=text, budget=60)
    assert (chosen.index < 40).sum() <= 3  # of 12 that chance would give
    plain = curate.select(x, method="default", budget=60)
    np.testing.assert_array_equal(plain.index, curate.select(x, method="facility-location", budget=60).index)
