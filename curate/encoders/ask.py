"""Ask a model about each sample: the probability that it answers yes.

Ask-LLM: Sachdeva et al., "How to Train Data-Efficient LLMs", 2024 (2402.09668), section 3.1: the score of a text is the
probability of the next token "yes" after a prompt. Here it is taken against "no", and of a caption or of a picture
with its caption.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from curate.encoders.fingerprints import fingerprint, state_hash
from curate.encoders.protocols import F32, U8
from curate.errors import EncoderError

if TYPE_CHECKING:
    import torch

CAPTION = "{caption}"
CAPTION_PROMPT = """###
{caption}
###

Does the text between ### and ### describe a picture well enough to help in training a model of images and text? \
A good caption is well formed and says something specific that can be seen; it is no advertisement, no list of \
keywords, no file name, and nothing harmful.

OPTIONS:
- yes
- no

ANSWER:"""
PAIR_PROMPT = """Caption: {caption}

Does this caption describe the picture correctly and specifically enough to help in training a model of images and \
text? Answer with yes or no."""
YES = ("yes", " yes", "Yes", " Yes", "YES", " YES")
NO = ("no", " no", "No", " No", "NO", " NO")


class AskScorer(Protocol):
    """Samples in, probabilities of yes out; high: the model would keep the sample.

    name: folder or hub name of the model; fingerprint: 32 hex digits over weights, prompt, answers and truncation
    reads_images: whether `score` needs the pictures
    """

    name: str
    fingerprint: str
    reads_images: bool

    def score(self, captions: Sequence[str], images: Sequence[U8] | None = None) -> F32:
        """Return (n,) float32 P(yes) / (P(yes) + P(no)) in [0, 1]; n may be 0.

        captions: n texts, the empty one is a text; images: n pictures (H, W, 3) uint8 RGB where they are read

        Raises:
            EncoderError: the pictures are missing, or not as many as captions.
        """
        ...


@dataclass(frozen=True, slots=True)
class AskSettings:
    """prompt: with the place of the caption as {caption}, "" for the default of the kind of model
    batch: samples a forward pass; max_tokens: of a caption, longer ones are cut; device: torch's name, "" for the best
    """

    prompt: str = ""
    batch: int = 16
    max_tokens: int = 256
    device: str = ""


def load_ask_scorer(name: str, *, reads_images: bool = False, settings: AskSettings | None = None) -> TransformersAsk:
    """Return the scorer of a transformers model that lies in a folder or in the local cache; nothing is downloaded.

    reads_images: a vision-language model (image-text-to-text) instead of a language model (causal or seq2seq)

    Raises:
        EncoderError: the model is not here or not of this kind, it has no answer of one token, or the prompt holds no
            place for the caption.
    """
    settings = settings or AskSettings()
    prompt = settings.prompt or (PAIR_PROMPT if reads_images else CAPTION_PROMPT)
    if CAPTION not in prompt or settings.batch < 1 or settings.max_tokens < 1:
        raise EncoderError(f"the prompt of {name} must hold {CAPTION}, batch and max_tokens must be at least 1")
    try:
        processor, model = _load(name, reads_images)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        kind = "vision-language" if reads_images else "language"
        raise EncoderError(
            f"no {kind} model {name!r} can be loaded from here ({first}); give a folder with its weights, config and "
            "tokenizer, or fetch it first: hf download <name>"
        ) from error
    return TransformersAsk(name, processor, model, prompt, settings, reads_images=reads_images)


def _load(name: str, reads_images: bool) -> tuple[Any, torch.nn.Module]:
    import transformers as hf

    if reads_images:
        processor = hf.AutoProcessor.from_pretrained(name, local_files_only=True)
        kind = hf.AutoModelForImageTextToText
    else:
        processor = hf.AutoTokenizer.from_pretrained(name, local_files_only=True)
        config = hf.AutoConfig.from_pretrained(name, local_files_only=True)
        kind = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    model, report = kind.from_pretrained(name, local_files_only=True, output_loading_info=True)
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"its weights lack {missing}, which would be drawn at random")
    return processor, model.eval()


class TransformersAsk:
    """An `AskScorer` of a transformers model: float32 on a CPU, bfloat16 on a GPU."""

    def __init__(
        self,
        name: str,
        processor: Any,
        model: torch.nn.Module,
        prompt: str,
        settings: AskSettings,
        *,
        reads_images: bool,
    ) -> None:
        import torch

        self.name, self.reads_images = name, reads_images
        self._settings, self._processor = settings, processor
        self._device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = processor.tokenizer if reads_images else processor
        self._tokenizer.padding_side = "right" if model.config.is_encoder_decoder else "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self._prompt, self._has_template = _templated(processor, prompt, reads_images)
        image_token = getattr(processor, "image_token", None)
        self._special = [*self._tokenizer.all_special_tokens, *([image_token] if image_token else [])]
        self._yes, self._no = _answers(name, self._tokenizer)
        parts = (self._prompt, str(settings.max_tokens), str(self._yes + self._no))
        self.fingerprint = fingerprint("ask", state_hash(model.state_dict()), *parts)
        self._model = model.to(self._device, torch.float32 if self._device == "cpu" else torch.bfloat16)
        self._accepts = set(inspect.signature(model.forward).parameters)

    def score(self, captions: Sequence[str], images: Sequence[U8] | None = None) -> F32:
        """Return (n,) float32 P(yes) / (P(yes) + P(no)); see `AskScorer`."""
        if self.reads_images and (images is None or len(images) != len(captions)):
            raise EncoderError(f"{self.name} reads pictures: give one for each of the {len(captions)} captions")
        prompts = [self._prompt.replace(CAPTION, self._cut(caption)) for caption in captions]
        # Alike in length, they need little padding.
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        out = np.empty(len(prompts), dtype=np.float32)
        for start in range(0, len(prompts), self._settings.batch):
            rows = order[start : start + self._settings.batch]
            pictures = [images[i] for i in rows] if self.reads_images and images is not None else None
            out[rows] = self._probabilities([prompts[i] for i in rows], pictures)
        return out

    def _cut(self, caption: str) -> str:
        """Return a caption of at most `max_tokens`, so that the question after it is never cut.

        Special tokens in it become spaces: a caption must neither end the prompt nor announce another picture.
        """
        most = self._settings.max_tokens
        for token in self._special:
            caption = caption.replace(token, " ")
        caption = caption.encode("utf-8", "replace").decode()[
            : most * 64
        ]  # no token is longer; a lone surrogate is none
        ids = self._tokenizer(caption, add_special_tokens=False)["input_ids"]
        return caption if len(ids) <= most else str(self._tokenizer.decode(ids[:most], skip_special_tokens=True))

    def _probabilities(self, prompts: list[str], images: list[U8] | None) -> F32:
        import torch

        # A chat template writes the special tokens itself.
        options = {"padding": True, "return_tensors": "pt", "add_special_tokens": not self._has_template}
        if images is None:
            inputs = self._processor(prompts, **options)
        else:
            from PIL import Image

            inputs = self._processor(images=[[Image.fromarray(p)] for p in images], text=prompts, **options)
        arguments = {key: value.to(self._device) for key, value in inputs.items() if key in self._accepts}
        with torch.inference_mode():
            logits = self._next_logits(arguments)
            yes, no = (torch.logsumexp(logits[:, ids], dim=1) for ids in (self._yes, self._no))
            scores: F32 = torch.sigmoid(yes - no).cpu().numpy()
        return scores

    def _next_logits(self, arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return (b, vocabulary) float32 logits of the token that follows."""
        import torch

        if self._model.config.is_encoder_decoder:
            start = self._model.config.decoder_start_token_id
            rows = arguments["input_ids"].shape[0]
            arguments["decoder_input_ids"] = torch.full((rows, 1), start, device=self._device)
        else:
            if not self.reads_images and "position_ids" in self._accepts:
                # Models count positions from the left edge, padding included.
                arguments["position_ids"] = (arguments["attention_mask"].cumsum(1) - 1).clamp(min=0)
            if "logits_to_keep" in self._accepts:
                arguments["logits_to_keep"] = 1  # one row of the vocabulary instead of one for each token
        logits: torch.Tensor = self._model(**arguments).logits[:, -1].float()
        return logits


def _templated(processor: Any, prompt: str, reads_images: bool) -> tuple[str, bool]:
    """Return the prompt as the model was taught to read questions, and whether it has such a template."""
    if not getattr(processor, "chat_template", None):
        token = getattr(processor, "image_token", "<image>")
        return (f"{token}\n{prompt}" if reads_images else prompt), False
    text = [{"type": "image"}, {"type": "text", "text": prompt}] if reads_images else prompt
    messages = [{"role": "user", "content": text}]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)), True


def _answers(name: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that say yes and those that say no, of all spellings that are one token."""

    def tokens(spellings: Sequence[str]) -> set[int]:
        split = [tokenizer.encode(word, add_special_tokens=False) for word in spellings]
        return {ids[0] for ids in split if len(ids) == 1} - {tokenizer.unk_token_id}

    yes, no = tokens(YES), tokens(NO)
    if not yes - no or not no - yes:
        raise EncoderError(f"the tokenizer of {name} has no token for yes, or none for no: use another model")
    return sorted(yes - no), sorted(no - yes)
