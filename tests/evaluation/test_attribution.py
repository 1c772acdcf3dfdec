"""The picture of an explanation: axes in the recording's own seconds and hertz."""

import numpy as np
import pytest

from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.evaluation.attribution import attribution_picture
from watkins_ml.evaluation.plots import save


def picture(frontend: Frontend, start_s: float, sound_s: float, attribution: np.ndarray | None = None):
    shape = frontend.settings.n_mels, frontend.settings.frames
    spectrogram = np.random.default_rng(0).standard_normal(shape)
    looked_at = np.zeros(shape) if attribution is None else attribution
    return attribution_picture(frontend, spectrogram, looked_at, start_s, sound_s, "Risso's $ Dolphin 50%", "a_$b$.wav")


def test_time_runs_from_the_window_s_begin_in_the_recording():
    axes = picture(Frontend(), start_s=12.0, sound_s=3.99).axes[1]
    assert axes.get_xlim() == pytest.approx((11.995, 15.995), abs=1e-3)
    assert not axes.lines


def test_repeats_of_a_short_sound_are_marked():
    above, under = picture(Frontend(), start_s=0.25, sound_s=1.5).axes
    for axes in (above, under):
        assert [line.get_xdata()[0] for line in axes.lines] == [1.75, 3.25]
    assert "dashed: the sound is repeated" in under.get_title()


@pytest.mark.parametrize(("rate", "highest"), [(16_000, "8,000"), (48_000, "16,000"), (10_240, "4,000")])
def test_frequencies_are_in_hertz_at_their_bands(rate, highest):
    frontend = Frontend(FrontendSettings.at(rate))
    axes = picture(frontend, 0.0, 3.99).axes[1]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert (labels[0], labels[-1]) == ("125", highest)
    assert axes.get_yticks()[labels.index("1,000")] == pytest.approx(frontend.band(1_000))
    assert min(np.diff(axes.get_yticks())) > 6, "two labels would lie on each other"
    assert axes.get_ylim() == pytest.approx((-0.5, 127.5))


def test_names_are_no_formulas_and_a_map_of_one_place_is_drawn(tmp_path):
    attribution = np.zeros((128, 400))
    attribution[40:60, 100:120] = 1
    save(picture(Frontend(), 0.0, 1e-4, attribution), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
