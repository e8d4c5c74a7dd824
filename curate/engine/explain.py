"""`why`: everything that was decided about one sample, against what, by which scores and thresholds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from curate.engine.mend import MEND
from curate.hashing import look_alike_epsilon
from curate.pool import Pool, vectors
from curate.recipe import Recipe
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.types import Candidates

_PLACE = ("uid", "key", "source", "path", "offset", "size", "width", "height", "format", "caption", "label", "group")
_ORIGINALS = ("caption_original", "label_original")
_SENTENCES = {
    "admitted": "it is decodable, new, and passed every gate",
    "warmup": "it is held back until the caption gate has seen enough pairs; the next checkpoint decides",
    "exact_duplicate": "its pixels, or the vector that was given of it, equal those of a kept sample",
    "near_duplicate": "a kept sample lies within the near-duplicate distance",
    "caption_mismatch": "image and caption tell less about each other than the threshold asks (pvi, bits)",
    "label_noise": "the image makes its label more surprising than its class's threshold allows (s1_label, bits)",
    "forgotten": "it was taken down",
    "reviewed": "a reviewer dropped it",
    "budget": "limits.max_kept samples were admitted, and its gain did not win it a place among them",
    "eval_leak": "it is too near an image of a registered evaluation set",
    "undecodable": "its bytes do not decode",
    "decoder_crash": "the process that decoded it died twice, the second time while nothing else was decoded",
    "decode_timeout": "decoding took longer than limits.decode_seconds",
    "too_many_pixels": "its header announces more pixels than limits.max_pixels",
    "too_small": "its shorter side is below clean.min_side",
    "low_quality": "it is near-blank, blurred, or of extreme shape",
    "bad_embedding": "the encoder, or the source that gives embeddings, gave NaN or zero",
    "duplicate_key": "its source has this key already",
    "download_failed": "the scrape says that its download failed",
    "missing_file": "the file that its source names does not exist",
    "missing_image": "its record has no image",
    "outside_root": "its path leads out of the source's folder",
    "unreadable_file": "the file cannot be opened",
}


def why(pool: Pool | str | Path, key_or_uid: str) -> dict[str, Any]:
    """Return what happened to a sample: decision, reason, scores, thresholds, the sample that it duplicates, history.

    Raises KeyNotFoundError when no row, or more than one, has this key; name it by uid or `SOURCE:KEY` then.
    """
    pool = pool if isinstance(pool, Pool) else Pool.open(pool)
    row, state = pool.find(key_or_uid), pool.state()
    answer: dict[str, Any] = {name: row[name] for name in _PLACE}
    answer |= {name: row[name] for name in _ORIGINALS if row[name] is not None}
    answer |= {
        "decision": row["decision"],
        "reason": row["reason"],
        "because": _SENTENCES.get(row["reason"], row["reason"]),
    }
    if row["detail"]:
        answer["detail"] = row["detail"]
    answer["scores"] = {name: round(value, 5) for name, value in row.items() if isinstance(value, float)}
    answer["thresholds"] = _thresholds(row, state)
    if row["duplicate_of"]:
        answer["duplicate_of"] = _twin(pool, row)
    answer["would_be_kept"] = _counterfactual(row, answer)
    if row["decision"] == "admit":
        answer["selected_at"] = _selected_at(pool, row)
    answer["history"] = json.loads(row["history"])
    if mended := [entry for entry in answer["history"] if entry["decision"] == MEND]:
        answer["mended"] = mended
    answer["decided_in_batch"] = row["batch"]
    return answer


def _selected_at(pool: Pool, row: dict[str, Any]) -> dict[str, Any]:
    """Return the smallest budget at which `infogrowth` takes an admitted row, by the seed of a recipe's default."""
    table = pool.frame(["uid", "gain"], where="decision = 'admit'").sort("uid")
    data = Candidates(table.height, scores={"gain": table["gain"].fill_null(0.0).to_numpy().astype(np.float32)})
    ranked = InfoGrowth().select(data, data.n, Recipe().select.seed).index
    rank = int(np.flatnonzero(ranked == table["uid"].search_sorted(row["uid"]))[0]) + 1
    return {"method": "infogrowth", "count": rank, "budget": f"{math.ceil(1e4 * rank / data.n) / 100:g}%"}


def _counterfactual(row: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return what would have to be otherwise for a refused row to be kept, all of it together; nothing else speaks."""
    reason, limits = row["reason"], answer["thresholds"]
    way = ""
    if reason == "near_duplicate":
        way = _farther(answer.get("duplicate_of", {}), limits)
    elif reason == "budget":
        way = f"a larger limits.max_kept (it is {limits['max_kept']})"
    elif reason == "caption_mismatch" and "pvi" in limits:
        way = f"a caption threshold of at most {row['pvi']:.3f} bits (it is {limits['pvi']:.3f})"
    elif reason == "label_noise" and "s1_label" in limits:
        way = f"a threshold of its class of at least {row['s1_label']:.3f} bits (it is {limits['s1_label']:.3f})"
    elif reason == "too_small":
        way = f"clean.min_side of at most {min(row['width'] or 0, row['height'] or 0)} (it is {limits['min_side']})"
    elif reason == "low_quality":
        return _better(row, limits)
    return [way] if way else []


def _farther(twin: dict[str, Any], limits: dict[str, Any]) -> str:
    """Return by which distances a row would not be a near duplicate; "" where it is no farther away than nothing."""
    image, text = twin.get("image_distance", 0.0), twin.get("text_distance", 0.0)
    ways = []
    if image > 0.0:
        name = "epsilon" if image <= limits["epsilon"] else "epsilon_phash"
        ways.append(f"dedup.{name} below {image:g} (it is {limits[name]:g})")
        ways += ["dedup.phash = -1"] if name == "epsilon_phash" else []
    if text > 0.0 and limits["match"] == "pair":
        ways.append(f"dedup.epsilon_text below {text:g} (it is {limits['epsilon_text']:g})")
    return " or ".join(ways)


def _better(row: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    width, height = row["width"] or 0, row["height"] or 0
    aspect = max(width, height) / max(min(width, height), 1)
    contrast, sharpness = row["quality_contrast"], row["quality_sharpness"]
    checks = (
        (aspect > limits["max_aspect"], f"clean.max_aspect of at least {aspect:.2f}"),
        (contrast < limits["min_contrast"], f"clean.min_contrast of at most {contrast:.2f}"),
        (sharpness < limits["min_sharpness"], f"clean.min_sharpness of at most {sharpness:.2f}"),
    )
    return [text for fails, text in checks if fails]


def _thresholds(row: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return the thresholds in force now for this row."""
    clean, last = state["recipe"]["clean"], state["checkpoint"]
    dedup, epsilon = state["recipe"]["dedup"], state["image"]["epsilon"]
    found: dict[str, Any] = {
        "epsilon": epsilon,
        "epsilon_phash": look_alike_epsilon(dedup["epsilon_phash"], epsilon),
        "match": dedup["match"],
        "max_kept": state["recipe"]["limits"]["max_kept"],
        "min_side": clean["min_side"],
        "max_aspect": clean["max_aspect"],
        "min_contrast": clean["min_contrast"],
        "min_sharpness": clean["min_sharpness"],
    }
    if row["caption"] is not None and state["text"]:
        found["epsilon_text"] = state["text"]["epsilon"]
    if row["pvi"] is not None and last and last["caption"]:
        found["pvi"] = last["caption"]["value"]
    if row["label"] in state["classes"] and last:
        value = last["classes"].get(str(state["classes"].index(row["label"])))
        if value:
            found["s1_label"] = -value["value"]
    return found


def _twin(pool: Pool, row: dict[str, Any]) -> dict[str, Any]:
    """Return the kept sample that a row duplicates, with the distances between the two."""
    views = [view for view in ("image", "text") if view in pool.columns]
    twin = pool.find(row["duplicate_of"])
    pair = pool.take([row["row"], twin["row"]], views)
    answer = {name: twin[name] for name in ("uid", "key", "source", "path", "offset", "size", "caption", "decision")}
    for view in views:
        mine, theirs = vectors(pair.column(view), pair.schema.field(view).type.list_size)
        if mine.any() and theirs.any():
            answer[f"{view}_distance"] = round(float(1.0 - mine @ theirs), 5)
    return answer
