"""The results as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_ALPHA = 0.05
_ESCAPED = {ord("|"): "\\|", ord("<"): "&lt;", ord(">"): "&gt;", ord("\n"): " ", ord("\r"): " "}


def markdown(results: Mapping[str, Any], times: Sequence[Mapping[str, Any]]) -> str:
    """Return every table of a benchmark: measures, ranks, compositions, costs, detection, what random wins."""
    bench = results["definition"]["bench"]
    lines = [
        f"# {plain(results['name'])}",
        "",
        f"Means over {bench['seeds']} seeds (random: {bench['random_seeds']}) with 95 % bootstrap intervals. Budgets"
        " are shares of the corrupted training rows. **+** better and **−** worse than random at the same budget,"
        f" paired t test, p < {_ALPHA} after Holm's correction. Definition {results['digest'][:16]}.",
    ]
    for table in results["tables"]:
        lines += ["", *_measure(table)]
    for ranks in results["ranks"]:
        lines += ["", *_ranked(ranks)]
    lines += ["", *_composition(results["composition"]), "", *_costs(times)]
    if results["detection"]:
        lines += ["", *_detection(results["detection"])]
    lines += ["", *_losses(results["tables"])]
    if results["problems"]:
        lines += ["", "## What did not run", ""]
        lines += [
            f"- {plain(p['dataset'])}, {plain(p['selector'])}, {p['task']}: {plain(p['reason'])} ({p['cells']} cells)"
            for p in results["problems"]
        ]
    lines += ["", "## Environment", ""]
    lines += [f"- {key}: {plain(value)}" for key, value in results["environment"].items()]
    return "\n".join(lines) + "\n"


def plain(text: Any) -> str:
    """Return a text as a cell of a Markdown table holds it."""
    return str(text).translate(_ESCAPED)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(row) + " |" for row in (head, marks, *rows)]


def _measure(table: Mapping[str, Any]) -> list[str]:
    direction = "lower is better" if table["lower"] else "higher is better"
    budgets = sorted({row["budget"] for row in table["rows"]})
    by = {(row["selector"], row["budget"]): row for row in table["rows"]}
    names = list(dict.fromkeys(row["selector"] for row in table["rows"]))
    rows = []
    for name in names:
        cells = [_shown(by.get((name, budget)), table["lower"]) for budget in budgets]
        saved = table["multiplier"].get(name)
        rows.append([plain(name), *cells, "" if saved is None else f"{saved:.1f}x"])
    title = f"## {plain(table['dataset'])}, {plain(table['corruption'])}: {table['measure']} ({direction})"
    return [title, "", *_grid(["selector", *(f"{100 * b:g} %" for b in budgets), "compute multiplier"], rows)]


def _shown(row: Mapping[str, Any] | None, lower: bool = False) -> str:
    if row is None:
        return ""
    told = f"{row['mean']:.3f}"
    if row["low"] is not None:
        told += f" ({row['low']:.3f} … {row['high']:.3f})"
    return told + verdict(row, lower)


def verdict(row: Mapping[str, Any], lower: bool = False) -> str:
    """Return the mark of a result that differs from random's, or nothing."""
    if row["p_holm"] is None or row["p_holm"] >= _ALPHA:
        return ""
    return " **+**" if (row["over_random"] > 0) != lower else " **−**"


def _ranked(ranks: Mapping[str, Any]) -> list[str]:
    names = sorted(ranks["rank"], key=lambda name: (ranks["rank"][name], name))
    critical = "no critical difference" if ranks["critical"] is None else f"critical difference {ranks['critical']:.2f}"
    title = f"## Mean ranks by {ranks['measure']} over {ranks['blocks']} worlds and budgets ({critical})"
    return [title, "", *_grid(["selector", "mean rank"], [[plain(n), f"{ranks['rank'][n]:.2f}"] for n in names])]


def _composition(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for row in rows for key in row["shares"] if not key.startswith("kept_")})
    head = ["world, selector", "budget", "rows", *keys]
    made = []
    for row in rows:
        name = f"{plain(row['dataset'])}, {plain(row['corruption'])}, {plain(row['selector'])}"
        shares = [f"{row['shares'][key]:.3f}" if key in row["shares"] else "" for key in keys]
        made.append([name, f"{100 * row['budget']:g} %", f"{row['rows']:.0f}", *shares])
    return ["## What was chosen", "", *_grid(head, made)]


def costs(times: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float, float]]:
    """Return (dataset, selector, median seconds of its scores, of itself) over all its cells."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for one in times:
        found[one["dataset"], one["selector"]].append((one["score_seconds"], one["seconds"]))
    median = {key: np.median(values, axis=0).tolist() for key, values in found.items()}
    return [(*key, scores, own) for key, (scores, own) in median.items()]


def _costs(times: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [f"{plain(dataset)}, {plain(name)}", f"{scores:.3f}", f"{own:.3f}"]
        for dataset, name, scores, own in costs(times)
    ]
    head = ["collection, selector", "scores, s", "selection, s"]
    return ["## What selecting costs (median of its cells, one thread, alone)", "", *_grid(head, rows)]


def _detection(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    by = {(r["dataset"], r["corruption"], r["column"], r["kind"], r["what"]): r for r in rows}
    made = []
    for dataset, corruption, column, kind in dict.fromkeys(key[:4] for key in by):
        both = [by[dataset, corruption, column, kind, what] for what in ("auc", "ap")]
        cells = [_shown({**one, "p_holm": None}) for one in both]
        made.append([f"{plain(dataset)}, {plain(corruption)}, {plain(column)}", plain(kind), *cells])
    return ["## What scores find", "", *_grid(["world, score", "planted", "AUC", "average precision"], made)]


def losses(tables: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return (table, row) of every result that is worse than random's beyond chance."""
    return [(table, row) for table in tables for row in table["rows"] if "−" in verdict(row, table["lower"])]


def _losses(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            f"{plain(table['dataset'])}, {plain(table['corruption'])}, {plain(row['selector'])}",
            table["measure"],
            f"{100 * row['budget']:g} %",
            f"{row['over_random']:+.3f}",
        ]
        for table, row in losses(tables)
    ]
    if not rows:
        return ["## Where random wins", "", "Nowhere beyond chance."]
    return ["## Where random wins", "", *_grid(["world, selector", "measure", "budget", "difference"], rows)]
