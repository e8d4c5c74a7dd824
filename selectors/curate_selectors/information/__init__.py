"""Methods by V-information. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {
    "optidel": Entry(
        "curate_selectors.information.optidel:OptiDel",
        ("subset",),
        ("embeddings", "score:pvi_{view}", "score:s1_{view}"),
        "after arXiv:2408.07107; Chen et al., NeurIPS 2018, arXiv:1709.05135 (log-determinant)",
        "The most diverse rows behind a noise gate, in a window of hardness that budget and epochs set.",
        nested=False,
    ),
    "optidel-patches": Entry(
        "curate_selectors.information.patches:OptiDelPatches",
        ("pool",),
        ("images", "embeddings", "score:pvi_{view}", "score:s1_{view}"),
        "after arXiv:2408.07107",
        "The hardest crops of what optidel chooses, four to a tile, as boxes in the manifest.",
        nested=False,
    ),
    "ivs": Entry(
        "curate_selectors.information.ivs:SetInformation",
        ("subset",),
        ("embeddings",),
        "Xu et al., ICLR 2020, arXiv:2002.10689; Atkinson & Donev, Optimum Experimental Designs, 1992",
        "Greedy V-optimal design: the rows from which a linear model predicts a target set, or all rows, best.",
    ),
}
