"""Look-alikes by perceptual hash, and which of several duplicates is kept."""

from pathlib import Path

import polars as pl
import pytest
from pictures import jpeg, picture, write_folder

import curate

SMALL = {"limits": {"batch_size": 8}, "dedup": {"epsilon": 1e-4, "epsilon_phash": 0.5, "phash": 4}}


def grown(base: Path, files: dict[str, bytes], **dedup: object) -> pl.DataFrame:
    """Grow a pool beside its source; return its rows."""
    source = write_folder(base / "s", files)
    curate.grow(source, base / "pool", options=SMALL | {"dedup": SMALL["dedup"] | dedup})
    pool = curate.Pool.open(base / "pool")
    return pool.frame(["key", "uid", "decision", "reason", "duplicate_of", "history", "phash"])


def sizes(seed: int, *sides: int) -> dict[int, bytes]:
    return {side: jpeg(picture(seed)[0].resize((side, side))) for side in sides}


def twins(rows: pl.DataFrame) -> dict[str, str]:
    """Return key -> key of what each refused row duplicates."""
    name = dict(rows.select("uid", "key").iter_rows())
    return {key: name[twin] for key, twin in rows.select("key", "duplicate_of").iter_rows() if twin}


@pytest.mark.parametrize(("bits", "refused"), [(2, ["1_half", "2_grey"]), (-1, [])])
def test_a_smaller_and_a_grey_copy_are_found_by_their_hash(tmp_path: Path, bits: int, refused: list[str]) -> None:
    image = picture(3)[0].resize((192, 192))
    files = {
        "0_first.jpg": jpeg(image),
        "1_half.jpg": jpeg(image.resize((96, 96))),
        "2_grey.jpg": jpeg(image.convert("L")),
    }
    rows = grown(tmp_path, files | {"3_other.jpg": jpeg(picture(8)[0])}, phash=bits)
    found = rows.filter(pl.col("reason") == "near_duplicate")
    assert found["key"].str.strip_suffix(".jpg").to_list() == refused
    assert set(twins(rows).values()) <= {"0_first.jpg"}
    assert rows["decision"][0] == rows["decision"][3] == "admit"


def test_a_hash_without_a_near_embedding_tells_nothing(tmp_path: Path) -> None:
    image = picture(3)[0].resize((192, 192))
    files = {"0.jpg": jpeg(image), "1.jpg": jpeg(image.convert("L"))}
    assert grown(tmp_path, files, epsilon_phash=1e-4)["decision"].to_list() == ["admit", "admit"]


def test_largest_copy_takes_the_place_of_the_kept_one(tmp_path: Path) -> None:
    small, middle, large = sizes(3, 64, 96, 160).values()
    files = {"0.jpg": small, "1.jpg": jpeg(picture(4)[0]), "2.jpg": large, "3.jpg": middle}
    rows = grown(tmp_path, files, keep="largest")
    assert rows.filter(pl.col("decision") == "admit")["key"].to_list() == ["1.jpg", "2.jpg"]
    assert twins(rows) == {"0.jpg": "2.jpg", "3.jpg": "2.jpg"}
    assert '"decision": "admit"' in rows["history"][0]
    # A still larger copy in a later run takes its place in turn.
    write_folder(tmp_path / "s2", {"4.jpg": sizes(3, 200)[200]})
    curate.grow(tmp_path / "s2", tmp_path / "pool")
    rows = curate.Pool.open(tmp_path / "pool").frame(["key", "uid", "decision", "duplicate_of"])
    assert rows.filter(pl.col("decision") == "admit")["key"].to_list() == ["1.jpg", "4.jpg"]
    assert set(twins(rows).values()) == {"4.jpg"}


def test_first_of_equals_stays_and_first_is_the_default(tmp_path: Path) -> None:
    files = {"0.jpg": sizes(3, 96)[96], "1.jpg": jpeg(picture(3)[0], 60), "2.jpg": sizes(3, 160)[160]}
    rows = grown(tmp_path / "a", files)
    assert rows.filter(pl.col("decision") == "admit")["key"].to_list() == ["0.jpg"]
    rows = grown(tmp_path / "b", dict(list(files.items())[:2]), keep="largest")
    assert rows.filter(pl.col("decision") == "admit")["key"].to_list() == ["0.jpg"]


@pytest.mark.parametrize(("rule", "kept"), [("rating", "1.jpg"), ("quality_sharpness", None)])
def test_a_column_or_a_metadata_field_decides(tmp_path: Path, rule: str, kept: str | None) -> None:
    write_folder(tmp_path, {f"{i}.jpg": data for i, data in enumerate(sizes(3, 64, 96, 160).values())})
    table = pl.DataFrame({"path": ["0.jpg", "1.jpg", "2.jpg"], "rating": [0.1, 0.9, None]})
    table.write_csv(tmp_path / "list.csv")
    curate.grow(tmp_path / "list.csv", tmp_path / "pool", options=SMALL | {"dedup": SMALL["dedup"] | {"keep": rule}})
    rows = curate.Pool.open(tmp_path / "pool").frame(["key", "path", "decision", "quality_sharpness"])
    best = kept or rows["path"][rows["quality_sharpness"].arg_max()]
    assert rows.filter(pl.col("decision") == "admit")["path"].to_list() == [best]


def test_a_rule_that_no_row_answers_is_told_and_the_first_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {f"{side}.jpg": data for side, data in sizes(3, 64, 96).items()}
    rows = grown(tmp_path, files, keep="ratign")
    assert rows["decision"].to_list() == ["admit", "refuse"]
    assert "ratign" in caplog.text
