"""Every score by name: a literal table, so that listing the scores imports none of them."""

from __future__ import annotations

from dataclasses import dataclass

Column = tuple[str, str, str]  # name, unit, what a higher value means


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table: where the class is, its columns, what it needs, what it says, and who wrote it."""

    target: str
    columns: tuple[Column, ...]
    needs: tuple[str, ...]
    summary: str
    paper: str


_V = "Xu et al., ICLR 2020, arXiv:2002.10689; Ethayarajh et al., ICML 2022, arXiv:2110.08420"


def _information(view: str, of: str) -> tuple[Column, ...]:
    """Return the three columns that every V-information family stores for a view."""
    return (
        (f"s0_{view}", "bits", f"{of} is more unusual, whatever it goes with"),
        (f"s1_{view}", "bits", f"{of} is more surprising given the rest: harder, or wrong"),
        (f"pvi_{view}", "bits", f"the rest tells more about {of}: cleaner"),
    )


SCORES: dict[str, Entry] = {
    "align": Entry(
        "curate.scores.information:Alignment",
        (("align", "cosine", "caption and image fit better"),),
        ("image", "text"),
        "Cosine of caption and image; where their spaces differ, of the caption and its leave-one-out prediction.",
        "Hessel et al., EMNLP 2021, arXiv:2104.08718",
    ),
    "anomaly": Entry(
        "curate.scores.cleanness:Anomaly",
        (
            ("anomaly", "variances", "stranger, among all samples"),
            ("anomaly_class", "variances", "stranger, among those of its label"),
            ("anomaly_relative", "variances", "explained worse by the classes than by none"),
        ),
        ("image",),
        "Mahalanobis distances, leave-one-out; to the classes only where there are labels.",
        "Lee et al., NeurIPS 2018, arXiv:1807.03888; Ren et al., 2021, arXiv:2106.09022",
    ),
    "ask": Entry(
        "curate.scores.learned:Ask",
        (("ask", "probability", "a language or vision-language model would rather train on it"),),
        ("caption", "model"),
        "Probability that a model answers yes to: is this useful training data?",
        "Sachdeva et al., 2024, arXiv:2402.09668",
    ),
    "bayes": Entry(
        "curate.scores.cleanness:Bayes",
        (("bayes", "bits", "more to be learned from it that is not noise"),),
        ("image", "label"),
        "Reducible surprise of the label under a Bayesian linear probe, against class prototypes.",
        "Deng et al., NeurIPS 2023, arXiv:2308.10544",
    ),
    "captions": Entry(
        "curate.scores.quality:Captions",
        (
            ("caption_chars", "characters", "longer"),
            ("caption_words", "words", "longer"),
            ("caption_repetition", "share", "more repeated words"),
            ("caption_nontext", "share", "more digits, symbols, addresses, file names"),
            ("caption_caps", "share", "more capitals"),
            ("caption_shared", "samples", "more captions equal to it but for digits: boilerplate"),
        ),
        ("caption",),
        "What a caption looks like, without a model.",
        "after DataComp's basic filter, arXiv:2304.14108",
    ),
    "column": Entry(
        "curate.scores.information:ColumnInformation",
        _information("<column>", "the value"),
        ("image", "column"),
        "V-information of any metadata column given the image: values that do not fit are found.",
        _V,
    ),
    "density": Entry(
        "curate.scores.density:Density",
        (("density", "share", "more kept samples are like it"),),
        ("image",),
        "RACE sketch over signs of random projections: one pass, 2 MB.",
        "Coleman & Shrivastava, WWW 2020, arXiv:1912.02283; Sachdeva et al., 2024, arXiv:2402.09668",
    ),
    "density-kde": Entry(
        "curate.scores.density:KernelDensity",
        (("density_kde", "share", "more kept samples are like it"),),
        ("image",),
        "Exact Gaussian kernel density: quadratic, the reference for `density`.",
        "Parzen 1962, doi:10.1214/aoms/1177704472",
    ),
    "density-knn": Entry(
        "curate.scores.density:NeighborDensity",
        (("density_knn", "cosine", "its nearest kept samples are nearer"),),
        ("image",),
        "Mean cosine to the k nearest kept samples, exact.",
        "Loftsgaarden & Quesenberry 1965, doi:10.1214/aoms/1177700079",
    ),
    "hard-negative": Entry(
        "curate.scores.cleanness:HardNegative",
        (
            ("negative_margin", "cosine", "more like another class than like its own"),
            ("positive_distance", "1 - cosine", "farther from the target set"),
        ),
        ("image", "label"),
        "Margin between the nearest other class's prototype and its own; distance to a target set where one is given.",
        "Robinson et al., ICLR 2021, arXiv:2010.04592",
    ),
    "head": Entry(
        "curate.scores.learned:HeadScore",
        (("head_<title>", "the head's", "what the head was trained for"),),
        ("image", "file"),
        "A linear or small MLP head over the embeddings, from a safetensors file: aesthetics, safety.",
        "Schuhmann et al., NeurIPS 2022, arXiv:2210.08402",
    ),
    "importance": Entry(
        "curate.scores.density:Importance",
        (("importance", "nats", "more typical of the target set than of this collection"),),
        ("image", "target"),
        "Log ratio of two sketched densities: importance resampling.",
        "Xie et al., NeurIPS 2023, arXiv:2302.03169",
    ),
    "in-run-shapley": Entry(
        "curate.scores.cleanness:InRunShapley",
        (("shapley_in_run", "nats", "took more off the target set's loss"),),
        ("image", "label", "target"),
        "Shapley value of each sample in the training of a linear probe, by ghost dot products.",
        "Wang et al., ICLR 2025, arXiv:2406.11011",
    ),
    "knn-shapley": Entry(
        "curate.scores.cleanness:NeighborShapley",
        (("shapley_knn", "accuracy", "adds more to a nearest-neighbour classifier of the target set"),),
        ("image", "label", "target"),
        "Exact Shapley value for a k-nearest-neighbour classifier.",
        "Jia et al., VLDB 2019, arXiv:1908.08619",
    ),
    "leverage": Entry(
        "curate.scores.density:Leverage",
        (
            ("leverage", "ratio", "the kept samples span its direction less"),
            ("logdet_gain", "nats", "adds more to the log-determinant of the kept set"),
        ),
        ("image",),
        "Ridge leverage and log-det gain against the kept samples; in them, leave-one-out.",
        "Cohen et al., APPROX 2016, arXiv:1604.05448; Chen et al., NeurIPS 2018, arXiv:1709.05135",
    ),
    "mislabel": Entry(
        "curate.scores.cleanness:Mislabel",
        (
            ("label_confidence", "probability", "the label is likelier"),
            ("label_margin", "probability", "the label leads the others more"),
            ("label_entropy", "ratio", "the label is likelier, weighted by certainty"),
            ("label_issue", "0 or 1", "a label error by the confident joint"),
        ),
        ("image", "label"),
        "Confident learning on leave-one-out probabilities of a linear probe.",
        "Northcutt et al., JAIR 2021, arXiv:1911.00068",
    ),
    "negclip": Entry(
        "curate.scores.information:NegClip",
        (*_information("infonce", "the pair"), ("partition_infonce", "bits", "goes with everything")),
        ("image", "text"),
        "negCLIPLoss: V-information of a contrastive family; both encoders in one space.",
        "Wang et al., NeurIPS 2024, arXiv:2405.19547",
    ),
    "normsim": Entry(
        "curate.scores.density:NormSim",
        (
            ("normsim_2", "norm", "more like the target set as a whole"),
            ("normsim_inf", "|cosine|", "more like, or more opposite to, one target sample"),
        ),
        ("image", "target"),
        "Norm of the similarities to a target set.",
        "Wang et al., NeurIPS 2024, arXiv:2405.19547",
    ),
    "novelty": Entry(
        "curate.scores.density:Novelty",
        (("novelty", "1 - cosine", "farther from its nearest kept sample"),),
        ("image",),
        "Distance to the nearest other kept sample, exact.",
        "Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5",
    ),
    "probe": Entry(
        "curate.scores.cleanness:Probe",
        (
            ("el2n", "norm", "harder"),
            ("margin", "probability", "easier"),
            ("entropy", "bits", "less certain"),
            ("confidence", "probability", "easier"),
        ),
        ("image", "label"),
        "Errors of a linear probe on each sample, leave-one-out, without a training run.",
        "Paul et al., NeurIPS 2021, arXiv:2107.07075",
    ),
    "prompts": Entry(
        "curate.scores.learned:Prompts",
        (("prompts", "probability", "more like the positive prompts than like the negative ones"),),
        ("image", "text encoder"),
        "Zero-shot classification of an image by two lists of prompts.",
        "Radford et al., ICML 2021, arXiv:2103.00020",
    ),
    "quality": Entry(
        "curate.scores.quality:ImageQuality",
        (
            ("quality_contrast", "0-255", "wider range of luminance; low is near-blank"),
            ("quality_sharpness", "0-255", "sharper"),
            ("quality_brightness", "0-255", "brighter"),
            ("quality_entropy", "bits", "more tones"),
            ("quality_colourfulness", "0-255", "more colourful; 0 is grey"),
            ("quality_clipped", "share", "more black or white pixels: badly exposed"),
            ("quality_aspect", "ratio", "longer and narrower"),
        ),
        ("pixels",),
        "What an image looks like, without a model; each is decoded where it lies.",
        "Hasler & Suesstrunk 2003, doi:10.1117/12.477378 (colourfulness)",
    ),
    "vas": Entry(
        "curate.scores.density:Vas",
        (("vas", "variance", "lies more in the target set's directions"),),
        ("image", "target"),
        "Variance alignment with a target set.",
        "Wang et al., 2024, arXiv:2402.02055",
    ),
    "vinfo": Entry(
        "curate.scores.information:Information",
        (
            *_information("text", "the caption"),
            *_information("image", "the image"),
            *_information("label", "the label"),
            ("pvi", "bits", "image and caption tell more about each other: cleaner"),
        ),
        ("image", "text or label"),
        "V-information of captions (linear-Gaussian, both ways, leave-one-out) and of labels: `pvi_label`"
        " is that of the linear discriminant alone, `s1_label` also hears the nearest rows.",
        _V,
    ),
    "vinfo-learned": Entry(
        "curate.scores.information:LearnedInformation",
        (
            *_information("learned", "the pair"),
            ("pvi_joint", "quartile ranges", "the learned and the linear family together find it cleaner"),
        ),
        ("image", "text"),
        "V-information of a pair under two small heads trained with InfoNCE, cross-fitted.",
        f"{_V}; van den Oord et al. 2018, arXiv:1807.03748",
    ),
    "vinfo-self": Entry(
        "curate.scores.information:SelfInformation",
        _information("self", "a part of the embedding"),
        ("image",),
        "V-information between the blocks of one embedding, cluster by cluster: no caption, no label.",
        _V,
    ),
    "vinfo-vote": Entry(
        "curate.scores.cleanness:Vote",
        _information("vote", "the label"),
        ("image", "label"),
        "V-information of a label given those of the nearest samples; bounded, kind to rare classes.",
        _V,
    ),
}
