"""Text from others: no part of it controls the display, and everything readable stays."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.text import clean, encodable, one_line, printable, quoted, visible

ANY = st.text(
    st.characters(exclude_categories=()) | st.sampled_from("\x1b[]0;m\x07\r\n\t <|\u202e")
)
ACTS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that have an effect but no glyph: controls, format characters, surrogates,
line and paragraph separators."""


def acting(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ACTS and c not in "\n\t"}


SEEN = {*"\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"}
SEEN |= {chr(code) for code in range(0x13439, 0x13440)}
"""Format characters that are seen, and so stay: signs before Arabic and Syriac numbers, and those
controls of hieroglyphs that Unicode 14 does not have."""


@given(ANY)
def test_nothing_that_acts_is_left(text):
    for shown in (printable(text), visible(text), clean(text), one_line(text, 100)):
        assert not acting(shown) - SEEN


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")) | st.sampled_from("\n\t")))
def test_what_can_be_read_stays_as_it_is(text):
    assert printable(text) == visible(text) == encodable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[1;31mb\x1b[0mc", "abc"),
        ("a\x9b2Jb", "ab"),
        ("\x1b]0;a title\x07b", "]0;a titleb"),  # a title's text stays, so that it hides no word
        ("\x1bPhidden\x1b\\seen", "hiddenseen"),
        ("one\r\ntwo\u2028three", "one\ntwothree"),
        ("pay\u202eload\u200b\ufeff", "payload"),
        ("\U000e0069\U000e006e", ""),  # invisible letters that only a model sees
    ],
)
def test_what_acts_goes_and_words_stay(text, shown):
    assert printable(text) == shown
    assert clean(text) == shown


def test_where_code_is_shown_a_sign_stands_for_what_is_unseen():
    assert visible("if a\u202e == b:\r\n\treturn\x1b[2J") == "if a\ufffd == b:\n\treturn\ufffd[2J"


@given(ANY, st.integers(1, 50))
def test_a_line_is_one_line_of_no_more_than_its_limit(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.splitlines() in ([], [line])


def test_what_is_cut_says_so_at_the_end_that_is_cut():
    assert clean("12345", 5) == "12345"
    assert clean("123456", 5) == "…23456"
    assert clean("123456", 5, keep="head") == "12345…"
    assert one_line("one two", 5) == "one…"


@given(ANY)
def test_what_is_encodable_is_written_and_read_back(text):
    told = encodable(text)
    assert told.encode().decode() == told


def test_half_of_a_pair_is_a_sign_and_two_halves_are_a_character():
    assert encodable("\ud83d") == "\ufffd"
    assert encodable("\ud83d\ude00") == "😀"


def test_no_line_of_a_message_can_pass_for_one_of_ours():
    assert quoted("bad\nvalid: yes", "  ") == "  | bad\n  | valid: yes"
