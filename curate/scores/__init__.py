"""Every score by name: on arrays (`curate.score`) and on pools (`curate score`), which keep them as columns."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Once loaded, this package hides the function `curate.scores`; so it answers in its place."""

    def __call__(self) -> list[dict[str, Any]]:
        """Return `curate.scores.registry.scores()`."""
        from curate.scores.registry import scores

        return scores()


sys.modules[__name__].__class__ = _Callable
