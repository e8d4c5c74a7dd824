"""curate: turn a scraped image collection into a small, clean, diverse training set.

    import curate

    curate.grow("scrape/", "pool")                                  # decide every sample, with a reason
    curate.Pool.open("pool").frame(["key", "decision", "reason"])   # read the decisions
    curate.score_pool("pool", ["vinfo", "density"])                 # add scores as columns
    curate.select(x, method="kcenter", budget=0.05).index           # the same selectors on plain arrays
    curate.score(x, "density")["density"]                           # the same scores on plain arrays
    curate.read_manifest("subset/")                                 # what a trainer reads
    curate.verify("subset/").passed                                 # are its samples still where and what they were?
    curate.Curator(method="kcenter", budget=0.1).fit_transform(x)   # the same selectors as scikit-learn has them

Attributes are loaded on first use: `import curate` imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from curate.version import __version__

if TYPE_CHECKING:
    from curate.engine.embed import embed as embed
    from curate.engine.explain import why as why
    from curate.engine.forget import forget as forget
    from curate.engine.grow import grow as grow
    from curate.engine.replay import replay as replay
    from curate.engine.review import review as review
    from curate.engine.timeline import diff as diff
    from curate.engine.timeline import log as log
    from curate.engine.timeline import rollback as rollback
    from curate.engine.timeline import tag as tag
    from curate.estimator import Curator as Curator
    from curate.exports import export as export
    from curate.manifest import read_manifest as read_manifest
    from curate.pool import Pool as Pool
    from curate.recipe import Recipe as Recipe
    from curate.recipe import load_recipe as load_recipe
    from curate.scores.arrays import score as score
    from curate.scores.pools import score_pool as score_pool
    from curate.scores.registry import list_scores as list_scores
    from curate.selection import Constraints as Constraints
    from curate.selection import Quota as Quota
    from curate.selection import select as select
    from curate.selection import select_from_pool as select_from_pool
    from curate.sources.arrays import Arrays as Arrays
    from curate.verification import verify as verify
    from curate_selectors.registry import methods as methods

_LAZY = {
    "Arrays": "curate.sources.arrays",
    "Constraints": "curate.selection",
    "Curator": "curate.estimator",
    "Pool": "curate.pool",
    "Quota": "curate.selection",
    "Recipe": "curate.recipe",
    "diff": "curate.engine.timeline",
    "embed": "curate.engine.embed",
    "export": "curate.exports",
    "forget": "curate.engine.forget",
    "grow": "curate.engine.grow",
    "list_scores": "curate.scores.registry",
    "load_recipe": "curate.recipe",
    "log": "curate.engine.timeline",
    "methods": "curate_selectors.registry",
    "read_manifest": "curate.manifest",
    "replay": "curate.engine.replay",
    "review": "curate.engine.review",
    "rollback": "curate.engine.timeline",
    "score": "curate.scores.arrays",
    "score_pool": "curate.scores.pools",
    "select": "curate.selection",
    "select_from_pool": "curate.selection",
    "tag": "curate.engine.timeline",
    "verify": "curate.verification",
    "why": "curate.engine.explain",
}
__all__ = [
    "Arrays",
    "Constraints",
    "Curator",
    "Pool",
    "Quota",
    "Recipe",
    "__version__",
    "diff",
    "embed",
    "export",
    "forget",
    "grow",
    "list_scores",
    "load_recipe",
    "log",
    "methods",
    "read_manifest",
    "replay",
    "review",
    "rollback",
    "score",
    "score_pool",
    "select",
    "select_from_pool",
    "tag",
    "verify",
    "why",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
