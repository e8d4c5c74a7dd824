"""Scorers that ask a model, with tiny models drawn at random and a tokenizer of whole words."""

from pathlib import Path

import numpy as np
import pytest

from curate.encoders.ask import AskSettings, load_ask_scorer
from curate.errors import EncoderError

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "</s>", "<image>", "a", "dog", "red", "ball", "runs", "on", "beach", "cat", "Caption", ":",
         "?", "yes", "no", "Yes", "No", "Answer", "with", "or"]  # fmt: skip
PROMPT = "Caption : {caption} ? Answer with yes or no"
CAPTIONS = ["a dog", "a red ball on a beach runs on a beach", "", "cat", "a dog runs {caption} {0}"]
YES, NO = [WORDS.index("yes"), WORDS.index("Yes")], [WORDS.index("no"), WORDS.index("No")]


def tokenizer(words: list[str] = WORDS):
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "</s>", "additional_special_tokens": ["<image>"]}
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def save(folder: Path, model, processor) -> str:
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)  # the default draws would make every answer 0.5
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def causal(tmp_path: Path):
    torch.manual_seed(0)
    config = hf.GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    model = hf.GPT2LMHeadModel(config)
    return save(tmp_path / "causal", model, tokenizer()), model


@pytest.fixture
def seq2seq(tmp_path: Path):
    torch.manual_seed(0)
    config = hf.T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model = hf.T5ForConditionalGeneration(config)
    return save(tmp_path / "seq2seq", model, tokenizer()), model


@pytest.fixture
def vision(tmp_path: Path):
    torch.manual_seed(0)
    seen = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    told = hf.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    config = hf.LlavaConfig(vision_config=seen, text_config=told, image_token_id=3, vision_feature_layer=-1)
    model = hf.LlavaForConditionalGeneration(config)
    shape = {"height": 28, "width": 28}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=shape), tokenizer(), patch_size=14,
        vision_feature_select_strategy="default", image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    return save(tmp_path / "vision", model, processor), model, processor


def scorer(name: str, **options):
    return load_ask_scorer(name, settings=AskSettings(prompt=PROMPT, batch=3, device="cpu"), **options)


def by_hand(logits) -> float:
    p = torch.softmax(logits.double(), dim=0)
    return float(p[YES].sum() / (p[YES].sum() + p[NO].sum()))


def ids_of(prompt: str):
    return torch.tensor([[WORDS.index(word) if word in WORDS else 1 for word in prompt.split()]])


def test_causal_model_gives_the_softmax_of_one_prompt_at_a_time(causal) -> None:
    name, model = causal
    with torch.inference_mode():
        expected = [by_hand(model(ids_of(PROMPT.replace("{caption}", c))).logits[0, -1]) for c in CAPTIONS]
    ask = scorer(name)
    scores = ask.score(CAPTIONS)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores) > 0.01
    np.testing.assert_allclose([ask.score([c])[0] for c in CAPTIONS], scores, atol=1e-5)
    assert ask.score([]).shape == (0,)


def test_seq2seq_model_gives_the_softmax_of_one_prompt_at_a_time(seq2seq) -> None:
    name, model = seq2seq
    start = torch.zeros((1, 1), dtype=torch.int64)
    with torch.inference_mode():
        expected = [
            by_hand(model(ids_of(PROMPT.replace("{caption}", c)), decoder_input_ids=start).logits[0, -1])
            for c in CAPTIONS
        ]
    scores = scorer(name).score(CAPTIONS)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores) > 0.01


def pictures(n: int):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (30 + i, 44, 3), dtype=np.uint8) for i in range(n)]


def test_vision_model_gives_the_softmax_of_one_pair_at_a_time(vision) -> None:
    name, model, processor = vision
    images, expected = pictures(len(CAPTIONS)), []
    for caption, image in zip(CAPTIONS, images, strict=True):
        pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"]
        prompt = "<image> " * 4 + PROMPT.replace("{caption}", caption)
        with torch.inference_mode():
            expected.append(by_hand(model(input_ids=ids_of(prompt), pixel_values=pixels).logits[0, -1]))
    ask = scorer(name, reads_images=True)
    scores = ask.score(CAPTIONS, images)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert abs(ask.score(["a dog"], [images[1]])[0] - scores[0]) > 1e-6
    with pytest.raises(EncoderError, match="one for each of the 5"):
        ask.score(CAPTIONS, images[:2])
    with pytest.raises(EncoderError, match="reads pictures"):
        ask.score(CAPTIONS)


def test_chat_template_is_used_where_there_is_one(vision, causal) -> None:
    name, _, processor = vision
    processor.chat_template = (
        "{% for c in messages[0]['content'] %}{% if c['type'] == 'image' %}<image>{% else %} {{ c['text'] }}{% endif %}"
        "{% endfor %} Answer :"
    )
    processor.save_pretrained(name)
    image = pictures(1)
    asked = AskSettings(prompt=PROMPT + " Answer :", device="cpu")
    templated = scorer(name, reads_images=True).score(["a dog"], image)
    processor.chat_template = None
    (Path(name) / "chat_template.jinja").unlink()
    plain = load_ask_scorer(name, reads_images=True, settings=asked).score(["a dog"], image)
    np.testing.assert_allclose(templated, plain, atol=1e-5)
    words = tokenizer()
    words.chat_template = "{{ messages[0]['content'] }} Answer :"
    plain = load_ask_scorer(causal[0], settings=asked).score(["a dog"])
    words.save_pretrained(causal[0])
    np.testing.assert_allclose(scorer(causal[0]).score(["a dog"]), plain, atol=1e-5)


def test_special_tokens_in_a_caption_are_no_special_tokens(causal, vision) -> None:
    ask = scorer(causal[0])
    np.testing.assert_allclose(ask.score(["a </s> dog [PAD]"]), ask.score(["a dog"]), atol=1e-6)
    pair = scorer(vision[0], reads_images=True)
    image = pictures(1)
    np.testing.assert_allclose(pair.score(["a <image> dog"], image), pair.score(["a dog"], image), atol=1e-6)


def test_long_caption_is_cut_and_the_question_is_not(causal) -> None:
    ask = load_ask_scorer(causal[0], settings=AskSettings(prompt=PROMPT, max_tokens=3, device="cpu"))
    np.testing.assert_allclose(ask.score(["a dog runs " + "cat " * 5000]), ask.score(["a dog runs"]), atol=1e-6)
    assert np.isfinite(ask.score(["\ud800 \0", "狗" * 9999])).all()


def test_fingerprint_changes_with_the_prompt_and_with_nothing_else(causal, seq2seq) -> None:
    other = load_ask_scorer(causal[0], settings=AskSettings(prompt=PROMPT + " :", device="cpu"))
    prints = [scorer(causal[0]).fingerprint, other.fingerprint, scorer(seq2seq[0]).fingerprint]
    assert len(set(prints)) == 3
    assert scorer(causal[0]).fingerprint == prints[0]
    assert {len(p) for p in prints} == {32}


def test_default_prompt_needs_no_settings(causal) -> None:
    tall = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=len(WORDS), n_positions=256, n_embd=16, n_layer=1, n_head=2))
    tall.save_pretrained(causal[0])
    assert 0.0 <= load_ask_scorer(causal[0]).score(["a dog"])[0] <= 1.0


@pytest.mark.parametrize("reads_images", [False, True])
def test_missing_model_is_a_named_error(tmp_path: Path, reads_images: bool) -> None:
    for name in (str(tmp_path / "nothing"), "nobody/no-such-model"):
        with pytest.raises(EncoderError, match="can be loaded from here"):
            load_ask_scorer(name, reads_images=reads_images)


def test_model_of_another_kind_is_a_named_error(causal) -> None:
    with pytest.raises(EncoderError, match="vision-language"):
        load_ask_scorer(causal[0], reads_images=True)


def test_weights_that_would_be_drawn_at_random_are_a_named_error(causal) -> None:
    from safetensors.torch import load_file, save_file

    file = Path(causal[0]) / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(EncoderError, match="at random"):
        scorer(causal[0])


def test_tokenizer_without_yes_is_a_named_error(causal) -> None:
    tokenizer([word if word not in {"yes", "Yes"} else word[::-1] for word in WORDS]).save_pretrained(causal[0])
    with pytest.raises(EncoderError, match="no token for yes"):
        scorer(causal[0])


@pytest.mark.parametrize(
    "settings", [AskSettings(prompt="Is it good?"), AskSettings(batch=0), AskSettings(max_tokens=0)]
)
def test_settings_that_make_no_sense_are_named(settings: AskSettings) -> None:
    with pytest.raises(EncoderError, match="caption"):
        load_ask_scorer("anything", settings=settings)
