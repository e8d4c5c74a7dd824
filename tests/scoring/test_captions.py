"""Caption quality without a model."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.scoring.captions import CaptionCounts, caption_scores, normalised

TEXTS = st.one_of(st.none(), st.text(max_size=80), st.text(alphabet="aA1.@<>&;-_/ \u0301狗ก:w", max_size=60))


def one(caption: str | None) -> dict[str, float]:
    return {name.removeprefix("caption_"): float(column[0]) for name, column in caption_scores([caption]).items()}


def test_plain_sentence_by_hand() -> None:
    scores = one("A dog  and a cat.")
    assert (scores["chars"], scores["words"]) == (16, 5)
    assert scores["repetition"] == pytest.approx(1 / 5)  # "a" came before
    assert scores["nontext"] == pytest.approx(1 / 12)  # the full stop
    assert scores["caps"] == pytest.approx(1 / 11)


@pytest.mark.parametrize("caption", [None, "", " \n\t", "\u3000"])
def test_nothing_has_no_words(caption: str | None) -> None:
    assert set(one(caption).values()) == {0.0}


@pytest.mark.parametrize(
    "caption",
    ["IMG_1234.jpg", "DSC00412", "http://shop.example/x?id=3", "www.example.com/a", "<img src='x'>", "&nbsp;&nbsp;",
     "20190304_1", "me@example.com", "my-holiday_2.jpeg", "###", "★★★", "Screenshot-2020-01", "①②", "PHOTO0042"],
)  # fmt: skip
def test_what_is_no_language_is_all_nontext(caption: str) -> None:
    assert one(caption)["nontext"] == 1.0


@pytest.mark.parametrize(
    "caption", ["a dog", "Hund läuft", "собака бежит", "कुत्ता दौड़ रहा है", "一只狗", "สุนัขวิ่ง", "كلب يجري"]
)
def test_letters_of_any_script_are_text(caption: str) -> None:
    assert one(caption)["nontext"] == 0.0


def test_address_inside_a_sentence_counts_by_its_length() -> None:
    assert one("a dog http://x.io/1")["nontext"] == pytest.approx(13 / 17, abs=1e-6)


def test_words_of_scripts_without_spaces_are_counted_by_characters() -> None:
    assert one("一只狗在海滩上跑步")["words"] == 5  # 9 characters, 2 a word
    assert one("สุนัขวิ่งบนชายหาด")["words"] == 5  # 17 with their signs, 4 a word
    assert one("红球 and a dog")["words"] == 4
    assert one("कुत्ता दौड़ रहा है")["words"] == 4
    assert one("l’été d'or")["words"] == 2


def test_repetition_is_seen_with_and_without_spaces() -> None:
    assert one("buy now BUY NOW Buy now")["repetition"] == pytest.approx(4 / 6)
    assert one("红色红色红色")["repetition"] == pytest.approx(3 / 5)
    assert one("一只狗在海滩上跑步")["repetition"] == 0.0


def test_capitals_are_a_share_of_the_letters_that_have_cases() -> None:
    assert one("BUY NOW")["caps"] == 1.0
    assert one("ÉTÉ à")["caps"] == pytest.approx(3 / 4)
    assert one("一只狗")["caps"] == 0.0


@given(st.lists(TEXTS, max_size=4))
def test_any_text_gives_finite_scores_and_shares(captions) -> None:
    columns = caption_scores(captions)
    assert list(columns) == [f"caption_{n}" for n in ("chars", "words", "repetition", "nontext", "caps")]
    for name, column in columns.items():
        assert column.shape == (len(captions),)
        assert np.isfinite(column).all()
        assert (column >= 0).all()
        assert name in {"caption_chars", "caption_words"} or (column <= 1).all()
    for i, caption in enumerate(captions):
        assert {name: column[i] for name, column in columns.items()} == {
            name: column[0] for name, column in caption_scores([caption]).items()
        }


@given(TEXTS)
def test_normalising_twice_changes_nothing(caption) -> None:
    text = normalised(caption or "")
    assert normalised(text) == text
    assert "\0" not in text


def test_normalised_keeps_words_only_and_marks_of_words() -> None:
    assert normalised("  A DOG,\u00a0and\ta  ﬁg! ") == "a dog and a fig"
    assert normalised("दौड़") != normalised("दड़")
    assert normalised("\ud800") == ""


@pytest.mark.parametrize(
    "unit",
    ["a-", "<", "<a", "&", "a@", ".", "a.", "www.", "é'", "img", "_", "x", "a.jpgx", "@", "狗", "&#1", "e\u0301", "0"],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    caption = (unit * 200_000)[:200_000]
    started = time.perf_counter()
    caption_scores([caption])
    CaptionCounts().add([caption])
    assert time.perf_counter() - started < 3.0


def test_rows_with_one_caption_are_counted() -> None:
    counts = CaptionCounts()
    counts.add(["Stock photo", "stock  photo.", "Photo 12 of 40", "photo 3 of 40", None, "", "!"])
    asked = ["STOCK PHOTO", "photo 12 of 40", "Photo 99 of 1", "a dog", None, "?"]
    assert counts.same(asked).tolist() == [2, 1, 0, 0, 0, 0]
    assert counts.shared(asked).tolist() == [2, 2, 2, 0, 0, 0]


CAPTIONS = st.lists(st.sampled_from(["a", "A.", "b 1", "b 2", "b2", "", None, "狗", "狗 3"]), max_size=12)
ASKED = ["a", "b 1", "b 9", "狗 3", "b1"]


def table(counts: CaptionCounts) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in counts.arrays().items()}


@given(CAPTIONS, CAPTIONS)
def test_counts_merge_subtract_and_come_back(first, second) -> None:
    both, left, right = CaptionCounts(), CaptionCounts(), CaptionCounts()
    both.add(first + second)
    left.add(first)
    right.add(second)
    alone = table(right)
    left.merge(right)
    assert table(left) == table(both)
    assert table(right) == alone
    left.add(first, sign=-1.0)
    assert table(left) == alone
    np.testing.assert_array_equal(CaptionCounts.from_arrays(both.arrays()).shared(ASKED), both.shared(ASKED))


@given(CAPTIONS)
def test_a_fold_changes_no_answer(captions) -> None:
    counts, folded = CaptionCounts(), CaptionCounts()
    counts.add(captions)
    for caption in captions:
        folded.add([caption])
        folded.arrays()
    folded.add(["b 1"])
    counts.add(["b 1"])
    for ask in (CaptionCounts.same, CaptionCounts.shared):
        np.testing.assert_array_equal(ask(counts, ASKED), ask(folded, ASKED))
    assert (counts.shared(ASKED) >= counts.same(ASKED)).all()
