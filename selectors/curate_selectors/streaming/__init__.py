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
        draws=True,
    ),
    "infogrowth-reference": Entry(
        "curate_selectors.infogrowth:InfoGrowthReference",
        ("subset",),
        ("gain or embeddings",),
        "Qin et al., Dataset Growth, ECCV 2024, arXiv:2405.18347",
        "As published: sampling by the gain that each sample had when it arrived.",
        draws=True,
    ),
    "infogrowth-labelled": Entry(
        "curate_selectors.infogrowth:InfoGrowthLabelled",
        ("subset",),
        ("embeddings", "labels"),
        "Qin et al., Dataset Growth, ECCV 2024, arXiv:2405.18347",
        "As published for labelled images: 1 - the share of the own class among the neighbours is added.",
        draws=True,
    ),
    "sieve-streaming": Entry(
        "curate_selectors.streaming.sieve:SieveStreaming",
        ("subset",),
        ("embeddings",),
        "Badanidiyuru et al., KDD 2014; Kazemi et al., ICML 2019, arXiv:1905.00948",
        "Facility location in one pass: 1/2 - ε of the best value at least, whatever the order.",
        nested=False,
        draws=True,
        tiled=True,
    ),
    "reservoir": Entry(
        "curate_selectors.streaming.reservoir:UniformReservoir",
        ("subset",),
        (),
        "Vitter, ACM TOMS 1985, doi:10.1145/3147.3165",
        "Uniform sample of a stream in one pass, its length unknown.",
        draws=True,
    ),
    "density-online": Entry(
        "curate_selectors.streaming.density:DensityOnline",
        ("subset",),
        ("embeddings",),
        "Coleman & Shrivastava, WWW 2020, arXiv:1912.02283; Sachdeva et al., 2024, arXiv:2402.09668",
        "Inverse-propensity sampling by sketched density, in one pass.",
        draws=True,
        tiled=True,
    ),
    "ridge-leverage-online": Entry(
        "curate_selectors.streaming.leverage:RidgeLeverageOnline",
        ("subset",),
        ("embeddings",),
        "Cohen, Musco & Pachocki, APPROX 2016, arXiv:1604.05448",
        "Sampling by how little the rows before span a row's direction, in one pass.",
        draws=True,
        tiled=True,
    ),
}
