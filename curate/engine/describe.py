"""`info`: what a pool or a manifest holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.engine.grow import count_decisions
from curate.errors import PoolError
from curate.manifest import manifest_info
from curate.pool import VIEWS, Pool
from curate.remote import Place, place


def describe(path: str | Place) -> dict[str, Any]:
    """Return {"kind": "pool" | "manifest", …} with counts, versions, encoders and columns.

    Raises PoolError or ManifestError when the path is neither.
    """
    path = place(path)
    if (path / "samples.lance").is_dir():
        return _pool(Pool.open(path))
    if path.is_file() or (path / "manifest.json").is_file():
        info = manifest_info(path)
        return {"kind": "manifest", **{k: v for k, v in info.items() if k != "parts"}, "parts": len(info["parts"])}
    raise PoolError(f"{path} is neither a pool nor a manifest")


def spread_of_scores(path: str | Place, bins: int = 32) -> dict[str, dict[str, Any]]:
    """Return {score: {"low", "high", "counts"}} of a pool's float columns: histograms between the .5 % quantiles."""
    pool = Pool.open(path)
    names = [field.name for field in pool.dataset.schema if str(field.type) == "float"]
    table, found = pool.frame(names), {}
    for name in names:
        values = table[name].drop_nulls().to_numpy()
        values = values[np.isfinite(values)]
        if values.size:
            low, high = (float(q) for q in np.quantile(values, (0.005, 0.995)))
            counts = np.histogram(values, bins, (low, high if high > low else low + 1.0))[0]
            found[name] = {"low": low, "high": high, "counts": counts.tolist()}
    return found


def _pool(pool: Pool) -> dict[str, Any]:
    state = pool.state()
    counts = count_decisions(pool.frame(["decision", "reason"]))
    return {
        "kind": "pool",
        "version": pool.version,
        "rows": pool.rows,
        **counts,
        "encoders": {view: state[view] for view in VIEWS if state.get(view)} | state.get("extra", {}),
        "columns": pool.columns,
        "sources": state["sources"],
        "classes": len(state["classes"]),
        "checkpoint": state["checkpoint"],
        "recipe": state["recipe"],
        "recipe_changes": state["changes"],
        "versions": len(pool.versions()),
    }
