"""Captioners: tiny models drawn at random, saved to a folder, and read back without a network."""

from pathlib import Path

import numpy as np
import pytest

from curate.encoders.captioner import load_captioner
from curate.errors import EncoderError

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *[f"word{i}" for i in range(60)]]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    hf.PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(folder)


def drawn(model):
    """Return a model with weights that differ enough to say different things about different pictures."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 2.0)
    return model.eval()


def encoder_decoder():
    seen = hf.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    told = hf.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, is_decoder=True, add_cross_attention=True,
    )  # fmt: skip
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(seen, told)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model = hf.VisionEncoderDecoderModel(config)
    model.generation_config = hf.GenerationConfig(decoder_start_token_id=2, pad_token_id=0, eos_token_id=3)
    return model, hf.ViTImageProcessor(size={"height": 32, "width": 32})


def blip():
    seen = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    told = seen | {"vocab_size": len(WORDS), "max_position_embeddings": 64, "encoder_hidden_size": 16}
    told |= {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3, "projection_dim": 8}
    config = hf.BlipConfig(
        vision_config=seen | {"image_size": 32, "patch_size": 8, "projection_dim": 8}, text_config=told
    )
    return hf.BlipForConditionalGeneration(config), hf.BlipImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture(params=[encoder_decoder, blip], ids=["encoder-decoder", "blip"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    model, processor = request.param()
    drawn(model).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return str(tmp_path)


def pictures(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(6 + i, 0).repeat(9, 1) for i in range(n)]


def test_captions_are_words_and_do_not_depend_on_the_company(folder: str) -> None:
    captioner = load_captioner(folder)
    images = pictures(11)  # more than a batch
    said = captioner.caption(images)
    assert len(said) == 11
    assert all(set(caption.split()) <= set(WORDS[4:]) for caption in said)
    assert len(set(said)) > 1
    assert captioner.caption(images[3:5]) == said[3:5]
    assert captioner.caption([]) == []


def test_the_fingerprint_is_that_of_the_weights(folder: str) -> None:
    first = load_captioner(folder)
    assert load_captioner(f"hf:{folder}").fingerprint == first.fingerprint
    model = hf.AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(folder)
    assert load_captioner(folder).fingerprint != first.fingerprint


def test_what_is_not_there_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no captioner 'hf:nobody/nothing'.*hf download nobody/nothing"):
        load_captioner("hf:nobody/nothing")
    with pytest.raises(EncoderError, match="no captioner"):
        load_captioner(str(tmp_path))
