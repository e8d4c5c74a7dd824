"""What holds for every score of the registry: its columns, its missing values, and what it does with odd input."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from planted import Collection, collection, make_files, params_of

import curate
from curate.errors import CurateError, UsageError
from curate.scores.registry import make_score, parameters
from curate.scores.table import SCORES

NAMES = tuple(SCORES)
# What a row must have to get a value: all of it, in every column that is not named itself.
NEEDS: dict[str, tuple[str, ...]] = {
    "align": ("image", "text"),
    "ask": ("caption",),
    "captions": ("caption",),
    "column": ("image", "age"),
    "quality": ("pixels",),
    "negclip": ("image", "text"),
    "vinfo": ("image", "text"),
    "vinfo-learned": ("image", "text"),
    "s0_label": ("image", "label"),
    "s1_label": ("image", "label"),
    "pvi_label": ("image", "label"),
    "anomaly_class": ("image", "label"),
    "anomaly_relative": ("image", "label"),
    "positive_distance": ("image",),
} | dict.fromkeys(
    ("bayes", "hard-negative", "in-run-shapley", "knn-shapley", "mislabel", "probe", "vinfo-vote"), ("image", "label")
)
CROSS_FITTED = {"vinfo-learned"}  # rows fall into folds by their place


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    made = collection()
    made.files = make_files(tmp_path_factory.mktemp("files"))
    return made


@pytest.fixture(scope="module")
def found(planted: Collection) -> dict[str, dict[str, Any]]:
    """Return the columns of every score, computed once; the input is compared with a copy."""
    before = collection()
    scores = {name: planted.compute(name) for name in NAMES}
    assert _same(planted.image, before.image)
    assert _same(planted.text, before.text)
    assert _same(planted.target, before.target)
    assert (planted.captions, planted.label) == (before.captions, before.label)
    assert all(_same(np.array(planted.columns[k], object), np.array(before.columns[k], object)) for k in before.columns)
    return scores


def _same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and repr(a.tolist()) == repr(b.tolist())


def _has(made: Collection, part: str) -> Any:
    values: dict[str, Any] = {
        "image": made.image.any(axis=1),
        "text": made.text.any(axis=1),
        "caption": [c is not None for c in made.captions],
        "label": [v is not None for v in made.label],
        "age": [v is not None and not math.isnan(v) for v in made.columns["age"]],
        "pixels": [p is not None for p in made.pixels],
    }
    return np.array(values[part])


def test_every_score_is_tried() -> None:
    assert {row["name"] for row in curate.list_scores()} == set(NAMES)
    assert len({column["name"] for row in curate.list_scores() for column in row["columns"]}) > 60


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_those_that_the_registry_names(found: dict[str, dict[str, Any]], name: str) -> None:
    named = [c[0].replace("<column>", "age").replace("<title>", "score") for c in SCORES[name].columns]
    assert sorted(found[name]) == sorted(named)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_missing_exactly_where_something_lacks(
    planted: Collection, found: dict[str, dict[str, Any]], name: str
) -> None:
    for column, values in found[name].items():
        needs = NEEDS.get(column, NEEDS.get(name, ("image",)))
        has = np.logical_and.reduce([_has(planted, part) for part in needs])
        assert 0 < has.sum() < len(planted)
        assert (values.dtype, values.shape) == (np.float32, (len(planted),)), column
        assert (np.isfinite(values) == has).all(), column
        assert not np.isinf(values).any(), column


@pytest.mark.parametrize("name", NAMES)
def test_values_differ_between_rows(found: dict[str, dict[str, Any]], name: str) -> None:
    constant = {"s0_infonce", "quality_aspect"}  # one batch of candidates; pictures of one size
    for column, values in found[name].items():
        assert column in constant or np.ptp(values[np.isfinite(values)]) > 1e-6, column


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_give_the_same_values(planted: Collection, found: dict[str, dict[str, Any]], name: str) -> None:
    for column, values in planted.compute(name).items():
        np.testing.assert_array_equal(values, found[name][column], err_msg=column)


@pytest.mark.parametrize("name", sorted(set(NAMES) - CROSS_FITTED))
def test_rows_in_another_order_give_the_same_values(
    planted: Collection, found: dict[str, dict[str, Any]], name: str
) -> None:
    order = np.random.default_rng(5).permutation(len(planted))
    for column, values in planted.at(order).compute(name).items():
        expected = found[name][column][order]
        # A sketch counts collisions of signs, and a projection at the limit may fall to either side.
        slack = 2e-3 * (1 + np.nanmax(np.abs(expected))) if name in {"density", "importance"} else 1e-4
        np.testing.assert_allclose(values, expected, atol=slack, rtol=1e-4, err_msg=column)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["none", "one", "two", "equal", "zero"])
def test_odd_rows_give_finite_values_or_a_named_error(planted: Collection, name: str, kind: str) -> None:
    index = {"none": [], "one": [0], "two": [0, 1], "equal": [4] * 90, "zero": [5, 25, 45]}[kind]
    odd = planted.at(index)
    try:
        columns = odd.compute(name)
    except UsageError:
        return
    assert columns
    for column, values in columns.items():
        assert values.shape == (len(index),), column
        assert not np.isinf(values).any(), column
        if kind not in {"zero", "none"}:
            assert np.isfinite(values).all(), column


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_of_two_labels_give_finite_values_or_a_named_error(planted: Collection, name: str) -> None:
    odd = planted.at([4] * 100)
    odd.label = [f"class {i % 2}" for i in range(100)]
    odd.columns = {"age": [float(i) for i in range(100)]}
    try:
        columns = odd.compute(name)
    except UsageError:
        return
    assert all(np.isfinite(values).all() for values in columns.values())


MISSING = {
    "image": ({"image": None}, "image embeddings"),
    "text": ({"text": None}, "caption"),
    "label": ({"label": None}, "label"),
    "caption": ({"caption": None}, "caption"),
    "target": ({"target": None}, "target"),
    "text encoder": ({"text_encoder": None}, "text encoder"),
    "pixels": ({"pixels": None}, "images"),
    "column": ({"columns": {"site": []}}, "site"),
    "text or label": ({"text": None, "label": None}, "captions or labels"),
}


@pytest.mark.parametrize(
    ("name", "need"), [(n, need) for n in NAMES for need in SCORES[n].needs if need not in {"file", "model"}]
)
def test_what_a_score_needs_and_lacks_is_named(planted: Collection, name: str, need: str) -> None:
    changes, message = MISSING[need]
    with pytest.raises(UsageError, match=message):
        planted.compute(name, **changes)


@pytest.mark.parametrize("name", [n for n in NAMES if "label" in SCORES[n].needs])
def test_labels_that_all_lack_are_named(planted: Collection, name: str) -> None:
    with pytest.raises(UsageError, match="label"):
        planted.compute(name, label=np.full(len(planted), -1, dtype=np.int64))


@pytest.mark.parametrize("name", ["head", "ask"])
def test_a_file_that_is_not_there_is_named(planted: Collection, name: str) -> None:
    with pytest.raises(CurateError, match="nothing-here"):
        planted.compute(name, {"file" if name == "head" else "model": "nothing-here"})


@pytest.mark.parametrize("name", ["vinfo", "vinfo-learned", "vinfo-self", "align", "column", "negclip"])
def test_too_few_rows_to_fit_a_family_are_counted(planted: Collection, name: str) -> None:
    with pytest.raises(UsageError, match=r"\d+ .* at least 64"):
        planted.at(range(30)).compute(name)


@pytest.mark.parametrize("name", ["normsim", "vas", "importance", "hard-negative"])
def test_a_target_of_other_dimensions_is_named(planted: Collection, name: str) -> None:
    odd = dataclasses.replace(planted, target=planted.target[:, :5].copy())
    with pytest.raises(UsageError, match="5 dimensions"):
        odd.compute(name)


def test_an_unknown_score_names_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no score is called 'magic'; there are: align, .*vinfo-vote"):  # noqa: RUF043
        make_score("magic")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_parameter_names_those_that_there_are(planted: Collection, name: str) -> None:
    with pytest.raises(UsageError, match="has no parameter colour; it has: "):
        make_score(name, **params_of(name, planted.files), colour=3)


@pytest.mark.parametrize("name", ["column", "head", "prompts", "ask"])
def test_a_parameter_that_is_needed_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=r"needs .*--set "):
        make_score(name)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("density", {"hashes": "many"}),
        ("density", {"hashes": 0}),
        ("density", {"bits": 17}),
        ("density", {"hashes": 2.5}),
        ("density-kde", {"bandwidth": float("nan")}),
        ("density-kde", {"bandwidth": -1.0}),
        ("density-knn", {"k": 0}),
        ("density-knn", {"k": -3}),
        ("density-knn", {"k": True}),
        ("leverage", {"ridge": 0.0}),
        ("leverage", {"ridge": -1.0}),
        ("vinfo", {"trims": -1}),
        ("vinfo-learned", {"folds": 1}),
        ("vinfo-learned", {"seed": -1}),
        ("vinfo-self", {"blocks": 1}),
        ("vinfo-self", {"clusters": -1}),
        ("vinfo-self", {"seed": -1}),
        ("vinfo-vote", {"k": 0}),
        ("vinfo-vote", {"kappa": 0.0}),
        ("negclip", {"temperature": 0.0}),
        ("negclip", {"batch": 0}),
        ("negclip", {"seed": -1}),
        ("anomaly", {"shrinkage": 0.0}),
        ("bayes", {"alpha": 2.0}),
        ("hard-negative", {"k": 0}),
        ("hard-negative", {"k": 1000}),
        ("knn-shapley", {"k": 0}),
        ("in-run-shapley", {"steps": -1}),
        ("in-run-shapley", {"second_order": "maybe"}),
        ("mislabel", {"by": "chance"}),
        ("column", {"kind": "colour"}),
        ("column", {"column": 3}),
        ("head", {"activation": "mish"}),
        ("head", {"column": "first"}),
        ("prompts", {"positive": ""}),
        ("ask", {"batch": 0}),
    ],
)
def test_a_parameter_out_of_range_is_a_named_error(planted: Collection, name: str, params: dict[str, Any]) -> None:
    with pytest.raises(CurateError) as caught:
        planted.compute(name, params)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_listed(name: str) -> None:
    assert set(params_of(name, {})) <= set(parameters(name))
