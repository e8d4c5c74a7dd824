"""Methods by the training dynamics of a probe. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

_HERE = "curate_selectors.training"
_PAUL = "Paul et al., NeurIPS 2021, arXiv:2107.07075"


def _ranked(cls: str, paper: str, summary: str) -> Entry:
    """Return the row of a method that ranks by the score that its parameter `column` names."""
    return Entry(f"{_HERE}.ranked:{cls}", ("subset",), ("score:{column}",), paper, summary)


METHODS: dict[str, Entry] = {
    "el2n": _ranked("El2n", _PAUL, "The largest errors of a leave-one-out probe."),
    "margin": _ranked("Margin", "Coleman et al., ICLR 2020, arXiv:1906.11829", "The smallest margins of a probe."),
    "entropy": _ranked("Entropy", "Coleman et al., ICLR 2020, arXiv:1906.11829", "The least certain predictions."),
    "in-run-shapley": _ranked(
        "InRunShapley", "Wang et al., ICLR 2025, arXiv:2406.11011", "The rows worth most in a probe's training."
    ),
    "knn-shapley": _ranked(
        "KnnShapley", "Jia et al., VLDB 2019, arXiv:1908.08619", "The rows worth most to nearest neighbours."
    ),
    "bayes": _ranked(
        "Bayes",
        "Deng et al., NeurIPS 2023, arXiv:2308.10544; Mindermann et al., ICML 2022, arXiv:2206.07137",
        "The rows from which most is to be learned that is not noise.",
    ),
    "grand": Entry(
        f"{_HERE}.dynamics:Grand",
        ("subset",),
        ("embeddings", "labels"),
        _PAUL,
        "The largest gradients early in the training of a probe.",
    ),
    "forgetting": Entry(
        f"{_HERE}.dynamics:Forgetting",
        ("subset",),
        ("embeddings", "labels"),
        "Toneva et al., ICLR 2019, arXiv:1812.05159",
        "The rows that a probe forgets most often.",
    ),
    "craig": Entry(
        f"{_HERE}.craig:Craig",
        ("subset",),
        ("embeddings", "labels"),
        "Mirzasoleiman et al., ICML 2020, arXiv:1906.01827",
        "Medoids of the gradients, weighted by how many rows each stands for.",
        nested=False,
    ),
    "gradmatch": Entry(
        f"{_HERE}.gradmatch:GradMatch",
        ("subset",),
        ("embeddings", "labels"),
        "Killamsetty et al., ICML 2021, arXiv:2103.00123",
        "Few weighted rows whose gradients sum to that of all.",
        nested=False,
    ),
    "glister": Entry(
        f"{_HERE}.glister:Glister",
        ("subset",),
        ("embeddings", "labels"),
        "Killamsetty et al., AAAI 2021, arXiv:2012.10630",
        "Rows whose gradient step lowers the loss on a validation set.",
    ),
    "infobatch": Entry(
        f"{_HERE}.infobatch:InfoBatch",
        ("subset",),
        ("score:{score}",),
        "Qin et al., ICLR 2024, arXiv:2303.04947",
        "Well-learned rows thinned at random, hard ones kept, sums unbiased.",
        draws=True,
    ),
}
