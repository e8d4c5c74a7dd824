"""Methods that cover the embedding space. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {
    "kcenter": Entry(
        "curate_selectors.kcenter:KCenter",
        ("subset",),
        ("embeddings",),
        "Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; Sener & Savarese, ICLR 2018, arXiv:1708.00489",
        "Farthest-point traversal: each pick is the candidate farthest from all earlier picks.",
    ),
}
