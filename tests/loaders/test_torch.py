"""With torch: each sample once across ranks and workers, and an epoch that goes on exactly, also after kill -9."""

import itertools
import json
import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import write_folder
from subsets import image_bytes, make_subset, tar_rows, write_rows
from torch.utils.data import DataLoader

from curate.errors import SampleError, UsageError
from curate.images import decode
from curate.loaders import InfoBatch, StreamingSubset, SubsetDataset, SubsetLoader, TwoPhase, Weighted, pytorch
from curate.loaders.loader import collate

N = 60
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_subset(tmp_path_factory.mktemp("torch"), N, epoch_odd=0.5, epoch_even=0.8)


def rows_of(batches: Any) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


def flat(batches: Any) -> list[int]:
    return list(itertools.chain(*rows_of(batches)))


def loader(folder: Path, batch_size: int = 7, **options: Any) -> SubsetLoader:
    return SubsetLoader(folder, batch_size, **{"decode": "raw", "block": 4, "window": 16, **options})


def test_map_style_serves_plain_data_loaders(folder: Path) -> None:
    dataset = SubsetDataset(folder, decode="tensor")
    assert (len(dataset), dataset[-1]["row"], dataset[np.int64(3)]["row"]) == (N, N - 1, 3)
    with pytest.raises(IndexError):
        dataset[N]
    batches = list(DataLoader(dataset, batch_size=8, shuffle=True, num_workers=2, collate_fn=collate))
    assert sorted(flat(batches)) == list(range(N))
    image, uid = batches[0]["image"], batches[0]["uid"]
    assert (image.shape, image.dtype) == ((8, 3, 96, 96), torch.uint8)
    np.testing.assert_array_equal(image[0].numpy().transpose(1, 2, 0), decode(image_bytes(int(uid[0], 16))).pixels)


@pytest.mark.parametrize(("streaming", "workers"), [(False, 0), (False, 2), (True, 0), (True, 2)])
def test_loader_gives_each_once_and_epochs_differ(streaming: bool, workers: int, folder: Path) -> None:
    made = loader(folder, num_workers=workers, streaming=streaming)
    first, second = rows_of(made), rows_of(made)
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(N))
    assert first != second
    assert [len(rows) for rows in first].count(7) == 8
    assert (len(first), made.epoch) == (len(made), 2)
    made.set_epoch(0)
    assert rows_of(made) == first == rows_of(loader(folder, num_workers=workers, streaming=streaming))
    dropping = loader(folder, num_workers=workers, streaming=streaming, drop_last=True)
    assert [len(rows) for rows in rows_of(dropping)] == [7] * len(dropping) == [7] * 8


def test_planned_batches_do_not_depend_on_workers(folder: Path) -> None:
    assert rows_of(loader(folder)) == rows_of(loader(folder, num_workers=2))


def test_streams_see_the_same_whatever_the_workers(folder: Path) -> None:
    drawn = [flat(loader(folder, streaming=True, num_workers=n, sampler=TwoPhase())) for n in (0, 2)]
    assert sorted(drawn[0]) == sorted(drawn[1])
    assert 10 < len(drawn[0]) < 50


@pytest.mark.parametrize(
    "options",
    [{}, {"streaming": True}, {"sampler": Weighted(draws=40)}, {"streaming": True, "num_workers": 2},
     {"num_workers": 2, "loader": {"persistent_workers": True}}, {"shuffle": False, "streaming": True}],
    ids=str,
)  # fmt: skip
def test_loader_goes_on_after_any_batch(options: dict[str, Any], folder: Path) -> None:
    size = 17 if options.get("num_workers") else 7
    made = loader(folder, size, **options)
    made.set_epoch(3)
    states, seen = [made.state_dict()], []
    for batch in made:
        seen.append(batch["row"].tolist())
        states.append(json.loads(json.dumps(made.state_dict())))
    after = rows_of(made)
    resumed = loader(folder, size, **options)
    for at, state in list(enumerate(states))[:: 2 if "num_workers" in options else 1]:
        resumed.load_state_dict(state)
        resumed.set_epoch(3)
        assert rows_of(resumed) == seen[at:]
        assert resumed.epoch == 4
    assert rows_of(resumed) == after


def test_planned_batches_go_on_with_other_workers(folder: Path) -> None:
    made = loader(folder, num_workers=2)
    first = [batch["row"].tolist() for batch in itertools.islice(made, 3)]
    resumed = loader(folder)
    resumed.load_state_dict(made.state_dict())
    assert first + rows_of(resumed) == rows_of(loader(folder))


def test_state_of_other_settings_is_refused(folder: Path) -> None:
    state = loader(folder, num_workers=2, streaming=True).state_dict()
    with pytest.raises(UsageError, match="streams: 2 then, 1 now"):
        loader(folder, streaming=True).load_state_dict(state)
    with pytest.raises(UsageError, match="may not hold in_order"):
        loader(folder, loader={"in_order": False})
    with pytest.raises(UsageError, match="batch_size: 7 then, 8 now"):
        loader(folder, 8, num_workers=2, streaming=True).load_state_dict(state)


def train(folder: Path, out: Path, options: dict[str, Any]) -> None:
    """Note each batch, with the state after it, in one line."""
    made = loader(folder, 4, num_workers=2, **options)
    lines = out.read_text().splitlines() if out.exists() else []
    if lines:
        made.load_state_dict(json.loads(lines[-1])["state"])
    with out.open("a") as file:
        for epoch in range(made.epoch, 2):
            made.set_epoch(epoch)
            for batch in made:
                time.sleep(0.01)
                file.write(json.dumps({"rows": batch["row"].tolist(), "state": made.state_dict()}) + "\n")
                file.flush()


@pytest.mark.parametrize("options", [{}, {"streaming": True}], ids=str)
def test_killed_training_goes_on_with_the_exact_tail(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    train(folder, whole, options)
    for lines in (6, 20):
        process = FORK.Process(target=train, args=(folder, killed, options))
        process.start()
        while not killed.exists() or killed.read_text().count("\n") < lines:
            assert process.is_alive()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        text = killed.read_text()
        killed.write_text(text[: text.rfind("\n") + 1])
        assert text.count("\n") < 30
    train(folder, killed, options)
    assert [json.loads(line) for line in killed.read_text().splitlines()] == [
        json.loads(line) for line in whole.read_text().splitlines()
    ]


def one_rank(rank: int, folder: Path, out: Path) -> None:
    """See one epoch by each reader as one of two ranks, and two of InfoBatch's."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=2)
    seen = {
        "loader": flat(loader(folder, num_workers=2)),
        "streams": flat(loader(folder, num_workers=2, streaming=True)),
        "iterable": flat(DataLoader(StreamingSubset(folder, decode="raw"), batch_size=4, num_workers=2,
                                    collate_fn=collate)),
        "pad": flat(loader(folder, uneven="pad", budget=59)),
    }  # fmt: skip
    sampler = InfoBatch(epochs=100)
    made = loader(folder, sampler=sampler, uneven="drop")
    for _ in range(2):
        for batch in made:
            sampler.update(batch["row"], batch["row"].float())
    seen["pruned"] = flat(made)
    (out / f"{rank}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()


def test_two_ranks_with_two_workers_see_each_sample_once(folder: Path, tmp_path: Path) -> None:
    processes = [FORK.Process(target=one_rank, args=(rank, folder, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for name in ("loader", "streams", "iterable"):
        assert sorted(first[name] + second[name]) == list(range(N))
    assert len(first["pad"]) == len(second["pad"]) == 30
    assert set(first["pad"] + second["pad"]) == set(range(59))
    # Each rank heard the losses of its own rows; pruned were rows below the mean of all.
    assert set(range(30, N)) <= {*first["pruned"], *second["pruned"]} | {N - 1}
    assert len(first["pruned"]) == len(second["pruned"]) < 29


def test_infobatch_goes_on_within_an_epoch(folder: Path) -> None:
    def fed(made: SubsetLoader, batches: Any) -> list[list[int]]:
        rows = []
        for batch in batches:
            made.plan.sampler.update(batch["row"], batch["row"].float())
            assert batch["scale"].shape == batch["row"].shape
            rows.append(batch["row"].tolist())
        return rows

    made = loader(folder, sampler=InfoBatch(epochs=20))
    fed(made, made)
    fed(made, itertools.islice(made, 3))
    state = made.state_dict()
    torch.save(state, folder.parent / "state.pt")
    tails = []
    for _ in range(2):
        resumed = loader(folder, sampler=InfoBatch(epochs=20))
        resumed.load_state_dict(torch.load(folder.parent / "state.pt", weights_only=True))
        tails.append((fed(resumed, resumed), fed(resumed, resumed)))
    assert tails[0] == tails[1]
    straight = loader(folder, sampler=InfoBatch(epochs=20))
    epochs = [fed(straight, straight) for _ in range(3)]
    assert tails[0] == (epochs[1][3:], epochs[2])
    with pytest.raises(UsageError, match="streaming"):
        loader(folder, sampler=InfoBatch(epochs=2), streaming=True)
    with pytest.raises(UsageError, match="SubsetLoader"):
        StreamingSubset(folder, sampler=InfoBatch(epochs=2))


def test_epochs_of_an_iterable_reach_persistent_workers(folder: Path) -> None:
    dataset = StreamingSubset(folder, decode="raw", block=4)
    plain = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        orders.append([item["row"] for item in plain])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(N))
    assert orders[0] != orders[1]


def test_iterable_goes_on_in_the_process_that_iterates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the workers of a StatefulDataLoader do: each keeps the state of its own copy of the dataset."""
    seen = []
    for worker in range(2):
        monkeypatch.setattr(pytorch, "get_worker_info", lambda n=worker: SimpleNamespace(id=n, num_workers=2))
        dataset = StreamingSubset(folder, decode="raw")
        states, rows = [], []
        for item in dataset:
            rows.append(item["row"])
            states.append(dataset.state_dict())
        for at in (0, 11, len(rows) - 1):
            again = StreamingSubset(folder, decode="raw")
            again.load_state_dict(states[at])
            assert again.state_dict() == states[at]
            assert [item["row"] for item in again] == rows[at + 1 :]
        seen += rows
    assert sorted(seen) == list(range(N))
    monkeypatch.undo()
    again.load_state_dict(states[3])
    with pytest.raises(UsageError, match="workers: 2 then, 1 now"):
        next(iter(again))


def test_setting_the_epoch_that_was_loaded_keeps_its_place(folder: Path) -> None:
    dataset = StreamingSubset(folder, decode="raw")
    dataset.set_epoch(3)
    reading = iter(dataset)
    first = [next(reading)["row"] for _ in range(20)]
    state = dataset.state_dict()
    again = StreamingSubset(folder, decode="raw")
    again.load_state_dict(state)
    again.set_epoch(3)
    assert len(rest := [item["row"] for item in again]) == N - 20
    assert sorted(first + rest) == list(range(N))
    again.load_state_dict(state)
    again.set_epoch(4)
    assert len(list(again)) == N


def test_infobatch_scales_items_before_any_collate_function(folder: Path) -> None:
    made = loader(folder, sampler=InfoBatch(epochs=20), collate_fn=list, num_workers=1)
    for batch in made:
        rows = [item["row"] for item in batch]
        made.plan.sampler.update(rows, rows)
    batches = list(made)
    expected = made.plan.scale()
    assert {float(item["scale"]) for batch in batches for item in batch} == {1.0, 2.0}
    assert all(item["scale"] == expected[item["row"]] for batch in batches for item in batch)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Twenty rows, of which the second half is gone."""
    rows = tar_rows(tmp_path, 20, 2)
    (tmp_path / "00001.tar").unlink()
    return write_rows(tmp_path / "m", rows, tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_what_workers_skip_is_counted_and_resuming_stays_exact(streaming: bool, broken: Path) -> None:
    options = {"num_workers": 2, "streaming": streaming, "on_error": "skip", "shuffle": False}
    made = loader(broken, 4, **options)
    first = next(iter(made))["row"].tolist()
    state = made.state_dict()
    made.load_state_dict(state)
    assert first + flat(made) == list(range(10))
    assert Counter(made.skipped)["missing"] >= 10
    whole = loader(broken, 4, **options)
    assert [len(rows) for rows in rows_of(whole)] == [4, 4, 2]
    assert whole.skipped == {"missing": 10}


def test_pickled_datasets_share_counts_and_epoch(broken: Path) -> None:
    """As a worker that is spawned gets one."""
    dataset = StreamingSubset(broken, on_error="skip", decode="tensor", transform=torch.Tensor.size)
    copy = pickle.loads(ForkingPickler.dumps(dataset))
    dataset.set_epoch(5)
    rows = [item["row"] for item in copy]
    assert sorted(rows) == list(range(10))
    assert dataset.skipped == {"missing": 10}
    assert rows == [item["row"] for item in dataset]
    mapped = SubsetDataset(broken, on_error="skip")
    assert len(pickle.loads(ForkingPickler.dumps(mapped)).__getitems__(range(20))) == 10
    assert mapped.skipped == {"missing": 10}


def test_errors_of_workers_are_named(broken: Path) -> None:
    with pytest.raises(SampleError, match=r"row 1\d .*No such file"):
        list(loader(broken, num_workers=1))
    with pytest.raises(SampleError, match="No such file"):
        SubsetDataset(broken, on_error="skip")[15]
    assert len(SubsetDataset(broken, on_error="skip").__getitems__([3, 15, 4])) == 2


def test_tiles_are_items(tmp_path: Path) -> None:
    box = {"crop_x": 1, "crop_y": 2, "crop_w": 40, "crop_h": 40}
    rows = [row | box | {"tile": i // 4, "tile_slot": i % 4} for i, row in enumerate(tar_rows(tmp_path, 8, 1))]
    folder = write_rows(tmp_path / "m", rows, tmp_path, crops={"tile": 4, "tiles": 2})
    dataset = SubsetDataset(folder, decode="tensor", tiles=32)
    assert (len(dataset), dataset[1]["row"], dataset[1]["image"].shape) == (2, 4, (3, 32, 32))
    assert sorted(flat(loader(folder, decode="pil", tiles=32, num_workers=1))) == [0, 4]


def test_batches_keep_what_cannot_be_stacked(tmp_path: Path) -> None:
    write_folder(tmp_path, {})
    items = [{"image": torch.zeros(3, 2, 2), "caption": None, "weight": 1.0}, {"image": torch.zeros(3, 4, 2),
             "caption": "x", "weight": 2.0}]  # fmt: skip
    batch = collate(items)
    assert [image.shape for image in batch["image"]] == [(3, 2, 2), (3, 4, 2)]
    assert batch["caption"] == [None, "x"]
    assert batch["weight"].tolist() == [1.0, 2.0]
