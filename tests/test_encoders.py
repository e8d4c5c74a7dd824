"""Encoders: a row depends on its own image or text alone, a fingerprint on the weights and what we do with them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.encoders import (
    ImageEncoder,
    Settings,
    TextEncoder,
    builtin_image,
    builtin_text,
    calibrate_epsilon,
    default_text_encoder,
    load_image_encoder,
    load_text_encoder,
    open_clip_encoder,
)
from curate.encoders.calibration import FALLBACK_EPSILON, reencoded
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import check_reference, encode_rows, unit_rows
from curate.encoders.runtime import open_network, thread_count
from curate.errors import EncoderError
from curate.files import cache_folder

ARCH = "ViT-S-32-alt"  # the smallest that open_clip ships
ROOT = Path(__file__).resolve().parent.parent


def photograph(seed: int, height: int = 180, width: int = 240) -> U8:
    """Return a smooth random colour field at three scales: what an encoder takes for a picture of something."""
    rng = np.random.default_rng(seed)
    field = np.zeros((height, width, 3))
    for cells, weight in ((3, 0.5), (8, 0.3), (24, 0.2)):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        field += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return field.astype(np.uint8)


@pytest.fixture(scope="module")
def image_encoder() -> ImageEncoder:
    return load_image_encoder("builtin")


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    return load_text_encoder("builtin")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    import torch

    file = tmp_path_factory.mktemp("open_clip") / "weights.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(open_clip.create_model(ARCH).state_dict(), file)
    return file


# Rows


def test_rows_without_direction_become_zero() -> None:
    features = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    np.testing.assert_array_equal(unit_rows(features), np.array([[0.6, 0.8], [0, 0], [0, 0], [0, 0]], np.float32))


def test_network_sees_one_shape_only() -> None:
    shapes = []

    def network(block: Any) -> F32:
        shapes.append(block.shape)
        return np.asarray(block, np.float32)

    items = [np.full(2, i + 1) for i in range(5)]
    rows = encode_rows(items, network, batch=4, item=np.zeros(2, np.int64), dim=2)
    assert shapes == [(4, 2), (4, 2)]
    np.testing.assert_allclose(rows, np.full((5, 2), np.sqrt(0.5)), rtol=1e-6)


@pytest.mark.parametrize("row", [[0.5, 0.51], [0, 0], [np.nan, 0.5]])
def test_another_output_than_the_reference_is_an_error(row: list[float]) -> None:
    check_reference("test", np.array([0.5, 0.5], np.float32), (0.5, 0.5))
    with pytest.raises(EncoderError, match="reference"):
        check_reference("test", np.array(row, np.float32), (0.5, 0.5))


# Built-in image encoder


def test_image_rows_are_those_of_the_eager_network(image_encoder: ImageEncoder) -> None:
    import torch

    prepared = [image_encoder.prepare(photograph(seed)) for seed in range(3)]
    network = builtin_image.build_network(builtin_image.weights_file())
    with torch.inference_mode():
        eager = unit_rows(network(torch.from_numpy(np.stack(prepared))).numpy())
    np.testing.assert_allclose(image_encoder.encode(prepared), eager, atol=1e-5)


def test_image_rows_are_unit_and_nonnegative(image_encoder: ImageEncoder) -> None:
    rows = image_encoder.encode([image_encoder.prepare(photograph(seed)) for seed in range(3)])
    assert rows.shape == (3, image_encoder.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert image_encoder.nonnegative
    assert rows.min() >= 0


def test_image_row_is_the_same_bits_alone_and_at_every_position(image_encoder: ImageEncoder) -> None:
    prepared = [image_encoder.prepare(photograph(seed)) for seed in range(34)]
    rows = image_encoder.encode(prepared)
    for position in (0, 1, 17, 31):
        others = prepared[1 : position + 1]
        row = image_encoder.encode([*others, prepared[0], *prepared[20:22]])[position]
        np.testing.assert_array_equal(row, rows[0])
    np.testing.assert_array_equal(image_encoder.encode(prepared[33:])[0], rows[33])


def test_prepare_is_deterministic_and_takes_any_size(image_encoder: ImageEncoder) -> None:
    for height, width in ((1, 1), (224, 224), (40, 700)):
        pixels = photograph(0, height, width)
        prepared = image_encoder.prepare(pixels)
        assert prepared.shape == (224, 224, 3)
        np.testing.assert_array_equal(prepared, image_encoder.prepare(pixels))


def test_no_images_and_no_texts_give_no_rows(image_encoder: ImageEncoder, text_encoder: TextEncoder) -> None:
    assert image_encoder.encode([]).shape == (0, image_encoder.dim)
    assert text_encoder.encode([]).shape == (0, text_encoder.dim)


def test_unprepared_image_is_a_named_error(image_encoder: ImageEncoder) -> None:
    with pytest.raises(EncoderError, match=r"prepare\(\)"):
        image_encoder.encode([photograph(0)])


def test_fingerprints_are_stable_and_tell_encoders_apart(
    image_encoder: ImageEncoder, text_encoder: TextEncoder
) -> None:
    assert builtin_image._load.__wrapped__("cpu").fingerprint == image_encoder.fingerprint
    assert builtin_text._load.__wrapped__("cpu").fingerprint == text_encoder.fingerprint
    assert image_encoder.fingerprint == "591bd1b8afac64945974b40fc64c4a6a"
    assert text_encoder.fingerprint == "341b02932ee0620c5d8797d97a99e808"


# Built-in text encoder


def test_text_rows_are_those_of_the_eager_network(text_encoder: TextEncoder) -> None:
    import torch

    ids = torch.tensor([[101, 1037, 3899, 102] + [0] * 12])
    with torch.inference_mode():
        eager = unit_rows(builtin_text.build_network(builtin_text.model_folder())(ids).numpy())
    np.testing.assert_allclose(text_encoder.encode(["a dog"]), eager, atol=1e-5)


def test_text_row_is_the_same_bits_alone_and_among_others(text_encoder: TextEncoder) -> None:
    texts = ["a dog", "", "two dogs on a beach " * 5, "a cat", "word " * 100] * 3 + ["a red house"]
    rows = text_encoder.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for i in (0, 1, 2, 4, 15):
        np.testing.assert_array_equal(text_encoder.encode([texts[i]])[0], rows[i])
    np.testing.assert_array_equal(text_encoder.encode(texts[::-1])[::-1], rows)


def test_long_text_is_truncated_at_256_tokens(text_encoder: TextEncoder) -> None:
    long, longer, other = text_encoder.encode(["dog " * 254, "dog " * 254 + "cat " * 50, "cat " * 254])
    np.testing.assert_array_equal(long, longer)
    assert long @ other < 0.99


def test_text_epsilon_takes_case_and_spaces_for_the_same_and_another_caption_not(text_encoder: TextEncoder) -> None:
    x = text_encoder.encode(
        ["A black dog runs on the beach.", "a black  dog runs on the beach", "Two dogs play in the snow."]
    )
    assert text_encoder.epsilon is not None
    assert 1 - x[0] @ x[1] < text_encoder.epsilon < 1 - x[0] @ x[2]


# Export and cache


class _Twice:
    """Builds a network that doubles its input, and counts how often it had to."""

    built = 0

    def __call__(self) -> Any:
        import torch

        class Double(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.to(torch.float32) * 2

        self.built += 1
        return Double()


def test_network_is_exported_once_and_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    build = _Twice()
    block = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for _ in range(2):
        np.testing.assert_array_equal(open_network("double", build, block)(block), block * 2)
    assert build.built == 1
    (file,) = (tmp_path / "cache").iterdir()  # no draft is left behind
    assert capfd.readouterr() == ("", "")
    file.write_bytes(b"damaged")
    with pytest.raises(EncoderError, match="delete it"):
        open_network("double", build, block)


def test_unwritable_cache_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EncoderError, match="set CURATE_CACHE"):
        open_network("double", _Twice(), np.zeros((2, 3), np.uint8))


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/curate")
    monkeypatch.setenv("CURATE_CACHE", "/c")
    assert cache_folder() == Path("/c")


def test_thread_count_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert thread_count() >= 1


# open_clip


def test_open_clip_file_gives_both_towers(checkpoint: Path) -> None:
    name = f"open_clip:{ARCH}/{checkpoint}"
    image, text = load_image_encoder(name), load_text_encoder(default_text_encoder(name))
    assert (image.name, image.epsilon, image.nonnegative) == (name, None, False)
    assert image.dim == text.dim == 256
    assert image.fingerprint != text.fingerprint
    prepared = [image.prepare(photograph(seed)) for seed in range(3)]
    rows, captions = image.encode(prepared), text.encode(["a dog", "", "word " * 200])
    assert rows.shape == captions.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(np.vstack([rows, captions]), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(image.encode(prepared[2:])[0], rows[2])
    np.testing.assert_array_equal(text.encode(["a dog"])[0], captions[0])
    assert text.encode([]).shape == (0, 256)


def test_open_clip_prepare_and_normalisation_are_its_own_preprocessing(checkpoint: Path) -> None:
    import open_clip
    import torch

    encoder = load_image_encoder(f"open_clip:{ARCH}/{checkpoint}", Settings(precision="float32"))
    model, _, preprocess = open_clip.create_model_and_transforms(ARCH, pretrained=str(checkpoint))
    with torch.inference_mode():
        x = preprocess(Image.fromarray(photograph(1)))[None]
        own = unit_rows(model.eval().encode_image(x).numpy())
    np.testing.assert_allclose(encoder.encode([encoder.prepare(photograph(1))]), own, atol=1e-5)


def test_open_clip_reload_is_equal_and_other_weights_are_not(checkpoint: Path, tmp_path: Path) -> None:
    import open_clip
    import torch

    folder = tmp_path / "folder"  # as open_clip itself saves a model
    folder.mkdir()
    config = {"model_cfg": open_clip.get_model_config(ARCH), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = torch.load(checkpoint, weights_only=True)
    for file in (tmp_path / "copy.pt", folder / "open_clip_pytorch_model.bin"):
        torch.save(state, file)
    encoder = load_image_encoder(f"open_clip:{ARCH}/{checkpoint}")
    prepared = [encoder.prepare(photograph(0))]
    for path in (tmp_path / "copy.pt", folder):
        reloaded = load_image_encoder(f"open_clip:{ARCH}/{path}")
        assert reloaded.fingerprint == encoder.fingerprint
        np.testing.assert_array_equal(reloaded.encode(prepared), encoder.encode(prepared))
    state["visual.proj"][0] += 1
    torch.save(state, tmp_path / "copy.pt")  # under the same path: the cached model must not be taken
    assert load_image_encoder(f"open_clip:{ARCH}/{tmp_path / 'copy.pt'}").fingerprint != encoder.fingerprint


# Names


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("resnet", "use builtin; open_clip:"),
        ("open_clip:ViT-Z-99/openai", r"list_models\(\)"),
        ("open_clip:ViT-B-32", "give a local checkpoint: open_clip:ViT-B-32//path/to/file.pt"),
        ("open_clip:ViT-B-32/nothing", "tags: .*laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32//no/such/file.pt", "neither a file"),
    ],
)
def test_wrong_name_says_what_to_do(name: str, advice: str) -> None:
    for load in (load_image_encoder, load_text_encoder):
        with pytest.raises(EncoderError, match=advice):
            load(name)


def test_file_that_is_no_checkpoint_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"not a checkpoint")
    for path in (tmp_path / "weights.pt", tmp_path):
        with pytest.raises(EncoderError, match="cannot be loaded"):
            load_image_encoder(f"open_clip:{ARCH}/{path}")


def test_hub_out_of_reach_says_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.factory.download_pretrained", refuse)
    with pytest.raises(EncoderError, match=r"no route to host.*give a local checkpoint"):
        load_image_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")


def test_nothing_reaches_for_the_network(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    for function in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, function, lambda *args: asked.append(args))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_options: asked.append(args))
    open_clip_encoder._load.cache_clear()
    builtin_image._load.__wrapped__("cpu")
    builtin_text._load.__wrapped__("cpu")
    load_text_encoder(f"open_clip:{ARCH}/{checkpoint}")
    assert asked == []


def test_importing_the_package_loads_no_network_library() -> None:
    heavy = "{'torch', 'open_clip', 'timm', 'transformers', 'tokenizers', 'onnx', 'onnxruntime'}"
    code = f"import sys, curate.encoders; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert answer.stdout == "[]\n"


# Calibration


def test_calibrated_epsilon_finds_copies_and_keeps_distinct_photographs(image_encoder: ImageEncoder) -> None:
    images = [photograph(seed) for seed in range(24)]
    epsilon = calibrate_epsilon(image_encoder, images)
    assert epsilon == calibrate_epsilon(image_encoder, images)
    x = image_encoder.encode([image_encoder.prepare(pixels) for pixels in images])
    copies = image_encoder.encode([image_encoder.prepare(reencoded(pixels)) for pixels in images])
    distance = 1 - x @ copies.T
    assert (np.diag(distance) <= epsilon).mean() >= 0.75
    assert (distance[~np.eye(24, dtype=bool)] > epsilon).all()


class Angles:
    """Grey 10 x 10 images of value 12 i become directions, .2 rad apart; copies turn by .1 rad, 40 % of them by .5."""

    name, dim, fingerprint, nonnegative, epsilon = "angles", 2, "0" * 32, False, None

    def prepare(self, pixels: U8) -> U8:
        return np.array([round(pixels[0, 0, 0] / 12), pixels.shape[0] == 9], np.uint8)

    def encode(self, prepared: Any) -> F32:
        i, is_copy = np.array(prepared, np.int64).T
        angle = 0.2 * i + is_copy * np.where(i % 5 < 2, 0.5, 0.1)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_calibration_refuses_no_distinct_photograph_to_find_the_last_copies() -> None:
    images = [np.full((10, 10, 3), 12 * i, np.uint8) for i in range(10)]
    twins = [*images, images[3], images[7]]  # true duplicates: no reason to go lower
    for sample in (images, twins):
        assert calibrate_epsilon(Angles(), sample) == pytest.approx(1 - np.cos(0.2), abs=1e-3)


def test_calibration_of_a_few_images_is_a_conservative_constant() -> None:
    images = [np.full((10, 10, 3), 12 * i, np.uint8) for i in range(7)]
    assert calibrate_epsilon(Angles(), images) == FALLBACK_EPSILON
    assert calibrate_epsilon(Angles(), []) == FALLBACK_EPSILON
