"""Long tail, anomalies, baselines. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

_HERE = "curate_selectors.balance"

METHODS: dict[str, Entry] = {
    "default": Entry(
        f"{_HERE}.default:Default",
        ("subset",),
        ("embeddings", "text?", "score:pvi?", "score:pvi_label?"),
        "Sener & Savarese, ICLR 2018, arXiv:1708.00489; Ethayarajh et al., ICML 2022, arXiv:2110.08420; Wei et al., "
        "ICML 2015 (facility location); the composition is ours",
        "By kind of data: pairs windowed k-center, labelled ones a gate and equal shares, others facility location.",
        draws=True,
    ),
    "water-fill": Entry(
        f"{_HERE}.water:WaterFill",
        ("subset",),
        ("{by}", "score:{score}"),
        "Vo et al., 2024, arXiv:2405.15613 (equal shares); Balinski & Young, Fair Representation, 1982 (divisors)",
        "Every class gives equally many, or all that it has; floors, caps, and shares between equal and proportional.",
        draws=True,
    ),
    "rare-first": Entry(
        f"{_HERE}.water:RareFirst",
        ("subset",),
        ("{by}", "score:{score}"),
        "baseline",
        "All rows of the rarest class, then of the next.",
        draws=True,
    ),
    "stratified-random": Entry(
        f"{_HERE}.water:StratifiedRandom",
        ("subset",),
        ("{by}",),
        "baseline; Neyman 1934, doi:10.2307/2342192 (proportional allocation)",
        "Uniform sampling with each class at its share.",
        draws=True,
    ),
    "hard-negative": Entry(
        f"{_HERE}.extremes:HardNegative",
        ("subset",),
        ("score:{column}",),
        "Robinson et al., ICLR 2021, arXiv:2010.04592",
        "The rows most like another class than their own.",
    ),
    "anomaly-first": Entry(
        f"{_HERE}.extremes:AnomalyFirst",
        ("subset",),
        ("score:{column}",),
        "Lee et al., NeurIPS 2018, arXiv:1807.03888",
        "The strangest rows first: candidates for a look, or for a tail.",
    ),
    "anomaly-last": Entry(
        f"{_HERE}.extremes:AnomalyLast",
        ("subset",),
        ("score:{column}",),
        "Lee et al., NeurIPS 2018, arXiv:1807.03888",
        "The most usual rows first, the strangest last.",
    ),
    "top-score": Entry(
        f"{_HERE}.extremes:AnyScore",
        ("subset",),
        ("score:{column}",),
        "baseline",
        "The highest, or lowest, values of any score.",
    ),
    "random": Entry(
        "curate_selectors.uniform:Random",
        ("subset",),
        (),
        "baseline",
        "Uniform sampling without replacement: the baseline that every method must beat.",
        draws=True,
    ),
}
