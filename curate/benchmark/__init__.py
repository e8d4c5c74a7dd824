"""Comparing selectors by what they are for: corrupt a collection, select, train on what was selected, test, repeat."""

from __future__ import annotations

from curate.benchmark.definition import Definition, load_definition
from curate.benchmark.run import Benched, run_benchmark

__all__ = ["Benched", "Definition", "load_definition", "run_benchmark"]
