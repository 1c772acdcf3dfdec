"""Names in any script are drawn without boxes and warnings, and none breaks a picture."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as some
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.evaluation import lettering, plots
from watkins_ml.evaluation.attribution import attribution_picture
from watkins_ml.evaluation.lettering import legible

SCRIPTS = ["座头鲸", "ザトウクジラ", "혹등고래", "व्हेल", "วาฬ", "Горбатый кит", "الحوت", "לווייתן", "🐋 whale", "𒀀",
           "Φάλαινα"]  # fmt: skip
ODD = ["$x$", "a$b", "\\$", "$\\frac{", "new\nline", "tab\there", "\x1b[31mred\x07", "a\u202eb\u200bc",
       "\udce9t\udce9", "_x", "", "  ", "x" * 300, "鲸" * 300, "{}%s{0}", "<b>&amp;</b>",
       "\ue000\U000f0000\U0010ffff", "e\u0301" * 40]  # fmt: skip


@pytest.fixture
def no_other_font(monkeypatch):
    """A machine without fonts but matplotlib's own."""
    own = [font for font in fontManager.ttflist if "matplotlib" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)
    lettering._other_font.cache_clear()
    yield
    lettering._other_font.cache_clear()


@pytest.fixture
def a_font(tmp_path, monkeypatch):
    """A font of this machine with 鲸 and 座, as squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square" for letter in "鲸座"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test Han", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "han.ttf")
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(tmp_path / "han.ttf")
    lettering._other_font.cache_clear()
    yield "Test Han"
    lettering._other_font.cache_clear()


def drawn(figure) -> np.ndarray:
    """Its pixels; a warning (a letter that no font has, a label left out) is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(plots.draw(figure))


def pictures(names: list[str]):
    """Every picture that shows names of species, files or runs."""
    labels = np.arange(len(names))
    yield lambda: plots.confusion_matrix(labels, labels[::-1], names)
    said = [name for name in names if name.isprintable() or "\udce9" not in name]  # tables hold no bytes
    yield lambda: plots.stripplot(pd.DataFrame({"species": said, "confidence": 0.5, "correct": True}))
    noise = np.random.default_rng(0).normal(size=(len(names), 8, 8))
    yield lambda: plots.gallery(noise, names, names[::-1], [0.5] * len(names), f"Title {names[0]}")
    history = pd.DataFrame({f"{side}_{what}": [0.5, 0.4] for side in ("train", "val") for what in ("loss", "accuracy")})
    history = history.assign(epoch=[1, 2], val_macro_f1=0.3)
    yield lambda: plots.learning_curves({name: history for name in names}, dict.fromkeys(names, 1))


@pytest.mark.parametrize("number", range(4))
def test_every_script_on_a_machine_without_fonts(no_other_font, number):
    drawn(list(pictures(SCRIPTS))[number]())


@pytest.mark.parametrize("number", range(4))
def test_every_script_with_the_fonts_of_this_machine(number):
    drawn(list(pictures(SCRIPTS))[number]())


@pytest.mark.parametrize("number", range(4))
def test_formulas_controls_long_names_and_broken_letters(no_other_font, number):
    drawn(list(pictures(ODD))[number]())


SMALL = Frontend(FrontendSettings(n_mels=16, frames=20))


@pytest.mark.parametrize("name", SCRIPTS + ODD)
def test_the_picture_of_an_explanation(no_other_font, name):
    noise = np.random.default_rng(0).random((16, 20))
    drawn(attribution_picture(SMALL, noise, noise, 0.0, 0.2, f"{name} 50%", f"{name}.wav, 0 s"))


@given(some.text(max_size=50))
@settings(max_examples=300, deadline=None)
def test_any_name_is_one_line_that_every_font_can_write(name):
    shown = legible(name)
    assert shown == " ".join(shown.split()) and len(shown.replace("\\$", "$")) <= 32 * 10
    missing = lettering._missing(shown)
    assert not missing or lettering._other_font(missing)


def test_what_a_name_becomes(no_other_font):
    assert legible("座头鲸") == "ZuoTouJing"
    assert legible("HumpbackWhale") == "HumpbackWhale" and legible("Горбатый кит") == "Горбатый кит"
    assert legible("price $5") == r"price \$5"
    assert legible("a\nb\tc\x1b[2J") == "a b c [2J"
    assert legible("x" * 20 + "y" * 20) == "x" * 16 + "…" + "y" * 15


def test_a_font_that_has_the_letters_is_used(a_font):
    assert legible("鲸座") == "鲸座"
    assert legible("鲸" * 30) == "鲸" * 8 + "…" + "鲸" * 7, "each takes the room of two"
    figure = plots.confusion_matrix(np.array([0, 1]), np.array([0, 1]), ["鲸座", "Beta"])
    drawn(figure)
    families = {text.get_text(): text.get_fontfamily() for text in figure.findobj(Text)}
    assert families["鲸座"][-1] == a_font and a_font not in families["Beta"]


def test_a_dollar_is_drawn_as_one(no_other_font):
    """And not as the beginning of a formula, for which it would be left out."""
    with_one, without = (
        drawn(plots.confusion_matrix(np.array([0]), np.array([0]), [name])) for name in ("a$b$c", "abc")
    )
    assert with_one.shape == without.shape and (with_one != without).any()
