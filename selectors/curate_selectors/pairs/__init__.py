"""Methods for image-text pairs. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {
    "clip-score": Entry(
        "curate_selectors.pairs.scores:ClipScore",
        ("subset",),
        ("score:{column}",),
        "Hessel et al., EMNLP 2021, arXiv:2104.08718; Schuhmann et al., 2021, arXiv:2111.02114",
        "The pairs whose caption and image fit best.",
    ),
    "windowed-kcenter": Entry(
        "curate_selectors.pairs.windowed:WindowedKCenter",
        ("subset",),
        ("embeddings", "text?", "score:{score}"),
        "Sener & Savarese, ICLR 2018, arXiv:1708.00489 (k-center); Sorscher et al., NeurIPS 2022, arXiv:2206.14486; "
        "the composition is ours",
        "k-center over image and caption together, among the best rows by a score: a few for each that is asked for.",
    ),
    "clip-powered": Entry(
        "curate_selectors.pairs.powered:ClipPowered",
        ("subset",),
        ("embeddings", "score:align"),
        "Yang et al., ICLR 2025, arXiv:2410.11215",
        "Alignment plus distance to the nearest neighbours, as z-scores; the learned mask in closed form.",
    ),
    "clip-powered-online": Entry(
        "curate_selectors.pairs.powered:ClipPoweredOnline",
        ("subset",),
        ("embeddings", "score:align"),
        "after Yang et al., ICLR 2025, arXiv:2410.11215",
        "The same in one pass, against a sample of the rows.",
        tiled=True,
    ),
    "negclip": Entry(
        "curate_selectors.pairs.scores:NegClip",
        ("subset",),
        ("score:{column}",),
        "Wang et al., NeurIPS 2024, arXiv:2405.19547",
        "The pairs of the lowest negCLIPLoss: V-information of a contrastive family.",
    ),
    "normsim": Entry(
        "curate_selectors.pairs.scores:NormSim",
        ("subset",),
        ("score:{column}",),
        "Wang et al., NeurIPS 2024, arXiv:2405.19547",
        "The rows most like a target set.",
    ),
    "vas": Entry(
        "curate_selectors.pairs.scores:Vas",
        ("subset",),
        ("score:{column}",),
        "Wang et al., 2024, arXiv:2402.02055",
        "The rows that lie in a target set's directions.",
    ),
    "vas-d": Entry(
        "curate_selectors.pairs.vas:VasD",
        ("subset",),
        ("embeddings",),
        "Wang et al., 2024, arXiv:2402.02055",
        "Variance alignment with what is left, dropping the lowest round by round: no target set.",
    ),
    "datacomp-basic": Entry(
        "curate_selectors.pairs.datacomp:DatacompBasic",
        ("subset",),
        ("captions", "score:width", "score:height"),
        "Gadre et al., NeurIPS 2023, arXiv:2304.14108",
        "English captions of some length, images of some size and shape; uniform among them.",
        draws=True,
    ),
}
