"""timm, ONNX and sentence-transformers encoders: tiny models drawn at random, saved, and read back offline."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.encoders import Settings, default_text_encoder, load_image_encoder, load_text_encoder
from curate.encoders.compute import Compute, TorchNetwork, resolved
from curate.encoders.protocols import F32, U8
from curate.encoders.rows import unit_rows
from curate.errors import EncoderError

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

FULL = Settings(device="cpu", precision="float32", batch=4)
VIT, CNN = "test_vit", "test_resnet"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "red", "ball", "runs", "on", "beach", "cat"]


def pictures(n: int, height: int = 60, width: int = 80) -> list[U8]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(s).resize((width, height), Image.Resampling.BICUBIC)) for s in small]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Save a timm model's state dict, once each, classifier and all."""
    folder, made = tmp_path_factory.mktemp("timm"), {}

    def file(arch: str) -> Path:
        if arch not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                from safetensors.torch import save_file

                save_file(timm.create_model(arch).state_dict(), made.setdefault(arch, folder / f"{arch}.safetensors"))
        return made[arch]

    return file


def check_rows(encoder: Any, items: list[Any]) -> F32:
    """Rows are unit rows, and the same bits alone, among others, and at every position. Items: 11."""
    rows = encoder.encode(items)
    assert rows.shape == (11, encoder.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert len(np.unique(rows.round(4), axis=0)) == 11
    for position in range(5):
        found = encoder.encode([*items[1 : position + 1], items[0], items[9]])
        np.testing.assert_array_equal(found[position], rows[0])
    np.testing.assert_array_equal(encoder.encode(items[10:])[0], rows[10])
    assert encoder.encode([]).shape == (0, encoder.dim)
    return rows


# timm


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", [VIT, CNN])
def test_timm_rows_are_those_of_the_model_with_its_own_transform(
    weights: Callable[[str], Path], arch: str, precision: str
) -> None:
    encoder = load_image_encoder(f"timm:{arch}/{weights(arch)}", Settings("cpu", precision, 4))
    shown = pictures(11)
    rows = check_rows(encoder, [encoder.prepare(pixels) for pixels in shown])
    model = timm.create_model(arch, num_classes=0, checkpoint_path="").eval()
    from safetensors.torch import load_file

    model.load_state_dict(load_file(weights(arch)), strict=False)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        own = unit_rows(model(torch.stack([transform(Image.fromarray(p)) for p in shown])).numpy())
    assert encoder.compute == f"cpu {precision} 4"
    if precision == "float32":
        np.testing.assert_allclose(rows, own, atol=1e-5)
    else:
        assert (rows * own).sum(axis=1).min() > 0.999


def test_timm_reads_both_kinds_of_files_and_tells_weights_and_preprocessing_apart(
    weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    state = load_file(weights(VIT))
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    first = load_image_encoder(f"timm:{VIT}/{weights(VIT)}", FULL)
    monkeypatch.chdir(tmp_path)
    for path in (f"//{tmp_path}/w.pt", f"/{tmp_path}/w.pt", "//w.pt", "/w.pt"):  # absolute, and from where we are
        assert load_image_encoder(f"timm:{VIT}{path}", FULL).fingerprint == first.fingerprint
    assert load_image_encoder(f"timm:{VIT}.r160_in1k//w.pt", Settings("cpu", "float32", 8)).fingerprint == (
        first.fingerprint
    )
    half = load_image_encoder(f"timm:{VIT}//w.pt", Settings("cpu", "bfloat16"))
    assert half.fingerprint != first.fingerprint
    state["norm.weight"] = state["norm.weight"] * 2
    torch.save(state, tmp_path / "w.pt")
    assert load_image_encoder(f"timm:{VIT}//w.pt", FULL).fingerprint != first.fingerprint
    config = timm.data.resolve_model_data_config
    monkeypatch.setattr("timm.data.resolve_model_data_config", lambda model: config(model) | {"crop_pct": 0.5})
    assert load_image_encoder(f"timm:{VIT}/{weights(VIT)}", FULL).fingerprint != first.fingerprint


def test_a_batch_that_patch_tokens_halve_is_told_and_holds_for_embeddings() -> None:
    from curate.encoders.torch_image import Backbone, TorchImageEncoder

    batches: list[tuple[str, int]] = []

    def embed(x: torch.Tensor) -> torch.Tensor:
        batches.append(("rows", len(x)))
        return x.mean((2, 3))

    def cells(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("no more")
        batches.append(("patches", len(x)))
        return x

    backbone = Backbone(
        embed, cells, lambda pixels: pixels[:4, :4], (0, 0, 0), (1, 1, 1), 3, "cpu", Compute("cpu", batch=8), ("toy",)
    )
    encoder = TorchImageEncoder("toy", backbone)
    shown = [encoder.prepare(np.full((8, 8, 3), i, np.uint8)) for i in range(1, 9)]
    encoder.encode(shown)
    assert (encoder.patch_shape, encoder.patches(shown).shape) == ((16, 3), (8, 16, 3))
    assert encoder.compute == "cpu float32 2"
    encoder.encode(shown)
    assert [n for kind, n in batches if kind == "rows"] == [8, 2, 2, 2, 2]
    assert [n for kind, n in batches if kind == "patches"] == [1, 2, 2, 2, 2]  # one to learn the shape


def test_rows_of_another_gpu_are_not_taken_for_those_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.encoders.machine import machine

    told = []
    for name in ("H100", "A100", "A100"):
        machine.cache_clear()
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i, name=name: name)
        told.append((machine("cuda"), machine("cpu")))
    machine.cache_clear()
    assert told[0][0] != told[1][0] == told[2][0]
    assert len({cpu for _, cpu in told}) == 1


def test_patch_tokens_are_the_last_features_of_the_model(weights: Callable[[str], Path]) -> None:
    shown = pictures(6)
    for arch, tokens in ((VIT, 100), (CNN, 25)):
        encoder: Any = load_image_encoder(f"timm:{arch}/{weights(arch)}", FULL)
        prepared = [encoder.prepare(pixels) for pixels in shown]
        found = encoder.patches(prepared)
        assert found.shape == (6, *encoder.patch_shape)
        assert encoder.patch_shape[0] == tokens
        np.testing.assert_array_equal(encoder.patches(prepared[4:5])[0], found[4])
        if arch == CNN:  # pooled by their mean
            np.testing.assert_allclose(unit_rows(found.mean(axis=1)), encoder.encode(prepared), atol=1e-5)
        else:
            from safetensors.torch import load_file

            model = timm.create_model(arch, num_classes=0).eval()
            model.load_state_dict(load_file(weights(arch)), strict=False)
            x = (np.stack(prepared).transpose(0, 3, 1, 2) / 255.0 - 0.5) / 0.5
            with torch.inference_mode():
                own = model.forward_features(torch.from_numpy(x).float())[:, model.num_prefix_tokens :].numpy()
            np.testing.assert_allclose(found, own, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("timm:no_such_model//w.pt", r"list_models\(\)"),
        (f"timm:{VIT}", f"names no weights .tags: r160_in1k.*timm:{VIT}//path"),
        (f"timm:{VIT}.no_tag", "no weights 'no_tag'"),
        (f"timm:{VIT}//no/such/file.pt", "no file /no/such/file.pt"),
        ("timm", "unknown encoder"),
        ("onnx:/no/such/file.onnx", "no ONNX file"),
        ("st:somewhere", "does not encode images; use builtin"),
    ],
)
def test_wrong_image_encoders_say_what_to_do(name: str, advice: str) -> None:
    with pytest.raises(EncoderError, match=advice):
        load_image_encoder(name)


def test_weights_that_are_cut_wrong_or_not_weights_are_named_errors(
    weights: Callable[[str], Path], tmp_path: Path
) -> None:
    data = weights(VIT).read_bytes()
    hostile = tmp_path / "hostile.pt"
    torch.save({"run": Path}, hostile)  # a pickled class, which weights_only refuses
    for name, content in (("cut.safetensors", data[:-50]), ("head.safetensors", data[:40]), ("text.pt", b"no weights")):
        (tmp_path / name).write_bytes(content)
    for name in ("cut.safetensors", "head.safetensors", "text.pt", "hostile.pt"):
        with pytest.raises(EncoderError, match="cannot be loaded"):
            load_image_encoder(f"timm:{VIT}/{tmp_path / name}")
    with pytest.raises(EncoderError, match=r"does not hold the weights|cannot be loaded"):
        load_image_encoder(f"timm:{VIT}/{weights(CNN)}")


def test_a_tag_that_cannot_be_downloaded_says_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    with pytest.raises(EncoderError, match=r"no route to host.*timm:test_vit//path"):
        load_image_encoder(f"timm:{VIT}.r160_in1k", FULL)


def test_odd_preprocessing_is_left_to_the_library(
    weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = timm.data.resolve_model_data_config
    odd = {"crop_mode": "border", "crop_pct": 0.9}
    monkeypatch.setattr("timm.data.resolve_model_data_config", lambda model: config(model) | odd)
    encoder = load_image_encoder(f"timm:{CNN}/{weights(CNN)}", FULL)
    model = timm.create_model(CNN)
    transform = timm.data.create_transform(**config(model) | odd, is_training=False)
    pixels = pictures(1)[0]
    x = (encoder.prepare(pixels) / 255.0 - np.array(config(model)["mean"])) / np.array(config(model)["std"])
    np.testing.assert_allclose(x.transpose(2, 0, 1), transform(Image.fromarray(pixels)).numpy(), atol=1e-5)


# ONNX


def export(file: Path, *, dtype: Any = None, batch: int | str = "n", shape: tuple[int, ...] = (3, 24, 24), **meta: Any):
    """Write an ONNX model: flattened pixels times a fixed matrix, 10 numbers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    dtype = TensorProto.FLOAT if dtype is None else dtype
    plane = np.random.default_rng(1).normal(size=(int(np.prod(shape)), 10)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "plane"], ["rows"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", dtype, [batch, *shape])]
    outputs = [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, [batch, 10]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(plane, "plane")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in meta.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, file)
    return plane


def by_hand(shown: list[U8], plane: F32, mean: Any, std: Any) -> F32:
    x = (np.stack(shown).transpose(0, 3, 1, 2) / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return unit_rows((x.reshape(len(shown), -1) @ plane).astype(np.float32))


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_onnx_rows_are_those_of_the_model(tmp_path: Path, batch: int | str) -> None:
    plane = export(tmp_path / "m.onnx", batch=batch)
    encoder = load_image_encoder(f"onnx:{tmp_path / 'm.onnx'}")
    assert (encoder.dim, encoder.compute) == (10, f"cpu float32 {32 if batch == 'n' else batch}")
    prepared = [encoder.prepare(p) for p in pictures(11)]
    assert prepared[0].shape == (24, 24, 3)
    rows = check_rows(encoder, prepared)
    want = by_hand(prepared, plane, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    np.testing.assert_allclose(rows, want, atol=1e-5)


def test_onnx_from_torch_is_the_torch_network(weights: Callable[[str], Path], tmp_path: Path) -> None:
    import warnings

    model = timm.create_model(CNN, num_classes=0).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(4, 3, 160, 160),), tmp_path / "m.onnx", dynamo=True, verbose=False)
    config = timm.data.resolve_model_data_config(model)
    told = {key: config[key] for key in ("mean", "std", "crop_pct", "interpolation")}
    (tmp_path / "m.json").write_text(json.dumps(told))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    theirs = load_image_encoder(f"timm:{CNN}/{tmp_path / 'w.pt'}", FULL)
    ours = load_image_encoder(f"onnx:{tmp_path / 'm.onnx'}")
    for pixels in pictures(3):
        np.testing.assert_array_equal(ours.prepare(pixels), theirs.prepare(pixels))
    prepared = [theirs.prepare(pixels) for pixels in pictures(3)]
    np.testing.assert_allclose(ours.encode(prepared), theirs.encode(prepared), atol=1e-5)


def test_onnx_of_uint8_pixels_gets_them_as_they_are(tmp_path: Path) -> None:
    from onnx import TensorProto

    plane = export(tmp_path / "m.onnx", dtype=TensorProto.UINT8)
    encoder = load_image_encoder(f"onnx:{tmp_path / 'm.onnx'}")
    prepared = [encoder.prepare(p) for p in pictures(2)]
    np.testing.assert_allclose(
        encoder.encode(prepared), by_hand(prepared, plane * 255, [0, 0, 0], [1, 1, 1]), atol=1e-5
    )


def test_onnx_preparation_comes_from_metadata_and_the_file_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    plane = export(file, mean=[0.5, 0.4, 0.3], resize="squash")
    encoder = load_image_encoder(f"onnx:{file}")
    plain = encoder.fingerprint
    prepared = [encoder.prepare(p) for p in pictures(2)]
    squashed = Image.fromarray(pictures(1)[0]).resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(prepared[0], np.asarray(squashed))
    want = by_hand(prepared, plane, [0.5, 0.4, 0.3], [0.229, 0.224, 0.225])
    np.testing.assert_allclose(encoder.encode(prepared), want, atol=1e-5)
    (tmp_path / "m.json").write_text(json.dumps({"std": [1, 1, 1]}))
    again = load_image_encoder(f"onnx:{file}")
    np.testing.assert_allclose(again.encode(prepared), by_hand(prepared, plane, [0.5, 0.4, 0.3], [1] * 3), atol=1e-5)
    assert again.fingerprint != plain
    (tmp_path / "copy.onnx").write_bytes(file.read_bytes())
    assert load_image_encoder(f"onnx:{tmp_path / 'copy.onnx'}").fingerprint == plain


@pytest.mark.parametrize(
    ("make", "beside", "message"),
    [
        ({"shape": (24, 24, 3)}, "", r"\(n, 3, height, width\)"),
        ({"shape": (1, 24, 24)}, "", r"\(n, 3, height, width\)"),
        ({"dtype": 7}, "", "tensor.int64"),
        ({}, "output = 'x'", "one row each"),
        ({}, "output = 'nothing'", "no output"),
        ({}, "size = 30", "takes 24 x 24 pixels"),
        ({}, "size = 'big'", "makes no sense"),
        ({}, "mean = [1, 2]", "makes no sense"),
        ({}, "std = [1, 0, 1]", "makes no sense"),
        ({}, "colour = 'bgr'", "its keys are"),
        ({}, "size = = 3", "cannot be read"),
        ({"shape": (3, 24, 32)}, "", "squash"),
    ],
)
def test_onnx_that_is_no_image_model_is_a_named_error(
    tmp_path: Path, make: dict[str, Any], beside: str, message: str
) -> None:
    export(tmp_path / "m.onnx", **make)
    if beside:
        (tmp_path / "m.toml").write_text(beside)
    with pytest.raises(EncoderError, match=message):
        load_image_encoder(f"onnx:{tmp_path / 'm.onnx'}")


def test_damaged_onnx_and_onnx_for_text_are_named_errors(tmp_path: Path) -> None:
    export(tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    for content in (data[: len(data) // 2], b"", b"no model"):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(EncoderError, match=r"cannot be (loaded|read)"):
            load_image_encoder(f"onnx:{tmp_path / 'm.onnx'}")
    with pytest.raises(EncoderError, match=r"does not encode captions; use builtin.*st:"):
        load_text_encoder("onnx:m.onnx")
    assert default_text_encoder("onnx:m.onnx") == default_text_encoder("timm:x") == "builtin"


# Sentence transformers


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: a tiny BERT drawn at random, mean pooling, a prompt."""
    st, hf = pytest.importorskip("sentence_transformers"), pytest.importorskip("transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers import models as kinds

    folder = tmp_path_factory.mktemp("st")
    inner = Tokenizer(kinds.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    hf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **named).save_pretrained(folder / "bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = hf.BertConfig(
            vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=64, initializer_range=0.5,
        )  # fmt: skip
        hf.BertModel(config).save_pretrained(folder / "bert")
    word = Transformer(str(folder / "bert"), max_seq_length=40)
    model = st.SentenceTransformer(modules=[word, Pooling(24)], device="cpu", prompts={"document": "a ball "})
    model.save(str(folder / "model"))
    return folder / "model"


def test_sentence_rows_are_those_of_the_library_and_depend_on_no_other(sentences: Path) -> None:
    import sentence_transformers

    encoder = load_text_encoder(f"st:{sentences}", FULL)
    texts = ["a dog", "", "a red ball", "dog " * 14, "cat " * 100, "a dog runs on a beach " * 5, "red", "ball", "on",
             "cat", "cat dog"]  # fmt: skip
    rows = check_rows(encoder, texts)
    own = sentence_transformers.SentenceTransformer(str(sentences), device="cpu", local_files_only=True)
    np.testing.assert_allclose(rows, unit_rows(own.encode(texts)), atol=1e-5)
    full = ["dog " * 14] * 5  # 16 tokens with their frame: no padding
    np.testing.assert_array_equal(encoder.encode(full)[4], encoder.encode(["dog " * 14, "a dog"])[0])


def test_sentence_fingerprint_follows_weights_pooling_and_prompt(sentences: Path, tmp_path: Path) -> None:
    import shutil

    first = load_text_encoder(f"st:{sentences}", FULL).fingerprint
    copy = shutil.copytree(sentences, tmp_path / "elsewhere")
    assert load_text_encoder(f"st:{copy}", Settings("cpu", "float32", 8)).fingerprint == first
    assert load_text_encoder(f"st:{copy}", Settings("cpu", "bfloat16")).fingerprint != first
    config = copy / "config_sentence_transformers.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"default_prompt_name": "document"}))
    assert load_text_encoder(f"st:{copy}", FULL).fingerprint != first
    config.write_text(json.dumps(told))
    from safetensors.torch import load_file, save_file

    state = load_file(copy / "model.safetensors")
    save_file({k: v + 0.01 for k, v in state.items()}, copy / "model.safetensors", {"format": "pt"})
    assert load_text_encoder(f"st:{copy}", FULL).fingerprint != first


def test_wrong_sentence_models_are_named_errors_and_code_is_not_run(
    sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    for name, advice in (("st:/no/such/folder", "no folder"), (f"st:{tmp_path}", "cannot be loaded")):
        with pytest.raises(EncoderError, match=advice):
            load_text_encoder(name)
    copy = shutil.copytree(sentences, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_text_encoder(f"st:{copy}")
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the model was run')")
    monkeypatch.syspath_prepend(tmp_path)
    modules = json.loads((sentences / "modules.json").read_text())
    modules[0]["type"] = "evil.Transformer"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_text_encoder(f"st:{copy}")


# Devices


def test_a_full_memory_halves_the_batch_and_the_rows_are_those_of_the_smaller_one(
    weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"timm:{CNN}/{weights(CNN)}"
    small = load_image_encoder(name, Settings("cpu", "float32", 2))
    encoder: Any = load_image_encoder(name, Settings("cpu", "float32", 8))
    prepared = [encoder.prepare(pixels) for pixels in pictures(11)]
    function = encoder._network._function
    seen = []

    def full(x: Any) -> Any:
        seen.append(x.shape[0])
        if x.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(x)

    monkeypatch.setattr(encoder._network, "_function", full)
    with caplog.at_level(logging.WARNING, "curate"):
        rows = encoder.encode(prepared)
    np.testing.assert_array_equal(rows, small.encode(prepared))
    assert seen == [8, 4] + [2] * 6
    assert encoder.compute == small.compute == "cpu float32 2"
    assert encoder.fingerprint == small.fingerprint
    assert "batches of 2 from here on" in caplog.text
    monkeypatch.setattr(encoder._network, "_function", lambda x: full(torch.zeros(9)))
    with pytest.raises(EncoderError, match="not even one"):
        encoder.encode(prepared)


def test_memory_that_fills_up_later_keeps_the_rows_before() -> None:
    calls = []

    def function(x: Any) -> Any:
        calls.append(x.shape[0])
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        return x.float()

    network = TorchNetwork(function, "cpu", Compute("cpu", batch=4))
    items = [np.full(2, i, np.uint8) for i in range(13)]
    np.testing.assert_array_equal(network(items, items[0], 2)[:, 0], np.arange(13))
    assert calls == [4, 4, 4, 2, 2, 2]


def test_devices_and_precisions_that_are_not_there_are_named_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("tpu", "cpu:x", "", "mps" if not torch.backends.mps.is_available() else "cuda"):
        with pytest.raises(EncoderError, match=r"encode.device is .*this machine has: cpu"):
            resolved(Settings(device=device))
    with pytest.raises(EncoderError, match=r"encode.precision.*auto, float32"):
        resolved(Settings(device="cpu", precision="int4"))
    with pytest.raises(EncoderError, match="float32 only"):
        load_image_encoder("builtin", Settings(precision="bfloat16"))
    for units, best in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("curate.encoders.compute.has_bfloat16_units", lambda units=units: units)
        assert resolved(Settings("cpu")) == ("cpu", Compute("cpu", best, 32))
    assert Compute.parse(str(Compute("cuda", "float16", 64, compiled=True))) == Compute("cuda", "float16", 64, True)
    assert Compute.parse("") is None


def test_compiled_networks_are_asked_for_with_fixed_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: asked.append(dynamic) or function)
    network = TorchNetwork(lambda x: x.float(), "cpu", Compute("cpu", batch=2, compiled=True))
    np.testing.assert_array_equal(network([np.ones(2, np.uint8)], np.ones(2, np.uint8), 2), [[1, 1]])
    assert asked == [False]
    assert str(network.compute) == "cpu float32 2 compiled"


# Several devices


def test_rows_of_two_processes_are_those_of_one_and_a_dead_one_is_named(weights: Callable[[str], Path]) -> None:
    name = f"timm:{CNN}/{weights(CNN)}"
    one = load_image_encoder(name, FULL)
    two: Any = load_image_encoder(name, Settings("cpu,cpu", "float32", 4))
    assert (two.name, two.dim, two.fingerprint, two.compute) == (one.name, one.dim, one.fingerprint, one.compute)
    prepared = [two.prepare(pixels) for pixels in pictures(21)]
    for n in (21, 9, 3, 0):
        np.testing.assert_array_equal(two.encode(prepared[:n]), one.encode(prepared[:n]))
    with pytest.raises(EncoderError, match=r"item 5 .* prepare\(\)"):
        two.encode([*prepared[:5], np.zeros((3, 3, 3), np.uint8)])
    two._workers[0]._process.kill()
    with pytest.raises(EncoderError, match="on cpu failed: its process has died"):
        two.encode(prepared)
    two.close()
    for devices in ("cpu,cuda", "cpu,", "cpu,tpu"):
        with pytest.raises(EncoderError, match="device"):
            load_image_encoder(name, Settings(devices))
