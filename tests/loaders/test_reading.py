"""What a reader gives: items as asked, each once across ranks, in an order that goes on exactly where it stood."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from subsets import image_bytes, make_subset, seeds_of, tar_rows, write_rows

from curate.errors import SampleError, UsageError
from curate.images import decode
from curate.loaders import Subset, Weighted, items, iterate
from curate.loaders.order import Order, this_rank


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_subset(tmp_path_factory.mktemp("reading"))


def rows_of(reading: Any) -> list[int]:
    return [item["row"] for item in reading]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_each_image_comes_once_with_what_belongs_to_it(threads: int, folder: Path) -> None:
    found = list(iterate(folder, threads=threads, decode="array"))
    assert sorted(rows_of(found)) == list(range(60))
    for item in found:
        seed = int(item["uid"], 16)
        np.testing.assert_array_equal(item["image"], decode(image_bytes(seed)).pixels)
        assert item["key"] == f"{seed:05d}"
        assert item["caption"] == (None if seed % 3 == 2 else f"picture {seed}")
        assert item["weight"] == 1.0


def test_decoding_is_what_was_asked_for(folder: Path) -> None:
    def first(**options: Any) -> Any:
        return next(iterate(folder, shuffle=False, **options))

    seed = int(first()["uid"], 16)
    pixels = decode(image_bytes(seed)).pixels
    assert isinstance(first()["image"], Image.Image)
    np.testing.assert_array_equal(np.asarray(first()["image"]), pixels)
    assert first(decode="raw")["image"] == image_bytes(seed)
    assert first(decode=len)["image"] == len(image_bytes(seed))
    assert first(decode="array", transform=np.mean)["image"] == pixels.mean()
    assert first(columns=("label", "sha256")).keys() == {"row", "image", "label", "sha256"}


@pytest.mark.parametrize(
    "options",
    [{"decode": "jpeg"}, {"columns": ("pvi",)}, {"tiles": 64}, {"on_error": "ignore"}, {"block": 0}, {"seed": -1},
     {"uneven": "both"}, {"rank": 1}, {"rank": 2, "world_size": 2}, {"batch_size": 0}, {"drop_last": True},
     {"epoch": -1}, {"shufle": True}],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], folder: Path) -> None:
    with pytest.raises(UsageError):
        next(iterate(folder, **options))


def test_seeds_and_epochs_give_orders_of_their_own(folder: Path) -> None:
    orders = {(seed, epoch): tuple(rows_of(iterate(folder, seed=seed, epoch=epoch, decode="raw", block=4)))
              for seed in (0, 1) for epoch in (0, 1)}  # fmt: skip
    assert len(set(orders.values())) == 4
    assert orders[1, 1] == tuple(rows_of(iterate(folder, seed=1, epoch=1, decode="raw", block=4)))
    assert rows_of(iterate(folder, shuffle=False, decode="raw")) == list(range(60))


def test_blocks_are_neighbours_and_windows_mix_them(folder: Path) -> None:
    opened = Subset(folder)
    place = np.argsort(opened.by_place)
    order = Order(block=5, window=20)
    images = order.epoch(opened, None, 0)
    blocks = place[images].reshape(-1, 5)
    assert (np.diff(blocks) == 1).all()
    assert sorted(blocks[:, 0]) == list(range(0, 60, 5)) != blocks[:, 0].tolist()
    mixed = order.mixed(images, 0, 0)
    assert [sorted(w) for w in mixed.reshape(-1, 20).tolist()] == [sorted(w) for w in images.reshape(-1, 20).tolist()]
    assert mixed.tolist() != images.tolist()


@given(n=st.integers(0, 70), world=st.integers(1, 5), workers=st.integers(1, 4), batch=st.integers(1, 9),
       shuffle=st.booleans(), uneven=st.sampled_from(["keep", "pad", "drop"]))  # fmt: skip
def test_shares_are_a_partition(n: int, world: int, workers: int, batch: int, shuffle: bool, uneven: Any) -> None:
    order = Order(shuffle=shuffle, uneven=uneven, window=7)
    images = np.random.default_rng(n).permutation(n).astype(np.int64)
    shares = [order.share(images, rank, world) for rank in range(world)]
    sizes = {share.size for share in shares}
    assert max(sizes) - min(sizes) <= (uneven == "keep")
    count = Counter(np.concatenate(shares).tolist())
    extra = {"keep": 0, "drop": -(n % world), "pad": -n % world if n else 0}[uneven]
    assert count.total() == n + extra
    assert max(count.values(), default=0) <= (1 if uneven != "pad" else 1 + world)
    for share in shares:
        parts = [order.split(share, worker, workers, batch) for worker in range(workers)]
        assert Counter(np.concatenate(parts).tolist()) == Counter(share.tolist())
        assert sum(part.size % batch != 0 for part in parts) <= 1


def test_ranks_see_each_image_once(folder: Path) -> None:
    for shuffle in (True, False):
        seen = [rows_of(iterate(folder, rank=r, world_size=7, shuffle=shuffle, decode="raw")) for r in range(7)]
        assert sorted(itertools.chain(*seen)) == list(range(60))
        assert {len(rows) for rows in seen} == {8, 9}


def test_rank_is_that_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert this_rank(None, None) == (3, 4)
    assert this_rank(0, 1) == (0, 1)
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(UsageError, match="RANK"):
        this_rank(None, None)


def test_batches_hold_arrays_where_they_can(folder: Path) -> None:
    batches = list(iterate(folder, batch_size=16, decode="array"))
    assert [len(batch["row"]) for batch in batches] == [16, 16, 16, 12]
    assert (batches[0]["image"].shape, batches[0]["image"].dtype) == ((16, 96, 96, 3), np.uint8)
    assert batches[0]["weight"].tolist() == [1.0] * 16
    assert isinstance(batches[0]["caption"], list)
    assert [len(batch["row"]) for batch in iterate(folder, batch_size=16, drop_last=True, decode="raw")] == [16] * 3


@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"sampler": Weighted(draws=80), "threads": 2, "window": 8}])
def test_reading_goes_on_from_every_position(options: dict[str, Any], folder: Path) -> None:
    def flat(found: Any) -> list[Any]:
        return np.asarray(found["row"]).tolist() if "batch_size" in options else found["row"]

    given = {"epoch": 3, "decode": "raw", "block": 4, **options}
    reading = iterate(folder, **given)
    states, seen = [reading.state_dict()], []
    for found in reading:
        seen.append(flat(found))
        states.append(json.loads(json.dumps(reading.state_dict())))
    for at, state in enumerate(states):
        assert [flat(found) for found in iterate(folder, state=state, **given | {"epoch": 0})] == seen[at:]


def test_state_of_another_order_is_refused(folder: Path) -> None:
    state = iterate(folder, seed=1).state_dict()
    with pytest.raises(UsageError, match="seed: 1 then, 2 now"):
        iterate(folder, seed=2, state=state)
    with pytest.raises(UsageError, match="rows: 60 then, 30 now"):
        iterate(folder, seed=1, budget="50%", state=state)
    with pytest.raises(UsageError, match="no state"):
        iterate(folder, state={"epoch": 1})


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Twelve rows, of which 1 is gone, 2 has changed, 3 does not decode, 4 is cut."""
    rows = tar_rows(tmp_path, 12, 1)
    rows[1]["path"] = "gone.tar"
    rows[2]["sha256"] = "0" * 64
    rows[3]["size"] = 100
    rows[4]["offset"] = 10**12
    return write_rows(tmp_path / "m", rows, tmp_path)


def test_broken_samples_are_skipped_and_counted(broken: Path, caplog: pytest.LogCaptureFixture) -> None:
    reading = iterate(broken, on_error="skip", verify=True, shuffle=False, batch_size=5)
    batches = [batch["row"].tolist() for batch in reading]
    assert batches == [[0], [5, 6, 7, 8, 9], [10, 11]]
    assert reading.skipped == {"missing": 1, "changed": 3}
    assert "skipped row 1 (uid 00000000000000000000000000000001, gone.tar of source 00000.tar)" in caplog.text
    reading = iterate(broken, on_error="skip", shuffle=False)
    assert rows_of(reading) == [0, 2, 5, 6, 7, 8, 9, 10, 11]
    assert reading.skipped == {"missing": 1, "changed": 1, "undecodable": 1}


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [(1, "missing", "No such file"), (2, "changed", "SHA-256"), (3, "undecodable", "decode"), (4, "changed", "ends")],
)
def test_broken_sample_is_a_named_error(row: int, reason: str, words: str, broken: Path) -> None:
    verify = row == 2
    start = {"epoch": 0, "position": row, "settings": iterate(broken, shuffle=False).state_dict()["settings"]}
    with pytest.raises(SampleError, match=f"row {row} .*{words}") as error:
        next(iterate(broken, shuffle=False, verify=verify, state=start, threads=0))
    assert error.value.reason == reason


def own_decoder(data: bytes) -> int:
    """Fail as decoders do, each time otherwise."""
    kind = len(data) % 4
    if kind < 3:
        raise (OSError, ValueError, SyntaxError)[kind]("cannot make an image of it")
    return kind


def test_what_a_users_decoder_cannot_read_is_a_bad_sample(folder: Path) -> None:
    reading = iterate(folder, decode=own_decoder, on_error="skip", threads=0)
    read = [item["row"] for item in reading]
    sizes = [len(item["image"]) for item in iterate(folder, decode="raw", shuffle=False)]
    assert sorted(read) == [row for row, size in enumerate(sizes) if size % 4 == 3]
    assert 0 < len(read) == len(sizes) - reading.skipped["undecodable"]
    with pytest.raises(SampleError, match=r"decode failed with \w+Error: cannot make an image of it"):
        list(iterate(folder, decode=own_decoder))


def test_image_of_too_many_pixels_is_not_decoded(folder: Path) -> None:
    reading = iterate(folder, max_pixels=96 * 96 - 1, on_error="skip")
    assert list(reading) == []
    assert reading.skipped == {"too_many_pixels": 60}


def test_skipping_everything_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "_HOPELESS", 10)
    folder = write_rows(tmp_path / "m", tar_rows(tmp_path, 20), "/nowhere")
    with pytest.raises(SampleError, match="none of 10 samples could be read"):
        list(iterate(folder, on_error="skip"))


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Two tiles of four crops each, two crops of each image."""
    rows = []
    for i, row in enumerate(row for row in tar_rows(tmp_path, 4, 1) for _ in range(2)):
        box = {"crop_x": 8 * i, "crop_y": 4, "crop_w": 30, "crop_h": 20 + i, "tile": i // 4, "tile_slot": i % 4}
        rows.append(row | box)
    return write_rows(tmp_path / "m", rows, tmp_path, crops={"tile": 4, "tiles": 2})


def test_crops_are_cut_out(crops: Path) -> None:
    found = list(iterate(crops, decode="array", shuffle=False))
    assert len(found) == 8
    for i, item in enumerate(found):
        whole = decode(image_bytes(i // 2)).pixels
        assert item["crop"] == (8 * i, 4, 30, 20 + i)
        np.testing.assert_array_equal(item["image"], whole[4 : 24 + i, 8 * i : 8 * i + 30])
    assert next(iterate(crops, decode="raw", shuffle=False))["image"] == image_bytes(0)


def test_tiles_are_four_crops_in_one_image(crops: Path) -> None:
    found = list(iterate(crops, tiles=40, shuffle=False))
    assert [item["row"] for item in found] == [0, 4]
    assert seeds_of(found[1]["uid"]) == [2, 2, 3, 3]
    whole = np.asarray(found[0]["image"])
    for slot in range(4):
        cut = Image.fromarray(decode(image_bytes(slot // 2)).pixels[4 : 24 + slot, 8 * slot : 8 * slot + 30])
        cell = np.asarray(cut.resize((20, 20), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(whole[slot // 2 * 20 :, slot % 2 * 20 :][:20, :20], cell)
    assert len(list(iterate(crops, tiles=40, budget=1))) == 1
    with pytest.raises(UsageError, match="tiles"):
        next(iterate(crops, tiles=40, sampler=Weighted()))


def test_crop_outside_of_its_image_is_named(tmp_path: Path) -> None:
    row = tar_rows(tmp_path, 1, 1)[0] | {
        "crop_x": 80,
        "crop_y": 0,
        "crop_w": 17,
        "crop_h": 5,
        "tile": 0,
        "tile_slot": 0,
    }
    folder = write_rows(tmp_path / "m", [row], tmp_path, crops={"tile": 4})
    with pytest.raises(SampleError, match=r"crop \(80, 0, 17, 5\) is not inside"):
        next(iterate(folder))


def test_numpy_readers_import_no_torch(folder: Path) -> None:
    code = (
        "import sys; from curate.loaders import iterate\n"
        "batch = next(iterate(sys.argv[1], batch_size=4, decode='array'))\n"
        "assert batch['image'].shape == (4, 96, 96, 3)\n"
        "print([name for name in ('torch', 'lance', 'faiss') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_dropped_readings_stop_none_of_the_others(folder: Path) -> None:
    """Their threads end by themselves, wherever the garbage collector closes them."""
    readings = [iterate(folder, threads=3, seed=seed) for seed in range(8)]
    for reading in readings:
        next(reading)
    del reading, readings
    assert sorted(rows_of(iterate(folder, threads=3))) == list(range(60))
