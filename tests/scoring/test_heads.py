"""Learned scorers of embeddings, and zero-shot prompts."""

from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

from curate.encoders.prompts import prompt_scorer
from curate.errors import EncoderError, UsageError
from curate.scoring.heads import make_head, read_head

X = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=np.float32)


def test_linear_head_by_hand(tmp_path) -> None:
    path = tmp_path / "head.safetensors"
    save_file(
        {"weight": np.array([[2.0, -1.0, 5.0]], dtype=np.float32), "bias": np.array([0.5], dtype=np.float32)}, path
    )
    head = read_head(path)
    assert head.dim == 3
    np.testing.assert_allclose(head.score(X), [2.5, -0.5, 0.5])
    np.testing.assert_allclose(
        read_head(path, output="sigmoid").score(X), 1 / (1 + np.exp([-2.5, 0.5, -0.5])), rtol=1e-6
    )


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("prefix", ["", "layers.", "model.head."])
def test_network_is_the_one_of_torch(tmp_path, activation: str, prefix: str) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    torch.manual_seed(0)
    between = {"none": "Identity", "relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "Tanh"}[activation]
    # Eleven modules, so that 10 sorts behind 2.
    linears = {0: torch.nn.Linear(3, 5), 2: torch.nn.Linear(5, 4), 10: torch.nn.Linear(4, 2, bias=False)}
    layers = [
        linears.get(i) or (torch.nn.Identity() if i % 2 == 0 or i > 4 else getattr(torch.nn, between)())
        for i in range(11)
    ]
    network = torch.nn.Sequential(*layers)
    save_torch({prefix + name: tensor for name, tensor in network.state_dict().items()}, tmp_path / "h.safetensors")
    head = read_head(tmp_path / "h.safetensors", activation=activation, output="softmax", column=1)
    with torch.inference_mode():
        expected = network(torch.from_numpy(X)).softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(head.score(X), expected, rtol=1e-5)


W, B = np.ones((1, 3), dtype=np.float32), np.zeros(1, dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "nothing"),
        ({"weight": W, "scale": B}, "scale"),
        ({"bias": B}, "bias"),
        ({"weight": W, "bias": np.zeros(2)}, "shape"),
        ({"weight": np.ones(3)}, "shape"),
        ({"weight": np.ones((0, 3))}, "shape"),
        ({"0.weight": W, "2.weight": W}, "width 1"),
        ({"weight": W * np.nan, "bias": B}, "NaN"),
    ],
)
def test_tensors_that_are_no_head_are_named(tensors, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_head(tensors)


@pytest.mark.parametrize("option", [{"activation": "mish"}, {"output": "exp"}, {"column": 1}, {"column": -1}])
def test_options_out_of_range_are_named(option) -> None:
    with pytest.raises(UsageError, match=r"mish|exp|column"):
        make_head({"weight": W}, **option)


def test_embeddings_of_another_encoder_are_named() -> None:
    with pytest.raises(UsageError, match="3 dimensions"):
        make_head({"weight": W}).score(np.zeros((2, 4), dtype=np.float32))
    assert make_head({"weight": W}).score(np.zeros((0, 3), dtype=np.float32)).shape == (0,)


def test_files_that_are_no_safetensors_are_named(tmp_path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04K\x01.")
    save_torch({"weight": torch.ones(1, 3, dtype=torch.float8_e4m3fn)}, tmp_path / "f8.safetensors")
    for name in ("missing.safetensors", "pickle.pt", "f8.safetensors"):
        with pytest.raises(UsageError, match=name):
            read_head(tmp_path / name)


class Words:
    """A text encoder of three words."""

    name, dim, fingerprint, epsilon = "words", 3, "0" * 32, None
    rows: ClassVar = {"dog": (1, 0, 0), "cat": (0, 1, 0), "blur": (0, 0, 1), "void": (0, 0, 0)}

    def encode(self, texts):
        return np.array([self.rows[text] for text in texts], dtype=np.float32).reshape(-1, 3)


def test_prompt_score_is_the_softmax_of_both_sides() -> None:
    scorer = prompt_scorer(Words(), ["dog", "cat"], ["blur"], temperature=2.0)
    side = 2 / np.sqrt(2)
    expected = [np.exp(side) / (np.exp(side) + 1), 1 / (1 + np.exp(2.0)), 0.5]
    x = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(scorer.score(x), expected, rtol=1e-6)
    assert prompt_scorer(Words(), ["dog"], ["blur"], 1e6).score(x).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(("positive", "negative"), [([], ["dog"]), (["dog"], "cat"), (["void"], ["dog"])])
def test_prompts_without_a_direction_are_named(positive, negative) -> None:
    with pytest.raises(EncoderError, match="prompts"):
        prompt_scorer(Words(), positive, negative)


def test_images_of_another_space_are_named() -> None:
    with pytest.raises(EncoderError, match="3 dimensions"):
        prompt_scorer(Words(), ["dog"], ["cat"]).score(np.zeros((1, 4), dtype=np.float32))
