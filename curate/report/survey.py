"""What a pool decided, counted, and which of its rows are worth a look; rows are named by their `row` number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.report.figures import Histogram, histogram
from curate.report.text import percent

if TYPE_CHECKING:
    import polars as pl

    from curate.pool import Pool

REASONS = {
    "missing_file": "The file that the source names is not there.",
    "missing_image": "The sample has no image.",
    "unreadable_file": "The file cannot be read.",
    "outside_root": "The path leads out of the source's folder.",
    "download_failed": "The source itself says that the download failed.",
    "duplicate_key": "An earlier sample of the same source has this key.",
    "undecodable": "The bytes are no image, or a damaged or truncated one.",
    "decoder_crash": "Decoding killed the process that did it, twice.",
    "decode_timeout": "Decoding took longer than the recipe allows.",
    "too_many_pixels": "The header asks for more pixels than the recipe allows.",
    "too_small": "The shorter side is below the recipe's minimum.",
    "low_quality": "Near-blank, blurred, or too long for its width.",
    "bad_embedding": "The encoder gave no usable numbers.",
    "exact_duplicate": "The same pixels as a sample that was kept.",
    "near_duplicate": "All but the same as a sample that was kept.",
    "caption_mismatch": "Image and caption do not inform each other.",
    "label_noise": "The label does not fit the image.",
    "reviewed": "A reviewer dropped it.",
    "warmup": "Held back until the caption model can be fitted.",
}
"""Reasons of refusal in the order in which a sample meets them, each in words."""

SCORES = {
    "pvi": "How many bits image and caption tell of each other. Low is suspicious.",
    "s1_label": "How surprising the label is, in bits, once the image is seen. High is suspicious.",
    "gain": "What a sample added to those kept before it: its distance to its nearest neighbours, from 0 to 1.",
}

SCORED = ("caption_mismatch", "label_noise", "too_small", "low_quality")
"""Reasons that a number decides."""

_MOST_CLASSES = 60
_COLUMNS = ("row", "decision", "reason", "label", "size", "width", "height", "quality_contrast", "quality_sharpness")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the funnel: `rows` end at `start + rows`, of the `seen` that the bar's whole length stands for."""

    kind: str
    name: str
    words: str
    rows: int
    share: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class ClassLine:
    """A class before and after: rows seen, admitted and selected, and each as a share of all classes.

    threshold: bits of surprise above which the label is refused; None: never
    """

    label: str
    rows: tuple[int, ...]
    shares: tuple[float, ...]
    threshold: float | None


def read_rows(pool: Pool) -> pl.DataFrame:
    """Return every row of a pool with the few columns that the counts need; about 100 bytes a row."""
    return pool.frame([*_COLUMNS, *(name for name in SCORES if name in pool.columns)])


def ordered_reasons(rows: pl.DataFrame) -> dict[str, int]:
    """Return {reason: rows refused or held for it}, in the order of the stages, unknown reasons last."""
    import polars as pl

    counted = rows.filter(pl.col("decision") != "admit").group_by("reason").len()
    counts = dict(zip(counted["reason"].to_list(), counted["len"].to_list(), strict=True))
    names = [*(name for name in REASONS if name in counts), *sorted(set(counts) - set(REASONS))]
    return {name: int(counts[name]) for name in names}


def funnel(rows: pl.DataFrame, selected: int | None) -> list[Step]:
    """Return the way from seen to selected; each refusal's bar begins where what is left of the seen ends."""
    seen = left = rows.height

    def step(kind: str, name: str, words: str, count: int, start: int) -> Step:
        whole = max(seen, 1)
        return Step(
            kind, name, words, count, percent(count, seen), round(100 * start / whole, 3), round(100 * count / whole, 3)
        )

    steps = [step("seen", "seen", "Every sample that the sources gave.", seen, 0)]
    for name, count in ordered_reasons(rows).items():
        left -= count
        steps.append(step("refused", name, REASONS.get(name, ""), count, left))
    steps.append(step("admitted", "admitted", "What the pool keeps.", left, 0))
    if selected is not None:
        steps.append(step("selected", "selected", "What the manifest holds.", selected, 0))
    return steps


def label_thresholds(state: Mapping[str, Any]) -> dict[str, float]:
    """Return {class: bits of surprise above which its label is refused}."""
    classes = (state["checkpoint"] or {}).get("classes", {})
    return {state["classes"][int(number)]: -float(value["value"]) for number, value in classes.items()}


def histograms(rows: pl.DataFrame, state: Mapping[str, Any]) -> list[Histogram]:
    """Return a histogram of each score that a row has, with the thresholds of the last checkpoint."""
    caption = (state["checkpoint"] or {}).get("caption")
    thresholds = {"pvi": {"": float(caption["value"])} if caption else {}, "s1_label": label_thresholds(state)}
    figures = []
    for name, about in SCORES.items():
        if name not in rows.columns:
            continue
        values = rows[name].fill_null(float("nan")).to_numpy().astype(np.float64)
        finite = np.isfinite(values)
        if finite.any():
            admitted = (rows["decision"] == "admit").to_numpy()[finite]
            figures.append(histogram(name, about, values[finite], admitted, thresholds.get(name, {})))
    return figures


def class_balance(rows: pl.DataFrame, manifest: pl.DataFrame | None, state: Mapping[str, Any]) -> list[ClassLine]:
    """Return the classes, most frequent first, the many rare ones of a long tail as one line."""
    import polars as pl

    labelled = rows.filter(pl.col("label").is_not_null())
    if not labelled.height:
        return []
    groups = labelled.group_by("label").agg(pl.len().alias("seen"), (pl.col("decision") == "admit").sum().alias("kept"))
    chosen = {} if manifest is None else dict(manifest.group_by("label").len().iter_rows())
    thresholds = label_thresholds(state)
    lines = [(label, seen, kept, chosen.get(label, 0)) for label, seen, kept in groups.iter_rows()]
    lines.sort(key=lambda line: (-line[1], line[0]))
    if len(lines) > _MOST_CLASSES:
        rest = lines[_MOST_CLASSES - 1 :]
        lines[_MOST_CLASSES - 1 :] = [
            (f"{len(rest):,} other classes", *(sum(line[i] for line in rest) for i in (1, 2, 3)))
        ]
    stages = 2 if manifest is None else 3
    totals = [sum(line[1 + i] for line in lines) for i in range(stages)]
    return [
        ClassLine(
            label,
            tuple(counts[:stages]),
            tuple(count / max(total, 1) for count, total in zip(counts, totals, strict=False)),
            thresholds.get(label),
        )
        for label, *counts in lines
    ]


def looks(
    rows: pl.DataFrame, reason: str, state: Mapping[str, Any], most: tuple[int, int, int]
) -> list[tuple[str, list[int]]]:
    """Return (which, rows) of what to look at among the refused: the worst, the nearest to passing, some at random.

    Where no score decided, or there are few, all that is shown stands under one heading, "".
    """
    ranked = worst(rows, reason, state, rows.height)
    if reason not in SCORED or len(ranked) <= sum(most):
        return [("", ranked if len(ranked) <= sum(most) else spread(ranked, sum(most)))]
    low, near = ranked[: most[0]], ranked[-most[1] :][::-1]
    rest = np.random.default_rng(0).permutation(np.array(ranked[most[0] : -most[1]]))[: most[2]]
    return [("The worst", low), ("Nearest to passing", near), ("At random", sorted(rest.tolist()))]


def worst(rows: pl.DataFrame, reason: str, state: Mapping[str, Any], most: int) -> list[int]:
    """Return up to `most` rows refused for a reason: the worst by what decided, else evenly spread over the stream."""
    import polars as pl

    refused = rows.filter((pl.col("reason") == reason) & (pl.col("decision") != "admit"))
    clean = state["recipe"]["clean"]
    order = {
        "caption_mismatch": pl.col("pvi") if "pvi" in rows.columns else pl.col("row"),
        "label_noise": -pl.col("s1_label") if "s1_label" in rows.columns else pl.col("row"),
        "too_small": pl.min_horizontal("width", "height"),
        "low_quality": pl.min_horizontal(
            pl.col("quality_contrast") / clean["min_contrast"],
            pl.col("quality_sharpness") / clean["min_sharpness"],
            clean["max_aspect"] * pl.min_horizontal("width", "height") / pl.max_horizontal("width", "height"),
        ),
    }
    if reason in order:
        return refused.sort(order[reason], "row", nulls_last=True)["row"].head(most).to_list()
    return spread(refused["row"].to_list(), most)


def spread(items: list[Any], most: int) -> list[Any]:
    """Return up to `most` items, evenly spaced from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(np.int64))
    return [items[i] for i in places]
