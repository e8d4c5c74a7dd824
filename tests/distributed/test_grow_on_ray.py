"""`grow --on ray`: the pool is that of one process, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import a_worker_killed
from ray_worlds import Slow, content, picture, write_encoder, write_images

from curate import Arrays
from curate.engine import machines
from curate.engine.grow import grow
from curate.errors import SourceError

RUN = """
import sys
from curate.engine.grow import grow
grow(sys.argv[1], sys.argv[2], options={"encode": {"image": sys.argv[3]}, "limits": {"batch_size": 64}}, on="ray")
"""
RUNS = (("one", None), ("two", "ray"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Images, the options to grow by, and the pool of one process."""
    folder = tmp_path_factory.mktemp("world")
    encoder = write_encoder(folder / "m.onnx")
    options = {"encode": {"image": encoder}, "limits": {"batch_size": 64}}
    images = write_images(folder / "images", range(600))
    told = grow(str(images), folder / "one", options=options)
    return {"images": str(images), "options": options, "one": folder / "one", "told": told, "encoder": encoder}


def seen_from(least: int, action: Callable[[], None]) -> Callable[[int, int | None], None]:
    """Return a progress callback that does something once, when so many rows are seen."""
    left = [action]

    def progress(seen: int, total: int | None) -> None:
        if left and seen >= least:
            left.pop()()

    return progress


@pytest.mark.usefixtures("cluster")
def test_changed_folder_with_captions_and_two_encoders_is_taken_in_as_in_one_process(tmp_path: Path) -> None:
    encoders = [write_encoder(tmp_path / f"{name}.onnx") for name in "mn"]
    options = {"encode": {"image": encoders[0], "extra": {"other": encoders[1]}}, "clean": {"warmup": 64}}
    options["limits"] = {"batch_size": 64}
    folder = tmp_path / "images"
    for numbers in (range(100), range(180)):
        write_images(folder, numbers)
        (folder / "dog" / "00000.jpg").write_bytes(picture(1000 + len(numbers)))
        named = [f"{'cat' if i % 2 else 'dog'}/{i:05}.jpg,{f'number {i}' if i % 9 else ''}" for i in numbers]
        (folder / "metadata.csv").write_text("\n".join(["file_name,text", *named]))
        one, two = (grow(str(folder), tmp_path / name, options=options, on=on) for name, on in RUNS)
        assert (two.known, two.refused) == (one.known, one.refused)
    assert one.known == 99
    assert content(tmp_path / "two") == content(tmp_path / "one")


def arrays(n: int) -> Arrays:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 8))
    image, text = (hidden @ rng.normal(size=(8, d)) + rng.normal(0, 0.6, (n, d)) for d in (32, 16))
    text[::13] = rng.normal(size=text[::13].shape)
    image[5::11], text[5::11] = image[4::11][: len(image[5::11])], text[4::11][: len(text[5::11])]
    columns = {"label": [str(int(v > 0)) for v in hidden[:, 0]], "caption": [f"caption {i}" for i in range(n)]}
    return Arrays(image.astype(np.float32), text=text.astype(np.float32), columns=columns, name="a")


@pytest.mark.usefixtures("cluster")
def test_lost_part_of_the_kept_set_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given embeddings with captions and labels; the owner dies once, and the commit under way is begun anew once."""
    import ray

    made: list[Any] = []

    class Known(machines.Owners):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(machines, "Owners", Known)
    killed = seen_from(1500, lambda: ray.kill(made[0]._teams["image"]._actors[1]))
    for name, on in RUNS:
        options = {"clean": {"warmup": 300}}
        grow(arrays(2500), tmp_path / name, options=options, on=on, progress=killed if on else None)
    ours, theirs = content(tmp_path / "two"), content(tmp_path / "one")
    assert ours == theirs
    assert {row["reason"] for row in ours[2]} >= {"admitted", "exact_duplicate", "caption_mismatch"}
    assert caplog.text.count("it is made again from the pool") == 1


def test_pool_equals_that_of_one_process_though_a_worker_is_killed(
    cluster: Any, world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_FEWEST", 32)
    with a_worker_killed(cluster):
        told = grow(world["images"], tmp_path / "two", options=world["options"], on="ray")
    assert content(tmp_path / "two") == content(world["one"])
    assert (told.admitted, told.refused) == (world["told"].admitted, world["told"].refused)
    assert told.refused["undecodable"] == 15
    again = grow(world["images"], tmp_path / "two", options=world["options"], on="ray")
    assert (again.known, again.seen) == (600, 600)


def test_machine_that_joins_is_used(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the test below: Ray holds what a killed driver asked for back for three minutes, from a new machine too.
    monkeypatch.setattr(machines, "_FEWEST", 8)
    monkeypatch.setattr(machines, "_MOST", 8)
    (tmp_path / "seen").mkdir()
    source = Slow(str(tmp_path / "seen"), 1200, 0.5)
    added: list[Any] = []
    options = {"encode": {"image": write_encoder(tmp_path / "m.onnx"), "workers": 0}, "limits": {"batch_size": 64}}
    grow(
        source,
        tmp_path / "pool",
        options=options,
        on="ray",
        progress=seen_from(64, lambda: added.append(cluster.add_node(num_cpus=2, object_store_memory=100_000_000))),
    )
    assert added[0].node_id in {file.name for file in (tmp_path / "seen").iterdir()}
    cluster.remove_node(added[0])


def test_killed_driver_resumes_to_the_same_pool(cluster: Any, world: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, world["images"], str(tmp_path / "two"), world["encoder"]]
    process = subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": cluster.address}, stderr=subprocess.DEVNULL)
    versions = tmp_path / "two" / "samples.lance" / "_versions"
    while process.poll() is None:  # a busy machine takes a minute to start it
        if versions.exists() and len(list(versions.glob("*.manifest"))) >= 4:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    told = grow(world["images"], tmp_path / "two", options=world["options"], on="ray")
    assert 0 < told.known < 600
    assert content(tmp_path / "two") == content(world["one"])


@pytest.mark.usefixtures("cluster")
def test_errors_of_workers_are_named(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", range(3))
    options = {"encode": {"image": write_encoder(tmp_path / "m.onnx")}}

    class Broken(Slow):
        def rows(self, start: int = 0) -> Any:
            raise SourceError("the disk is gone")

    with pytest.raises(SourceError, match="the disk is gone"):
        grow(Broken(str(images), 5, 0.0), tmp_path / "pool", options=options, on="ray")
