"""The results as one HTML file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from curate.benchmark.charts import budget_chart, class_bars, style
from curate.benchmark.definition import EVERYTHING
from curate.benchmark.tables import costs, losses
from curate.errors import UsageError
from curate.files import atomic_write


def write_page(path: Path, results: Mapping[str, Any], times: Sequence[Mapping[str, Any]]) -> None:
    """Write the page. Raises UsageError where it cannot be written."""
    page = _render(_content(results, times))
    try:
        atomic_write(path, page.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"the page cannot be written to {path}: {error}") from error


def _render(content: Mapping[str, Any]) -> str:
    """Return the template filled in. Every value is escaped, and what is invisible in it made visible."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    from curate.report.text import shown, visible

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def load(name: str) -> str:
        package = "curate.report" if name == "style.css" else "curate.benchmark"
        return files(package).joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown}
    return environment.get_template("page.html").render(content)


def _content(results: Mapping[str, Any], times: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    selectors = results["definition"]["selector"]
    styles = style(list(selectors))
    full = next((k for k, one in selectors.items() if one["method"] == EVERYTHING and not one["gate"]), None)
    charts = [budget_chart(table, styles, full) for table in results["tables"]]
    return {
        "title": results["name"],
        "digest": results["digest"],
        "bench": results["definition"]["bench"],
        "charts": charts,
        "savings": _savings(results["tables"]),
        "ranks": results["ranks"],
        "compositions": _compositions(results["composition"]),
        "costs": _cost_bars(times),
        "losses": losses(results["tables"]),
        "detection": [row for row in results["detection"] if row["what"] == "auc"],
        "problems": results["problems"],
        "environment": results["environment"],
    }


def _savings(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the compute multipliers of each table that has one."""
    found = []
    for table in tables:
        reached = {name: value for name, value in table["multiplier"].items() if value is not None}
        if reached:
            widest = max(reached.values())
            bars = [
                (name, f"{value:.1f}x", round(100 * value / widest, 2))
                for name, value in sorted(reached.items(), key=lambda item: (-item[1], item[0]))
            ]
            found.append({"title": f"{table['dataset']}, {table['corruption']}: {table['measure']}", "bars": bars})
    return found


def _compositions(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one group of bars a world and budget."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in rows:
        told = {
            "selector": row["selector"],
            "rows": round(row["rows"]),
            "bad": row["shares"].get("share_bad", 0.0),
            "copies": row["shares"].get("copies", 0.0),
            "bars": class_bars(row["classes"]) if row["classes"] else [],
        }
        groups.setdefault((row["dataset"], row["corruption"], row["budget"]), []).append(told)
    return [
        {"title": f"{dataset}, {corruption}, {100 * budget:g} %", "rows": made}
        for (dataset, corruption, budget), made in groups.items()
    ]


def _cost_bars(times: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = costs(times)
    widest = max((scores + own for *_, scores, own in found), default=1.0) or 1.0
    return [
        {
            "name": f"{dataset}, {selector}",
            "scores": f"{scores:.3f}",
            "own": f"{own:.3f}",
            "first": round(100 * scores / widest, 3),
            "second": round(100 * own / widest, 3),
        }
        for dataset, selector, scores, own in found
    ]
