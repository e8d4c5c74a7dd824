"""Methods that decide as samples arrive. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {
    "infogrowth": Entry(
        "curate_selectors.infogrowth:InfoGrowth",
        ("stream", "subset"),
        ("gain or embeddings",),
        "Qin et al., Dataset Growth, ECCV 2024, arXiv:2405.18347",
        "Sampling without replacement by information gain: mean distance to the k nearest kept, drift corrected.",
    ),
    "infogrowth-reference": Entry(
        "curate_selectors.infogrowth:InfoGrowthReference",
        ("subset",),
        ("gain or embeddings",),
        "Qin et al., Dataset Growth, ECCV 2024, arXiv:2405.18347",
        "As published: sampling by the gain that each sample had when it arrived.",
    ),
}
