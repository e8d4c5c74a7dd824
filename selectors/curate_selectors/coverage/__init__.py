"""Methods that cover the embedding space. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

_SCORED = "score:{score} else embeddings"

METHODS: dict[str, Entry] = {
    "kcenter": Entry(
        "curate_selectors.coverage.kcenter:KCenter",
        ("subset",),
        ("embeddings",),
        "Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; Sener & Savarese, ICLR 2018, arXiv:1708.00489",
        "Farthest-point traversal: each pick is the candidate farthest from all earlier picks.",
    ),
    "facility-location": Entry(
        "curate_selectors.coverage.facility:FacilityLocation",
        ("subset",),
        ("embeddings",),
        "Nemhauser et al. 1978, doi:10.1007/BF01588971; Mirzasoleiman et al., AAAI 2015, arXiv:1409.7938",
        "Greedy maximisation of each candidate's likeness to its nearest pick: lazy, stochastic, sparse or in parts.",
    ),
    "graph-cut": Entry(
        "curate_selectors.coverage.cut:GraphCut",
        ("subset",),
        ("embeddings",),
        "Iyer et al., ALT 2021, arXiv:2006.15412",
        "Greedy maximisation of likeness to all candidates less likeness among the picks.",
    ),
    "log-det": Entry(
        "curate_selectors.coverage.logdet:LogDet",
        ("subset",),
        ("embeddings",),
        "Chen et al., NeurIPS 2018, arXiv:1709.05135",
        "Greedy MAP of a determinantal point process: picks that span the most volume.",
    ),
    "herding": Entry(
        "curate_selectors.coverage.herding:Herding",
        ("subset",),
        ("embeddings",),
        "Welling, ICML 2009, doi:10.1145/1553374.1553517",
        "Picks whose running mean stays close to the mean of all candidates.",
    ),
    "semdedup": Entry(
        "curate_selectors.coverage.semdedup:SemDeDup",
        ("subset",),
        ("embeddings",),
        "Abbas et al. 2023, arXiv:2303.09540",
        "Near duplicates inside k-means clusters go first.",
        tiled=True,
        spread=True,
    ),
    "d4": Entry(
        "curate_selectors.coverage.semdedup:D4",
        ("subset",),
        ("embeddings",),
        "Tirumala et al., NeurIPS 2023, arXiv:2308.12284",
        "Deduplication inside clusters, then the rows farthest from the centres of new clusters.",
    ),
    "prototypes": Entry(
        "curate_selectors.coverage.prototypes:Prototypes",
        ("subset",),
        ("embeddings",),
        "Sorscher et al., NeurIPS 2022, arXiv:2206.14486",
        "Rows farthest from (or nearest to) the centre of their k-means cluster.",
    ),
    "hierarchical": Entry(
        "curate_selectors.coverage.hierarchical:Hierarchical",
        ("subset",),
        ("embeddings",),
        "Vo et al., TMLR 2024, arXiv:2405.15613",
        "Clusters of clusters, with equal budgets from the top down: nearly uniform over the support.",
        draws=True,
        spread=True,
    ),
    "zcore": Entry(
        "curate_selectors.coverage.zcore:ZCore",
        ("subset",),
        ("embeddings",),
        "Griffin et al. 2024, arXiv:2411.15349",
        "Coverage less redundancy, measured by random probes of two dimensions.",
    ),
    "d2": Entry(
        "curate_selectors.coverage.d2:D2",
        ("subset",),
        ("embeddings", _SCORED),
        "Maharana et al., ICLR 2024, arXiv:2310.07931",
        "Difficulty spread along a graph of neighbours, lowered around each pick.",
    ),
    "ccs": Entry(
        "curate_selectors.coverage.ccs:Ccs",
        ("subset",),
        (_SCORED,),
        "Zheng et al., ICLR 2023, arXiv:2210.15809",
        "Equal shares for strata of difficulty, without the hardest rows.",
        draws=True,
    ),
    "moderate": Entry(
        "curate_selectors.coverage.moderate:Moderate",
        ("subset",),
        ("embeddings",),
        "Xia et al., ICLR 2023, openreview:7D5EECbOaf9",
        "Rows whose distance to the mean of their class is nearest to the median.",
    ),
    "dual": Entry(
        "curate_selectors.coverage.dual:Dual",
        ("subset",),
        (_SCORED,),
        "Cho et al., ICML 2025, arXiv:2502.06905",
        "Draws from a Beta window of difficulty that moves to easier rows as the budget shrinks.",
        nested=False,
        draws=True,
    ),
}
