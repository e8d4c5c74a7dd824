"""Each score's documented orientation, on rows whose truth is planted; and leave-one-out against a refit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from planted import CLASSES, Collection, collection, make_files

import curate
from curate.scores.registry import make_score
from curate.scores.rows import Rows, target_rows
from curate.scoring.knn_labels import vote_bits
from curate.scoring.nearest import nearest
from curate_kernels.arrays import unit_rows

OWN = np.arange(320) % CLASSES
DENSE, SPARSE = OWN == 0, OWN != 0  # class 0 is twice as tight
WRONG = np.arange(320) % 16 == 1  # rows that bear the label of the next class


@pytest.fixture(scope="module")
def planted() -> Collection:
    return collection(lacking=False)


def auc(values: Any, positive: Any) -> float:
    """Return how often a positive row has the higher value."""
    high, low = values[positive], values[~positive]
    return float((high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean())


def swapped(made: Collection) -> tuple[Collection, Any]:
    """Return the collection with the captions of 40 rows passed on among them, and which rows these are."""
    wrong = np.arange(0, len(made), 8)
    text = made.text.copy()
    text[wrong] = made.text[np.roll(wrong, 1) // CLASSES * CLASSES + (np.arange(wrong.size) % CLASSES)]
    return dataclasses.replace(made, text=text), np.isin(np.arange(len(made)), wrong)


@pytest.mark.parametrize(
    ("name", "column", "denser"),
    [
        ("density", "density", True),
        ("density-kde", "density_kde", True),
        ("density-knn", "density_knn", True),
        ("novelty", "novelty", False),
        ("anomaly", "anomaly", False),
    ],
)
def test_rows_of_a_tight_cluster_are_dense_and_no_news(
    planted: Collection, name: str, column: str, denser: bool
) -> None:
    share = auc(planted.compute(name)[column], DENSE)
    assert (share if denser else 1 - share) > 0.9


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("align", "align"),
        ("vinfo", "pvi"),
        ("vinfo", "pvi_text"),
        ("vinfo", "pvi_image"),
        ("vinfo-learned", "pvi_learned"),
        ("vinfo-learned", "pvi_joint"),
    ],
)
def test_swapped_captions_fit_less(planted: Collection, name: str, column: str) -> None:
    made, wrong = swapped(planted)
    columns = made.compute(name)
    assert auc(columns[column], wrong) < 0.15
    if name == "vinfo" and column != "pvi":
        assert auc(columns[column.replace("pvi", "s1")], wrong) > 0.8


def test_swapped_captions_fit_less_in_a_shared_space(planted: Collection) -> None:
    noise = 0.3 * np.random.default_rng(0).normal(size=planted.image.shape) / np.sqrt(planted.image.shape[1])
    text = unit_rows((planted.image + noise).astype(np.float32))
    wrong = np.arange(320) < 40
    text[:40] = text[1:41]
    align = curate.score(planted.image, "align", text=text)["align"]
    np.testing.assert_allclose(align, (planted.image * text).sum(axis=1), atol=1e-5)
    negclip = curate.score(planted.image, "negclip", text=text, temperature=0.05)
    assert auc(align, wrong) < 0.05
    assert auc(negclip["pvi_infonce"], wrong) < 0.05
    assert auc(negclip["s1_infonce"], wrong) > 0.95


@pytest.mark.parametrize(
    ("name", "column", "higher"),
    [
        ("vinfo", "s1_label", True),
        ("vinfo", "pvi_label", False),
        ("vinfo-vote", "s1_vote", True),
        ("vinfo-vote", "pvi_vote", False),
        ("probe", "el2n", True),
        ("probe", "margin", False),
        ("probe", "confidence", False),
        ("mislabel", "label_confidence", False),
        ("mislabel", "label_margin", False),
        ("mislabel", "label_entropy", False),
        ("mislabel", "label_issue", True),
        ("bayes", "bayes", False),
        ("anomaly", "anomaly_class", True),
        ("anomaly", "anomaly_relative", None),
        ("hard-negative", "negative_margin", True),
    ],
)
def test_wrong_labels_are_harder_and_less_likely(
    planted: Collection, name: str, column: str, higher: bool | None
) -> None:
    share = auc(planted.compute(name)[column], WRONG)
    if higher is None:  # compares the nearest class with none, whatever the label
        assert 0.2 < share < 0.8
    else:
        assert (share if higher else 1 - share) > (0.8 if column in {"label_issue", "anomaly_class"} else 0.9)


@pytest.mark.parametrize(("name", "column"), [("knn-shapley", "shapley_knn"), ("in-run-shapley", "shapley_in_run")])
def test_wrong_labels_are_worth_less(planted: Collection, name: str, column: str) -> None:
    values = planted.compute(name)[column]
    near = OWN < 2  # classes of the target set
    assert values[near & WRONG].mean() < 0 < values[near & ~WRONG].mean()
    assert auc(values[near], WRONG[near]) < 0.1


@pytest.mark.parametrize(
    ("name", "column", "higher"),
    [
        ("normsim", "normsim_2", True),
        ("normsim", "normsim_inf", True),
        ("vas", "vas", True),
        ("importance", "importance", True),
        ("hard-negative", "positive_distance", False),
        ("prompts", "prompts", True),
    ],
)
def test_rows_like_the_target_score_higher(planted: Collection, name: str, column: str, higher: bool) -> None:
    share = auc(planted.compute(name)[column], OWN == 0)  # the prompts and half of the target are like class 0
    assert (share if higher else 1 - share) > (0.8 if name in {"normsim", "vas"} else 0.75)


def test_an_unusual_direction_has_leverage_and_gain(planted: Collection) -> None:
    image = planted.image.copy()
    image[:, -1] = 0
    image[0] = np.eye(image.shape[1])[-1]
    columns = curate.score(image, "leverage")
    assert columns["leverage"].argmax() == columns["logdet_gain"].argmax() == 0
    assert columns["leverage"][0] > 3 * columns["leverage"][1:].max()
    gram, ridge = (image[1:].T @ image[1:]).astype(float), 0.01 * 320 / 24
    inverse = np.linalg.inv(gram + ridge * np.eye(24))
    np.testing.assert_allclose(columns["leverage"][0], image[0] @ inverse @ image[0], rtol=1e-3)


def test_an_outlier_is_an_anomaly(planted: Collection) -> None:
    made = planted.at(range(320))
    made.image[10] = unit_rows(np.random.default_rng(1).normal(size=(1, 24)).astype(np.float32))[0]
    columns = made.compute("anomaly")
    assert [columns[name].argmax() for name in ("anomaly", "anomaly_class")] == [10, 10]
    assert made.compute("novelty")["novelty"].argmax() == made.compute("density-knn")["density_knn"].argmin() == 10


def test_values_that_do_not_fit_have_low_information(planted: Collection) -> None:
    ages = list(planted.columns["age"])
    wrong = np.arange(320) % 20 == 0
    for i in np.flatnonzero(wrong):
        ages[i] = 2 * np.mean(ages) - ages[i] + 20
    made = dataclasses.replace(planted, columns={"age": ages, "site": planted.columns["site"]})
    columns = made.compute("column")
    assert auc(columns["pvi_age"], wrong) < 0.1
    assert auc(columns["s1_age"], wrong) > 0.9
    sites = make_score("column", column="site").compute(made.rows())
    assert sites["pvi_site"].mean() > 0.5


def test_rows_put_together_wrongly_have_low_information_of_themselves() -> None:
    rng = np.random.default_rng(0)
    image = unit_rows(
        (rng.normal(size=(600, 4)) @ rng.normal(size=(4, 24)) + 0.3 * rng.normal(size=(600, 24))).astype(np.float32)
    )
    wrong = np.arange(600) % 20 == 0
    image[wrong, 12:] = np.roll(image[wrong, 12:], 1, axis=0)
    assert auc(curate.score(image, "vinfo-self", blocks=2)["pvi_self"], wrong) < 0.15


def test_the_head_and_the_model_that_is_asked_say_what_they_say(planted: Collection, tmp_path: Any) -> None:
    from safetensors.numpy import load_file

    files = make_files(tmp_path)
    weight = load_file(files["head"])["weight"]
    heads = curate.score(planted.image, "head", file=files["head"], title="nice")
    np.testing.assert_allclose(heads["head_nice"], planted.image @ weight[0], atol=1e-5)
    captions = ["a red circle", None, "photo 1 2", ""]  # the empty caption is a text
    asked = curate.score(None, "ask", captions=captions, model=files["ask"], prompt="{caption} ?", device="cpu")["ask"]
    assert np.isnan(asked).tolist() == [False, True, False, False]
    assert ((asked[[0, 2, 3]] > 0) & (asked[[0, 2, 3]] < 1)).all()


def test_captions_and_pixels_by_hand() -> None:
    captions = ["SALE SALE", "a cat", "a cat", "photo 1", "photo 2", "", None]
    columns = curate.score(captions=captions, name="captions")
    assert columns["caption_chars"].tolist()[:6] == [9, 5, 5, 7, 7, 0]
    assert columns["caption_shared"].tolist()[:6] == [1, 2, 2, 2, 2, 0]
    assert columns["caption_caps"].tolist()[:2] == [1, 0]
    assert columns["caption_repetition"].tolist()[:2] == [0.5, 0]
    assert all(np.isnan(values[6]) for values in columns.values())
    black, noise = np.zeros((10, 40, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    rows = Rows(n=3, valid=np.ones(3, bool), pixels=lambda: iter([black, None, noise]))
    quality = make_score("quality").compute(rows)
    assert quality["quality_aspect"][[0, 2]].tolist() == [4, 1]
    assert quality["quality_clipped"][0] == 1
    for name in ("contrast", "sharpness", "brightness", "entropy", "colourfulness"):
        assert quality[f"quality_{name}"][0] < quality[f"quality_{name}"][2]
    assert all(np.isnan(values[1]) for values in quality.values())


# Who is measured against whom


@pytest.mark.parametrize("name", ["density", "density-kde", "density-knn", "novelty", "leverage"])
def test_a_kept_row_is_measured_without_itself_and_a_copy_of_it_with_it(planted: Collection, name: str) -> None:
    """Row i of both: kept in the first, its refused copy in the second, and the first alone is what is kept."""
    both = planted.at([*range(40), 0])
    kept = np.arange(41) < 40
    score = make_score(name, **({"bandwidth": 0.5} if name == "density-kde" else {}))
    columns = score.compute(both.rows(kept=kept))
    without = score.compute(both.rows(kept=kept & (np.arange(41) > 0)))
    for column, values in columns.items():
        scale = 39 / 40 if column in {"density", "density_kde"} else 1  # shares of 39 others, or of all 40 kept
        # The sketch's centre and the ridge move with the kept rows.
        slack = {"density": 0.02, "leverage": 0.005, "logdet_gain": 0.005}.get(column, 1e-5)
        # Row 0, kept, sees what a row equal to it that is not kept sees when row 0 is not kept either.
        np.testing.assert_allclose(values[0], without[column][0], atol=slack, err_msg=column)
        np.testing.assert_allclose(values[0], without[column][40], atol=slack, err_msg=column)
        near = values[40] if column in {"density", "density_kde", "density_knn"} else -values[40]
        far = values[0] * scale if column in {"density", "density_kde", "density_knn"} else -values[0] * scale
        assert near > far, column


def test_neighbours_by_brute_force(planted: Collection) -> None:
    kept = np.arange(320) % 3 > 0
    image = unit_rows(planted.image)
    sim = image @ image[kept].T
    sim[np.flatnonzero(kept), np.arange(kept.sum())] = -np.inf
    nearest_first = -np.sort(-sim, axis=1)
    rows = planted.rows(kept=kept)
    np.testing.assert_allclose(make_score("novelty").compute(rows)["novelty"], 1 - nearest_first[:, 0], atol=1e-5)
    found = make_score("density-knn", k=7).compute(rows)["density_knn"]
    np.testing.assert_allclose(found, nearest_first[:, :7].mean(axis=1), atol=1e-5)
    few = make_score("density-knn", k=50).compute(planted.at(range(6)).rows())["density_knn"]
    inner = image[:6] @ image[:6].T
    np.testing.assert_allclose(few, (inner.sum(axis=1) - 1) / 5, atol=1e-5)
    width = 0.4
    mass = np.exp(-np.maximum(2 - 2 * sim, 0) / (2 * width**2))
    kde = make_score("density-kde", bandwidth=width).compute(rows)["density_kde"]
    np.testing.assert_allclose(kde, mass.sum(axis=1) / (kept.sum() - kept), rtol=1e-4, atol=1e-6)


def test_a_row_that_stands_alone_is_new(planted: Collection) -> None:
    one = planted.at([0]).rows()
    assert make_score("novelty").compute(one)["novelty"].tolist() == [1.0]
    assert make_score("density-knn").compute(one)["density_knn"].tolist() == [-1.0]
    assert make_score("density").compute(one)["density"].tolist() == [0.0]


def test_votes_are_those_of_counted_rows_and_reach_the_others(planted: Collection) -> None:
    counted = np.arange(320) % 5 > 0
    rows = planted.rows(counted=counted)
    found = make_score("vinfo-vote", k=9).compute(rows)
    x, own = unit_rows(planted.image[counted]), rows.label[counted]
    _, neighbor = nearest(x, k=9, exclude_self=True)
    for name, bits in vote_bits(neighbor, own, CLASSES, kappa=2.0).items():
        np.testing.assert_allclose(found[name][counted], bits, atol=1e-5)
    # A row that is not counted: what it would get as one more counted row, the others as they are.
    for i in np.flatnonzero(~counted)[:5]:
        alone = make_score("vinfo-vote", k=9).compute(planted.rows(counted=counted | (np.arange(320) == i)))
        assert [found[n][i] for n in found] == pytest.approx([alone[n][i] for n in alone], abs=1e-5)


def test_a_lone_member_of_a_class_does_not_look_like_its_class(planted: Collection) -> None:
    made = planted.at(range(40))
    made.label[0] = "class 9"
    margin = make_score("hard-negative").compute(made.rows(target=None))["negative_margin"]
    assert margin.argmax() == 0
    image, label = unit_rows(made.image), np.array(made.label)
    mean = {c: image[(label == c) & (np.arange(40) != 1)].sum(axis=0) for c in set(label)}
    cosine = {c: float(image[1] @ m / np.linalg.norm(m)) for c, m in mean.items()}
    best = max(v for c, v in cosine.items() if c != label[1])
    assert margin[1] == pytest.approx(best - cosine[label[1]], abs=1e-5)


@pytest.mark.parametrize("name", ["align", "anomaly", "probe", "bayes", "vinfo"])
def test_rows_that_are_not_counted_change_nothing_for_the_others(planted: Collection, name: str) -> None:
    counted = np.arange(320) < 280
    some = planted.compute(name, counted=counted)
    alone = planted.at(range(280)).compute(name)
    for column, values in alone.items():
        np.testing.assert_allclose(some[column][:280], values, rtol=1e-4, atol=1e-4, err_msg=column)
        assert np.isfinite(some[column]).all()


@pytest.mark.parametrize("counted", [True, False])
def test_alignment_is_that_of_a_regression_without_the_row(planted: Collection, counted: bool) -> None:
    made = planted.at(range(100))
    at = np.ones(100, dtype=bool)
    at[3] = counted
    found = make_score("align").compute(made.rows(counted=at))["align"][3]
    x, y = unit_rows(made.image).astype(float), unit_rows(made.text).astype(float)
    rest = np.arange(100) != 3
    ridge = 0.1 * np.trace(np.cov(x[at].T, bias=True)) * at.sum() / x.shape[1]
    cx, cy = x[rest] - x[rest].mean(axis=0), y[rest] - y[rest].mean(axis=0)
    weight = np.linalg.solve(cx.T @ cx + ridge * np.eye(x.shape[1]), cx.T @ cy)
    guess, real = (x[3] - x[rest].mean(axis=0)) @ weight, y[3] - y[rest].mean(axis=0)
    cosine = guess @ real / np.linalg.norm(guess) / np.linalg.norm(real)
    assert found == pytest.approx(cosine, abs=1e-4)


def test_few_labels_among_many_captions_do_not_stop_the_captions(
    planted: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    few = np.full(320, -1, dtype=np.int64)
    few[:10] = 0
    columns = planted.compute("vinfo", label=few)
    assert "pvi" in columns
    assert "s1_label" not in columns
    assert "10 labelled samples are not scored" in caplog.text
    text = unit_rows(planted.text)
    text[10:] = 0
    assert sorted(planted.compute("vinfo", text=text)) == ["pvi_label", "s0_label", "s1_label"]


def test_a_family_that_sees_nothing_says_so(planted: Collection, caplog: pytest.LogCaptureFixture) -> None:
    text = unit_rows(np.random.default_rng(0).normal(size=(320, 16)).astype(np.float32))
    planted.compute("vinfo", text=text, label=None)
    assert "vinfo, captions: family collapsed" in caplog.text


# Plain arrays


def test_arrays_lists_and_missing_labels_are_all_read(planted: Collection) -> None:
    label = list(OWN)
    found = [
        curate.score(planted.image, "probe", labels=given)["el2n"]
        for given in (label, OWN, OWN.astype(np.int16), [str(v) for v in label])
    ]
    assert all((values == found[0]).all() for values in found)
    holes = [float("nan") if i == 4 else None if i == 9 else v for i, v in enumerate(label)]
    el2n = curate.score(planted.image, "probe", labels=holes)["el2n"]
    assert np.flatnonzero(np.isnan(el2n)).tolist() == [4, 9]


def test_the_target_may_be_arrays_and_its_zero_rows_count_for_nothing(planted: Collection) -> None:
    target = np.concatenate([planted.target, np.zeros((30, 24), np.float32)])
    labels = np.array([*planted.target_label, *["class 0"] * 30])
    for name in ("vas", "normsim", "importance", "hard-negative", "knn-shapley", "in-run-shapley"):
        given = {"labels": planted.label}
        padded = curate.score(planted.image, name, target=target, target_labels=labels, **given)
        plain = curate.score(planted.image, name, target=planted.target, target_labels=planted.target_label, **given)
        for column, values in plain.items():
            np.testing.assert_allclose(padded[column], values, rtol=1e-5, atol=1e-7, err_msg=column)
    with pytest.raises(ValueError, match="holds no embedding"):
        curate.score(planted.image, "vas", target=np.zeros((3, 24), np.float32))
    assert target_rows(np.zeros((3, 24), np.float32)).n == 0


def test_a_target_without_labels_is_named(planted: Collection) -> None:
    for name in ("knn-shapley", "in-run-shapley"):
        with pytest.raises(ValueError, match="target set has no labels"):
            curate.score(planted.image, name, labels=OWN, target=planted.target)
    with pytest.raises(ValueError, match="60 rows and 2 labels"):
        curate.score(planted.image, "knn-shapley", labels=OWN, target=planted.target, target_labels=[0, 1])


def test_lengths_that_differ_are_named(planted: Collection) -> None:
    with pytest.raises(ValueError, match=r"one length; they have \[3, 320\]"):
        curate.score(planted.image, "probe", labels=[0, 1, 2])
    with pytest.raises(ValueError, match="one length"):
        curate.score(name="captions")
    with pytest.raises(ValueError, match="NaN or infinity in 1 rows, first in row 2"):
        curate.score(np.where(np.arange(8)[:, None] == 2, np.nan, np.ones((8, 3))), "novelty")


def test_the_scores_are_listed_before_and_after_one_is_computed(planted: Collection) -> None:
    curate.score(planted.image[:10], "novelty")
    assert [row["name"] for row in curate.list_scores()][:2] == ["align", "anomaly"]
