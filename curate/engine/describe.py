"""`info`: what a pool or a manifest holds."""

from __future__ import annotations

from typing import Any

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
