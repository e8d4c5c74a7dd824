"""The main job on small pictures: what is decided, with which reason, and that a second run changes nothing."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pictures import captioned_tar, jpeg, picture, write_folder, write_tar
from PIL import Image

import curate
import curate.manifest
import curate.samples
from curate.engine.state import State
from curate.errors import PoolError, PoolLockedError, PoolMismatchError, SourceError, UsageError
from curate.pool import Writer

SMALL = {"limits": {"batch_size": 16}, "clean": {"captions": False, "labels": False}}


def bomb() -> bytes:
    """Return a PNG whose header announces 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """Return a pool grown from good pictures and every ordinary kind of bad one, and its rows by key."""
    base = tmp_path_factory.mktemp("mixed")
    files = {f"a{seed:02d}.jpg": jpeg(picture(seed)[0]) for seed in range(0, 80, 4)}
    original = Image.open(io.BytesIO(files["a00.jpg"]))
    grey = Image.fromarray(np.asarray(picture(1)[0].convert("L"), dtype=np.uint16) * 257)
    files |= {
        "b_exact.png": png(original),
        "b_near.jpg": jpeg(original, 85),
        "c_zero.jpg": b"",
        "c_text.jpg": b"this is not a picture",
        "c_cut.jpg": files["a04.jpg"][:-400],
        "c_bomb.png": bomb(),
        "d_small.png": png(picture(2)[0].resize((20, 20))),
        "d_blank.png": png(Image.new("RGB", (96, 96), (120, 130, 140))),
        "d_long.png": png(picture(3)[0].resize((600, 40))),
        "e_cmyk.jpg": jpeg(picture(81)[0]),
        "e_16bit.png": png(grey),
        "e_palette.png": png(picture(85)[0].convert("P")),
    }
    stream = io.BytesIO()
    picture(81)[0].convert("CMYK").save(stream, "JPEG", quality=95)
    files["e_cmyk.jpg"] = stream.getvalue()
    source = write_folder(base / "pictures", files)
    curate.grow(source, base / "pool", options=SMALL)
    return base, curate.Pool.open(base / "pool").frame()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("a00.jpg", "admitted"),
        ("b_exact.png", "exact_duplicate"),
        ("b_near.jpg", "near_duplicate"),
        ("c_zero.jpg", "undecodable"),
        ("c_text.jpg", "undecodable"),
        ("c_cut.jpg", "undecodable"),
        ("c_bomb.png", "too_many_pixels"),
        ("d_small.png", "too_small"),
        ("d_blank.png", "low_quality"),
        ("d_long.png", "low_quality"),
        ("e_cmyk.jpg", "admitted"),
        ("e_16bit.png", "admitted"),
        ("e_palette.png", "admitted"),
    ],
)
def test_every_row_is_decided_with_its_reason(mixed: tuple[Path, pl.DataFrame], key: str, reason: str) -> None:
    row = mixed[1].row(by_predicate=pl.col("key") == key, named=True)
    assert row["reason"] == reason
    assert (row["decision"] == "admit") == (reason == "admitted")


def test_duplicates_name_the_kept_sample(mixed: tuple[Path, pl.DataFrame]) -> None:
    rows = {row["key"]: row for row in mixed[1].iter_rows(named=True)}
    assert rows["b_exact.png"]["duplicate_of"] == rows["b_near.jpg"]["duplicate_of"] == rows["a00.jpg"]["uid"]
    assert rows["a00.jpg"]["duplicate_of"] is None


def test_bytes_are_located_and_hashed(mixed: tuple[Path, pl.DataFrame]) -> None:
    base, rows = mixed
    for row in rows.iter_rows(named=True):
        data = (base / "pictures" / row["path"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        assert curate.samples.content_hash(data) == row["sha256"]


def test_refused_rows_keep_their_embeddings(mixed: tuple[Path, pl.DataFrame]) -> None:
    base, rows = mixed
    norm = np.linalg.norm(curate.Pool.open(base / "pool").embeddings("image"), axis=1)
    decodes = ~rows["reason"].is_in(["undecodable", "too_many_pixels"]).to_numpy()
    np.testing.assert_allclose(norm[decodes], 1.0, atol=1e-3)
    assert (norm[~decodes] == 0).all()
    assert (rows["embedded"].to_numpy() == decodes).all()


def test_the_first_gain_is_one_and_later_ones_are_distances(mixed: tuple[Path, pl.DataFrame]) -> None:
    gains = mixed[1].filter(pl.col("decision") == "admit")["gain_arrival"].to_numpy()
    assert gains[0] == 1.0
    assert ((gains[1:] > 0) & (gains[1:] < 1)).all()


def test_a_finished_run_again_is_a_no_op(mixed: tuple[Path, pl.DataFrame]) -> None:
    base, rows = mixed
    before = curate.Pool.open(base / "pool").version
    again = curate.grow(base / "pictures", base / "pool")
    assert (again.seen, again.known, again.admitted, again.refused) == (rows.height, rows.height, 0, {})
    assert curate.Pool.open(base / "pool").version == before == again.version
    assert again.total["rows"] == rows.height


def test_why_names_the_twin_and_the_distance(mixed: tuple[Path, pl.DataFrame]) -> None:
    answer = curate.why(mixed[0] / "pool", "b_near.jpg")
    assert answer["duplicate_of"]["key"] == "a00.jpg"
    assert 0 <= answer["duplicate_of"]["image_distance"] <= answer["thresholds"]["epsilon"]
    assert answer["history"][0]["reason"] == "near_duplicate"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("b_near.jpg", "dedup.epsilon below"),
        ("d_small.png", "clean.min_side of at most 20 (it is 32)"),
        ("d_blank.png", "clean.min_contrast of at most 0"),
        ("d_long.png", "clean.max_aspect of at least 15.00"),
    ],
)
def test_why_says_what_would_have_kept_a_row(mixed: tuple[Path, pl.DataFrame], key: str, told: str) -> None:
    assert any(told in way for way in curate.why(mixed[0] / "pool", key)["would_be_kept"])


@pytest.mark.parametrize("key", ["a00.jpg", "b_exact.png", "c_text.jpg"])
def test_why_says_nothing_where_no_setting_would(mixed: tuple[Path, pl.DataFrame], key: str) -> None:
    assert curate.why(mixed[0] / "pool", key)["would_be_kept"] == []


def test_a_changed_folder_is_compared_with_what_was_decided(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(12)})
    first = curate.grow(source, tmp_path / "pool", options=SMALL)
    (source / "00a.jpg").write_bytes(jpeg(picture(40)[0]))  # sorts between known ones
    (source / "05.jpg").write_bytes(jpeg(picture(41)[0]))  # same key, other bytes
    (source / "07.jpg").unlink()
    second = curate.grow(source, tmp_path / "pool")
    assert first.seen == 12
    assert (second.known, second.seen) == (10, 12)
    rows = curate.Pool.open(tmp_path / "pool").frame(["key", "uid"])
    assert rows.filter(pl.col("key") == "05.jpg").height == 2
    assert rows["uid"].n_unique() == rows.height == 14


def test_a_moved_source_keeps_its_identity(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(5)})
    curate.grow(source, tmp_path / "pool", options=SMALL)
    (tmp_path / "elsewhere").mkdir()
    source.rename(tmp_path / "elsewhere" / "s")
    again = curate.grow(tmp_path / "elsewhere" / "s", tmp_path / "pool")
    assert (again.seen, again.known) == (5, 5)


def test_duplicates_are_found_across_sources_and_runs(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(6)})
    two = write_folder(tmp_path / "two", {"again.jpg": jpeg(picture(3)[0]), "new.jpg": jpeg(picture(30)[0])})
    curate.grow(one, tmp_path / "pool", options=SMALL)
    done = curate.grow(two, tmp_path / "pool")
    assert done.refused == {"exact_duplicate": 1}
    rows = {row["key"]: row for row in curate.Pool.open(tmp_path / "pool").frame().iter_rows(named=True)}
    assert rows["again.jpg"]["duplicate_of"] == rows["3.jpg"]["uid"]


def test_a_pair_is_a_duplicate_only_with_its_caption(tmp_path: Path) -> None:
    data = jpeg(picture(0)[0])
    members = [
        ("a.jpg", data), ("a.txt", b"a red circle on a blue ground"),
        ("b.jpg", data), ("b.txt", b"A red circle, on a blue ground."),
        ("c.jpg", data), ("c.txt", b"the logo of a railway company from 1923"),
    ]  # fmt: skip
    source = write_tar(tmp_path / "s" / "0.tar", members)
    curate.grow(source, tmp_path / "pair")
    reasons = dict(curate.Pool.open(tmp_path / "pair").frame(["key", "reason"]).iter_rows())
    assert reasons == {"a": "admitted", "b": "exact_duplicate", "c": "admitted"}
    curate.grow(source, tmp_path / "image", options={"dedup": {"match": "image"}})
    reasons = dict(curate.Pool.open(tmp_path / "image").frame(["key", "reason"]).iter_rows())
    assert reasons == {"a": "admitted", "b": "exact_duplicate", "c": "exact_duplicate"}


def test_a_tar_with_repeated_keys_loses_nothing(tmp_path: Path) -> None:
    members = [("x.jpg", jpeg(picture(0)[0])), ("y.jpg", jpeg(picture(1)[0])), ("x.jpg", jpeg(picture(2)[0]))]
    done = curate.grow(write_tar(tmp_path / "s" / "0.tar", members), tmp_path / "pool", options=SMALL)
    assert (done.seen, done.admitted, done.refused) == (3, 2, {"duplicate_key": 1})


def test_a_pool_of_another_encoder_refuses_rows(mixed: tuple[Path, pl.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(PoolMismatchError, match=r"encode\.image"):
        curate.grow(mixed[0] / "pictures", mixed[0] / "pool", options={"encode": {"image": "open_clip:RN50/openai"}})
    state = curate.Pool.open(mixed[0] / "pool").state()
    state["image"]["fingerprint"] = "0" * 32  # the same name, other weights
    state["step"] += 1
    pool = tmp_path / "pool"
    with Writer(pool) as writer:
        writer.create(1280, state)
    with pytest.raises(PoolMismatchError, match="fingerprint"):
        curate.grow(mixed[0] / "pictures", pool)


def test_another_recipe_is_refused_unless_asked_for(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(5)})
    curate.grow(source, tmp_path / "pool", options=SMALL)
    with pytest.raises(PoolMismatchError, match=r"clean\.min_side: 48 != 32"):
        curate.grow(source, tmp_path / "pool", options={"clean": {"min_side": 48}})
    curate.grow(source, tmp_path / "pool", options={"clean": {"min_side": 48}}, change_recipe=True)
    state = curate.Pool.open(tmp_path / "pool").state()
    assert state["recipe"]["clean"]["min_side"] == 48
    assert state["changes"] == [{"rows": 5, "changes": ["clean.min_side: 48 != 32"]}]
    with pytest.raises(PoolMismatchError, match="batch size"):
        curate.grow(source, tmp_path / "pool", options={"limits": {"batch_size": 8}}, change_recipe=True)


def test_two_writers_at_once_are_refused_by_name(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {"0.jpg": jpeg(picture(0)[0])})
    with Writer(tmp_path / "pool"), pytest.raises(PoolLockedError, match="process"):
        curate.grow(source, tmp_path / "pool")


@pytest.mark.parametrize("make", [lambda p: p / "nothing", lambda p: write_folder(p / "empty", {}) or (p / "empty")])
def test_a_source_without_images_is_a_named_error(tmp_path: Path, make: object) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        curate.grow(make(tmp_path), tmp_path / "pool")  # type: ignore[operator]


def test_unreadable_members_of_a_cut_tar_are_counted(tmp_path: Path) -> None:
    whole = captioned_tar(tmp_path / "s" / "0.tar", range(6))
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    done = curate.grow(whole, tmp_path / "pool")
    rows = curate.Pool.open(tmp_path / "pool").frame(["key", "reason", "history"])
    assert done.seen == rows.height >= 2
    assert set(done.refused) <= {"undecodable", "missing_image"}
    assert all(json.loads(history) for history in rows["history"])


def test_namesakes_do_not_mix_and_manifests_point_at_their_own_files(tmp_path: Path) -> None:
    for place, first in (("x", 0), ("y", 10)):
        write_folder(tmp_path / place / "images", {f"{i}.jpg": jpeg(picture(first + i)[0]) for i in range(4)})
    both = [tmp_path / "x" / "images", tmp_path / "y" / "images"]
    curate.grow(both, tmp_path / "pool", options=SMALL)
    curate.select_from_pool(tmp_path / "pool", tmp_path / "m", method="random", budget="100%")
    roots = {s["id"]: s["root"] for s in curate.manifest.manifest_info(tmp_path / "m")["sources"]}
    rows = curate.read_manifest(tmp_path / "m")
    assert rows["source"].n_unique() == 2
    for row in rows.iter_rows(named=True):
        assert curate.samples.content_hash(Path(roots[row["source"]], row["path"]).read_bytes()) == row["sha256"]
    assert curate.grow(both[::-1], tmp_path / "pool").known == 8


def test_a_moved_source_gets_its_new_root_recorded(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(3)})
    curate.grow(source, tmp_path / "pool", options=SMALL)
    (tmp_path / "new").mkdir()
    source.rename(tmp_path / "new" / "s")
    curate.grow(tmp_path / "new" / "s", tmp_path / "pool")
    assert curate.Pool.open(tmp_path / "pool").state()["sources"]["s"]["root"] == str(tmp_path / "new" / "s")


def test_rows_with_uids_of_their_own_are_known_wherever_they_move(tmp_path: Path) -> None:
    names = [f"{i:02d}.jpg" for i in range(10)]
    write_folder(
        tmp_path, {name: jpeg(picture(i)[0]) for i, name in enumerate(names)} | {"x.jpg": jpeg(picture(50)[0])}
    )
    table = pl.DataFrame({"path": names, "uid": [f"{i:032x}" for i in range(10)]})
    table.write_csv(tmp_path / "t.csv")
    assert curate.grow(tmp_path / "t.csv", tmp_path / "pool", options=SMALL).seen == 10
    new = pl.DataFrame({"path": ["x.jpg"], "uid": ["a" * 32]})
    pl.concat([table[:4], new, table[4:]]).write_csv(tmp_path / "t.csv")
    second = curate.grow(tmp_path / "t.csv", tmp_path / "pool")
    assert (second.known, second.admitted) == (10, 1)
    third = curate.grow(tmp_path / "t.csv", tmp_path / "pool")
    assert (third.known, third.seen, third.total["rows"]) == (11, 11, 11)


def test_a_missing_file_of_a_table_is_taken_in_once_it_is_there(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": jpeg(picture(0)[0]), "t.csv": b"path\na.jpg\nb.jpg\n"})
    assert curate.grow(tmp_path / "t.csv", tmp_path / "pool", options=SMALL).refused == {"missing_file": 1}
    (tmp_path / "b.jpg").write_bytes(jpeg(picture(1)[0]))
    again = curate.grow(tmp_path / "t.csv", tmp_path / "pool")
    assert (again.known, again.admitted) == (1, 1)


def test_many_batches_are_compacted_and_keep_their_order(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{i:03d}.jpg": jpeg(picture(i % 3)[0]) for i in range(140)})
    curate.grow(source, tmp_path / "pool", options={**SMALL, "limits": {"batch_size": 2}})
    pool = curate.Pool.open(tmp_path / "pool")
    assert len(pool.dataset.get_fragments()) < 70
    assert pool.frame(["key"])["key"].to_list() == sorted(path.name for path in source.iterdir())
    assert pool.dataset.take([7, 77], columns=["row"])["row"].to_pylist() == [7, 77]


def test_a_kept_set_beyond_the_memory_limit_is_a_named_error(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(4)})
    with pytest.raises(UsageError, match=r"limits\.memory_gb"):
        curate.grow(source, tmp_path / "pool", options={**SMALL, "limits": {"batch_size": 2, "memory_gb": 0.001}})


def test_keys_that_are_hard_to_say_can_be_asked_for(tmp_path: Path) -> None:
    names = ["it's.jpg", "100%.jpg", "a b.jpg", "\u00fc\u4e2d.jpg", 'quo"te.jpg']
    source = write_folder(tmp_path / "s", {name: jpeg(picture(i)[0]) for i, name in enumerate(names)})
    curate.grow(source, tmp_path / "pool", options=SMALL)
    for name in names:
        assert curate.why(tmp_path / "pool", name)["key"] == name
        assert curate.why(tmp_path / "pool", f"s:{name}")["key"] == name


def test_a_source_without_samples_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = write_tar(tmp_path / "s" / "empty.tar", [])
    done = curate.grow(empty, tmp_path / "pool")
    assert (done.seen, done.total["rows"]) == (0, 0)
    assert f"no samples in {empty}" in caplog.text


@pytest.mark.parametrize(("major", "told"), [(2, "older version"), (4, "upgrade")])
def test_a_pool_of_another_format_is_a_named_error(major: int, told: str) -> None:
    with pytest.raises(PoolError, match=told):
        State.from_dict({"format": [major, 0]})
