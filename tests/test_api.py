"""What `curate` offers, what it says that it offers, and what the documents say are one and the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np

import curate

ROOT = Path(__file__).parent.parent


def typed() -> dict[str, str]:
    """{name: module} of what a type checker is told."""
    tree = ast.parse((ROOT / "curate" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {str(name.asname): str(node.module) for node in block.body if isinstance(node, ast.ImportFrom)
            for name in node.names}  # fmt: skip


def test_names_are_the_same_everywhere() -> None:
    assert typed() == curate._LAZY
    assert set(curate.__all__) == {*curate._LAZY, "__version__"}
    assert curate.__all__ == sorted(curate.__all__)
    table = (ROOT / "docs" / "python.md").read_text(encoding="utf-8").partition("## Curator")[0]
    told = re.findall(r"`([A-Za-z_]+)[`(.]", "\n".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    assert sorted(told) == sorted(curate._LAZY)


def test_every_name_is_there_and_explains_itself() -> None:
    for name in curate._LAZY:
        assert (getattr(curate, name).__doc__ or "").strip(), name


def test_example_of_the_estimator_runs() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"curate": curate, "x": np.random.default_rng(0).normal(size=(50, 4)), "y": np.arange(50)}
    exec(code[0], names)
    assert names["x_less"].shape == (5, 4)  # type: ignore[attr-defined]
    assert len(code) == 1
