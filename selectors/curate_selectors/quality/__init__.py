"""Methods by density and quality. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {
    "density": Entry(
        "curate_selectors.quality.density:Density",
        ("subset",),
        ("score:density or embeddings",),
        "Sachdeva et al., 2024, arXiv:2402.09668; Coleman & Shrivastava, WWW 2020, arXiv:1912.02283",
        "Sampling in inverse proportion to the density: even coverage of what there is.",
        draws=True,
        tiled=True,
    ),
    "ask": Entry(
        "curate_selectors.quality.ask:Ask",
        ("subset",),
        ("score:{column}",),
        "Sachdeva et al., 2024, arXiv:2402.09668",
        "What a language or vision-language model would rather train on.",
    ),
    "dsir": Entry(
        "curate_selectors.quality.dsir:Dsir",
        ("subset",),
        ("score:importance or embeddings", "score:importance or target"),
        "Xie et al., NeurIPS 2023, arXiv:2302.03169",
        "Importance resampling towards a target set.",
        draws=True,
        tiled=True,
    ),
    "metaclip": Entry(
        "curate_selectors.quality.metaclip:MetaClip",
        ("subset",),
        ("captions",),
        "Xu et al., ICLR 2024, arXiv:2309.16671",
        "Captions balanced over metadata entries: common ones are capped, rare ones all kept.",
        nested=False,
        draws=True,
    ),
}
