"""The report as one HTML file: a pool's decisions, gathered and poured into the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import UsageError
from curate.files import atomic_write
from curate.report.text import Cell, Table, percent, shown, stored, visible

if TYPE_CHECKING:
    import polars as pl

    from curate.pool import Pool

_MOST_PICTURES = 4_300_000  # characters of all pictures; the whole file stays below 6 MB
_PER_REASON, _BORDERLINE, _RANDOM = 12, 8, 8
_MENDED, _PER_CHANGE = 12, 16
_CHOSEN = 48
_MOST_SOURCES = 20
_LIBRARIES = ("numpy", "scipy", "polars", "pylance", "faiss-cpu", "torch", "onnxruntime", "pillow")
_MANIFEST_PIXELS = 100_000_000
_NO_SCORES = {"decision": "admit", "pvi": None, "s1_label": None, "quality_contrast": None, "quality_sharpness": None}
_EMPTY: dict[str, Any] = {
    "extra": (), "histograms": [], "maps": [], "curves": [], "mended": [], "mended_total": 0, "classes": [],
    "chosen": [], "groups": [], "refusals": [], "refused_title": "Refused samples", "selection": None,
}  # fmt: skip
_EPSILON = "Epsilon is the distance, 1 − cosine, within which two samples are near duplicates."


def write_report(
    pool: Pool | str | Path,
    out: str | Path,
    *,
    manifest: str | Path | None = None,
    title: str = "Curation report",
    extra: Sequence[Table] = (),
) -> Path:
    """Write what a pool decided as one HTML file that needs no network and no script; return its path.

    Equal pools, manifests and stored images give equal bytes. A few columns of every row are held in memory.

    Args:
        manifest: a manifest of this pool, to show what was selected.
        extra: tables to show after the figures.

    Raises:
        PoolError: there is no pool. ManifestError: the manifest is missing or damaged.
        UsageError: the file cannot be written.
    """
    from curate.manifest import manifest_info, read_manifest
    from curate.pool import Pool

    pool = pool if isinstance(pool, Pool) else Pool.open(pool)
    # Of an image that is there as several crops, the first.
    chosen = None if manifest is None else read_manifest(manifest).unique("uid", keep="first", maintain_order=True)
    info = None if manifest is None else manifest_info(manifest)
    return _written(out, _content(pool, chosen) | {"title": title, "selection": info, "extra": extra})


def report_manifest(manifest: str | Path, out: str | Path, *, moved: Mapping[str, str] | None = None) -> Path:
    """Write what a manifest selected, without its pool, as one HTML file; return its path.

    moved: {old root: new root} of sources that lie elsewhere now. Raises as `write_report` does.
    """
    import polars as pl

    from curate.manifest import manifest_info, manifest_roots, read_manifest
    from curate.report import pictures, survey
    from curate.report.thumbnails import Thumbnails

    info, rows = manifest_info(manifest), read_manifest(manifest).unique("uid", keep="first", maintain_order=True)
    thumbnails = Thumbnails(manifest_roots(info, moved), _MANIFEST_PIXELS, _MOST_PICTURES)
    state: dict[str, Any] = {"checkpoint": None, "classes": []}
    shown_rows = rows[survey.spread(list(range(rows.height)), _CHOSEN)].to_dicts()
    seen = rows.with_columns(pl.lit("admit").alias("decision"))
    told = [(key, json.dumps(info[key])) for key in ("method", "params", "budget", "seed", "candidates") if key in info]
    content = {
        "headline": [(f"{rows.height:,}", "selected", stored(int(rows["size"].sum() or 0)))],
        "funnel": [],
        "histograms": survey.histograms(seen, state),
        "classes": survey.class_balance(seen, None, state),
        "chosen": pictures.tiles([{**_NO_SCORES, **row} for row in shown_rows], thumbnails, state),
        "colophon": [
            Table("Selection", ("what", "value"), told),
            Table("Sources", ("source", "kind"), [(s["id"], s["kind"]) for s in info.get("sources", ())]),
        ],
    }
    told_of = {"method": "an unnamed method", "budget": "not told", "candidates": {"rows": "untold"}} | info
    return _written(out, content | {"title": "Selection report", "selection": told_of})


def report_diff(pool: Pool | str | Path, first: int | str, second: int | str, out: str | Path) -> Path:
    """Write how two versions of a pool differ as one HTML file, with samples that were decided anew; return its path.

    Raises as `write_report` does, and UsageError for a version that is not there.
    """
    from curate.engine.timeline import changes
    from curate.pool import Pool
    from curate.report import pictures, survey
    from curate.report.thumbnails import Thumbnails

    pool = pool if isinstance(pool, Pool) else Pool.open(pool)
    told, moved = changes(pool, first, second)
    state = pool.state()
    roots = {name: source["root"] for name, source in state["sources"].items()}
    thumbnails = Thumbnails(roots, state["recipe"]["limits"]["max_pixels"], _MOST_PICTURES)
    groups = []
    for name, uids in moved.items():
        found = pictures.detailed(pool, "uid", survey.spread(uids, _PER_CHANGE))
        tiles = [("", pictures.tiles(found, thumbnails, state))]
        groups.append({"name": name, "words": "", "rows": len(uids), "parts": tiles})
    rows = [(name, _plain(told[name])) for name in ("rows", "added", "gone", "columns_added", "recipe")]
    content = {
        "headline": [
            (f"{sum(map(len, moved.values())):,}", "decided anew", ""),
            (f"{told['added']['rows']:,}", "added", ""),
        ],
        "funnel": [],
        "extra": [Table("What differs", ("what", "from the first to the second"), rows)],
        "refusals": groups,
        "refused_title": "Decided anew",
        "colophon": _colophon(pool, state),
    }
    return _written(out, content | {"title": f"Versions {told['versions'][0]} and {told['versions'][1]}"})


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _written(out: str | Path, content: dict[str, Any]) -> Path:
    """Pour content into the template and write it."""
    page = _render({**_EMPTY, **content})
    path = Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, page.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {error}") from error
    return path


def _render(content: dict[str, Any]) -> str:
    """Return the template filled in. Every value is escaped, and what is invisible in it made visible."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    here = files("curate.report")
    loader = FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8"))
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "share": lambda share: percent(share, 1)}
    return environment.get_template("template.html").render(content)


def _content(pool: Pool, manifest: pl.DataFrame | None) -> dict[str, Any]:
    """Return everything the template shows of a pool and a manifest."""
    from curate.report import curves, maps, pictures, survey
    from curate.report.thumbnails import Thumbnails

    state, rows = pool.state(), survey.read_rows(pool)
    roots = {name: source["root"] for name, source in state["sources"].items()}
    thumbnails = Thumbnails(roots, state["recipe"]["limits"]["max_pixels"], _MOST_PICTURES)
    picked = (
        [] if manifest is None else pictures.detailed(pool, "uid", survey.spread(manifest["uid"].to_list(), _CHOSEN))
    )
    chosen = pictures.tiles(picked, thumbnails, state)
    groups = pictures.duplicate_groups(pool, thumbnails)
    refusals = []
    for reason, count in survey.ordered_reasons(rows).items():
        parts = []
        for name, numbers in survey.looks(rows, reason, state, (_PER_REASON, _BORDERLINE, _RANDOM)):
            parts.append((name, pictures.tiles(pictures.detailed(pool, "row", numbers), thumbnails, state)))
        refusals.append({"name": reason, "words": survey.REASONS.get(reason, ""), "rows": count, "parts": parts})
    mended, total = pictures.mended(pool, thumbnails, _MENDED)
    picks = None if manifest is None else manifest["uid"].to_list()
    lines = [curves.gain_over_time(pool, rows), curves.coverage(pool, picks) if picks else None]
    return {
        "headline": _headline(rows, manifest),
        "funnel": survey.funnel(rows, None if manifest is None else manifest.height),
        "histograms": survey.histograms(rows, state),
        "maps": maps.pool_maps(pool, rows),
        "curves": [curve for curve in lines if curve is not None],
        "mended": mended,
        "mended_total": total,
        "classes": survey.class_balance(rows, manifest, state),
        "chosen": chosen,
        "groups": groups,
        "refusals": refusals,
        "colophon": _colophon(pool, state),
    }


def _headline(rows: pl.DataFrame, manifest: pl.DataFrame | None) -> list[tuple[str, str, str]]:
    """Return (figure, name, remark) of the few numbers to see first."""
    import polars as pl

    seen, admitted = rows.height, rows.filter(pl.col("decision") == "admit")
    size, kept = int(rows["size"].sum()), int(admitted["size"].sum())
    figures = [
        (f"{seen:,}", "seen", stored(size)),
        (f"{seen - admitted.height:,}", "refused", percent(seen - admitted.height, seen)),
        (f"{admitted.height:,}", "admitted", f"{percent(admitted.height, seen)}, {stored(kept)}"),
    ]
    if manifest is not None:
        remark = f"{percent(manifest.height, seen)}, {stored(int(manifest['size'].sum()))}"
        figures.append((f"{manifest.height:,}", "selected", remark))
    return figures


def _colophon(pool: Pool, state: dict[str, Any]) -> list[Table]:
    """Return the tables that say how to get the same result again."""
    from curate import __version__

    encoders = [
        (view, made["name"], made["dim"], f"{made['epsilon']:.4g}", made["fingerprint"])
        for view in ("image", "text")
        if (made := state[view])
    ]
    sources = [(name, source["kind"], source["position"]) for name, source in sorted(state["sources"].items())]
    left = len(sources) - _MOST_SOURCES
    more = f"and {left:,} more" if left > 0 else ""
    versions: list[tuple[Cell, ...]] = [
        ("curate-engine", __version__),
        *((name, _version(name)) for name in _LIBRARIES),
    ]
    return [
        Table("Encoders", ("view", "name", "dimensions", "epsilon", "fingerprint"), encoders, _EPSILON),
        Table("Sources", ("source", "kind", "rows read"), sources[:_MOST_SOURCES], more),
        _recipe(state["recipe"]),
        Table("Versions", ("what", "version"), [*versions, ("version of the pool", pool.version)]),
    ]


def _recipe(stored_tables: dict[str, dict[str, Any]]) -> Table:
    """Return every key that the pool's decisions depend on, and its default where that is another."""
    from curate.recipe import Recipe, recipe_from_dict

    recipe, defaults = recipe_from_dict(stored_tables), Recipe().binding()
    tables = recipe.binding()
    keys = [(table, key) for table in sorted(stored_tables) for key in sorted(tables[table])]
    rows = [
        (f"{table}.{key}", _setting(value), "" if value == defaults[table][key] else _setting(defaults[table][key]))
        for table, key in keys
        for value in (tables[table][key],)
    ]
    return Table("Recipe", ("key", "value", "default, where it differs"), rows, f"Digest {recipe.digest()}")


def _setting(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value:,}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
