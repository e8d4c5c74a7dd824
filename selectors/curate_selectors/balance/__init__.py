"""Long tail, anomalies, baselines. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {
    "random": Entry(
        "curate_selectors.uniform:Random",
        ("subset",),
        (),
        "baseline",
        "Uniform sampling without replacement: the baseline that every method must beat.",
    ),
}
