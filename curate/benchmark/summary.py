"""From cells to what may be said: means with intervals, tests against random, ranks, compute multipliers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from curate.benchmark.definition import EVERYTHING, Definition, as_json
from curate.benchmark.statistics import bootstrap, holm, mean_ranks, multiplier, paired

HEADLINES = {
    "probe": ("balanced_accuracy", "balanced_accuracy_weighted", "balanced_accuracy_knn", "information"),
    "network": ("balanced_accuracy", "balanced_accuracy_weighted"),
    "contrastive": ("r10", "r1"),
    "masked": ("balanced_accuracy", "normdel", "reconstruction_loss"),
    "coverage": ("information_pairs", "radius_90", "vendi"),
}
"""Measures that are compared; the first one of each task is ranked."""

LOWER = ("radius_50", "radius_90", "radius", "reconstruction_loss")
Cells = Sequence[Mapping[str, Any]]
Scores = dict[tuple[str, float], dict[int, float]]


def summarise(definition: Definition, cells: Cells) -> dict[str, Any]:
    """Return everything that was found, as JSON: the same cells give the same bytes. Times are not in it."""
    chosen = [cell for cell in cells if "selector" in cell]
    places = [(dataset, corruption) for dataset in definition.dataset for corruption in definition.corruption]
    tables = []
    for dataset, corruption in places:
        here = [c for c in chosen if (c["dataset"], c["corruption"]) == (dataset, corruption)]
        for task in definition.bench.tasks:
            for measure in HEADLINES.get(task, ()):
                table = _table(definition, here, task, measure)
                if table["rows"]:
                    tables.append({"dataset": dataset, "corruption": corruption} | table)
    return {
        "name": definition.bench.name,
        "digest": definition.digest(),
        "definition": as_json(definition),
        "tables": tables,
        "composition": [row for place in places for row in _compositions(definition, chosen, place)],
        "ranks": _ranks(definition, tables),
        "detection": _detections(cells),
        "problems": _problems(cells),
        "cells": list(cells),
    }


def _scores(cells: Cells, task: str, measure: str) -> Scores:
    """Return {(selector, budget): {seed: value}}."""
    found: Scores = defaultdict(dict)
    for cell in cells:
        value = cell["measures"].get(task, {}).get(measure)
        if value is not None:
            found[cell["selector"], cell["budget"]][cell["seed"]] = value
    return found


def baseline(definition: Definition) -> str:
    """Return the name of the selector that is plain random."""
    return next(k for k, one in definition.selector.items() if one.method == "random" and not one.gate)


def whole(definition: Definition) -> str | None:
    """Return the name of the selector that takes everything."""
    return next((k for k, one in definition.selector.items() if one.method == EVERYTHING and not one.gate), None)


def _table(definition: Definition, cells: Cells, task: str, measure: str) -> dict[str, Any]:
    """Return one measure of one world: every selector at every budget against random at the same one."""
    scores, base = _scores(cells, task, measure), baseline(definition)
    sign = -1.0 if measure in LOWER else 1.0
    rows = []
    for budget in sorted({budget for _, budget in scores}):
        names = [name for name in definition.selector if (name, budget) in scores]
        compared = scores.get((base, budget), {})
        p = [float("nan") if name == base else paired(scores[name, budget], compared) for name in names]
        for name, raw, corrected in zip(names, p, holm(p), strict=True):
            values = scores[name, budget]
            told = asdict(bootstrap([values[seed] for seed in sorted(values)]))
            common = sorted(set(values) & set(compared))
            gain = float(np.mean([values[s] - compared[s] for s in common])) if common else float("nan")
            told |= {"selector": name, "budget": budget, "p": raw, "p_holm": corrected, "over_random": gain}
            rows.append({key: _number(value) for key, value in told.items()})
    goal = None
    full = whole(definition)
    if full is not None and (full, 1.0) in scores:
        goal = sign * float(np.mean(list(scores[full, 1.0].values())))
    saved = {} if goal is None else _multipliers(definition, scores, sign, goal)
    return {"task": task, "measure": measure, "lower": measure in LOWER, "rows": rows, "multiplier": saved}


def _multipliers(definition: Definition, scores: Scores, sign: float, goal: float) -> dict[str, float | None]:
    found = {}
    for name in definition.selector:
        budgets = [budget for budget in definition.budgets_of(name) if scores.get((name, budget))]
        means = [sign * float(np.mean(list(scores[name, budget].values()))) for budget in budgets]
        if budgets and budgets != [1.0]:
            found[name] = _number(multiplier(budgets, means, goal))
    return found


def _number(value: Any) -> Any:
    """Return a value that JSON has: NaN is null."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _compositions(definition: Definition, cells: Cells, place: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the mean composition of what each selector chose, and its mean class counts."""
    rows = []
    for name in definition.selector:
        for budget in definition.budgets_of(name):
            mine = [
                c
                for c in cells
                if (c["dataset"], c["corruption"], c["selector"], c["budget"]) == (*place, name, budget)
                and "composition" in c["measures"]
            ]
            if mine:
                keys = sorted({key for c in mine for key in c["measures"]["composition"]})
                mean = {k: float(np.mean([c["measures"]["composition"].get(k, 0.0) for c in mine])) for k in keys}
                counts = {k: float(np.mean([c["classes"][k] for c in mine])) for k in mine[0]["classes"]}
                told = {"dataset": place[0], "corruption": place[1], "selector": name, "budget": budget}
                size = float(np.mean([c["rows"] for c in mine]))
                rows.append({**told, "rows": size, "shares": mean, "classes": counts})
    return rows


def _ranks(definition: Definition, tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean ranks by the first measure of each task; a block is one world at one budget.

    Selectors that lack a block (everything has one budget only) are not ranked.
    """
    found = []
    for task, (measure, *_) in ((task, HEADLINES[task]) for task in definition.bench.tasks if task in HEADLINES):
        own = [table for table in tables if (table["task"], table["measure"]) == (task, measure)]
        blocks: dict[str, dict[tuple[str, str, float], float]] = defaultdict(dict)
        for table in own:
            for row in table["rows"]:
                if row["budget"] in definition.bench.budgets:
                    key = (table["dataset"], table["corruption"], row["budget"])
                    blocks[row["selector"]][key] = -row["mean"] if table["lower"] else row["mean"]
        every = sorted({key for one in blocks.values() for key in one})
        scores = {name: [one[key] for key in every] for name, one in blocks.items() if set(one) == set(every)}
        if len(scores) > 1:
            ranks = asdict(mean_ranks(scores))
            found.append({"task": task, "measure": measure} | {k: _number(v) for k, v in ranks.items()})
    return found


def _detections(cells: Cells) -> list[dict[str, Any]]:
    """Return AUC and average precision of each score against each planted kind, over the seeds."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for cell in cells:
        for key, value in cell["measures"].get("detection", {}).items():
            values[cell["dataset"], cell["corruption"], key].append(value)
    rows = []
    for (dataset, corruption, key), found in values.items():
        column, kind, what = key.rsplit(".", 2)
        told = {"dataset": dataset, "corruption": corruption, "column": column, "kind": kind, "what": what}
        rows.append(told | {k: _number(v) for k, v in asdict(bootstrap(found)).items()})
    return rows


def _problems(cells: Cells) -> list[dict[str, Any]]:
    """Return what could not be done and why, each reason once with the cells that it stopped."""
    found: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for cell in cells:
        for task, reason in cell["problems"].items():
            found[cell["dataset"], cell.get("selector", "detection"), task, reason] += 1
    names = ("dataset", "selector", "task", "reason")
    return [dict(zip(names, key, strict=True)) | {"cells": count} for key, count in sorted(found.items())]
