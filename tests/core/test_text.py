"""Text from outside is shown as one line that acts on no terminal, in any encoding."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.core.text import ESCAPED, shown

ANY = st.text(st.characters(exclude_categories=()), max_size=40)
"""With surrogates: the bytes of a name that is not UTF-8."""


@given(ANY)
def test_nothing_that_is_shown_acts_on_a_terminal(text):
    said = shown(text)
    assert len(said.splitlines()) <= 1
    assert not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in said)
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not directions & {unicodedata.bidirectional(each) for each in said}
    assert shown(said) == said
    said.encode("utf-8")


@pytest.mark.parametrize("text", ["鲸 Ωé 🐋", "Risso's [red] :whale:", "a\u200db", "=1+1"])
def test_other_text_is_as_it_was(text):
    assert shown(text) == text


def test_what_acts_is_told_by_its_code():
    assert shown("a\x1b[31m\n\t\u202eb\udcea\x9b") == "a\\x1b[31m\\n\\t\\u202eb\\xea\\x9b"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "shift_jis"])
@given(text=ANY)
def test_any_encoding_takes_any_text(encoding, text):
    assert text.encode(encoding, ESCAPED).decode(encoding) is not None


def test_our_own_characters_have_a_plain_form():
    assert "0.5 – 0.7 … ╭──╮ 鲸".encode("ascii", ESCAPED) == b"0.5 - 0.7 ... +--+ \\u9cb8"
    assert "Größe 鲸 –".encode("cp1252", ESCAPED).decode("cp1252") == "Größe \\u9cb8 –"
