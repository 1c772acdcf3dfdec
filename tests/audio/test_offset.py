"""The offset of a recorder is not part of the sound: constant, drifting or jumping, it changes nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.graph import FrontendGraph
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.audio.stream import sliding_windows
from watkins_ml.models.bundle import load_bundle

KEPT = FrontendSettings(remove_offset=False)
RATES = (16_000, 44_100)


@pytest.fixture(scope="module")
def frontend() -> Frontend:
    return Frontend()


def call(rate: int, seconds: float = 4.2) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    whistle = 0.1 * np.sin(2 * np.pi * (900 + 300 * time) * time) * (np.sin(5 * time) > 0)
    return whistle + 0.003 * np.random.default_rng(0).standard_normal(len(time))


OFFSETS = {
    "1 %": lambda time: 0.01 + 0 * time,
    "-30 %": lambda time: -0.3 + 0 * time,
    "drift": lambda time: 0.03 * time / time[-1],
    "settling": lambda time: 0.2 * np.exp(-time / 0.8),
    "swell": lambda time: 0.03 * np.sin(2 * np.pi * 0.2 * time),
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)
def test_no_offset_changes_a_spectrogram(frontend, offset, rate):
    sound = call(rate)
    moved = sound + offset(np.arange(len(sound)) / rate)
    before = frontend(sound.astype("float32"), rate)
    change = (frontend(moved.astype("float32"), rate) - before).abs()
    assert change.mean() < 0.04  # of a standard deviation, most of it in the first and the last 50 ms
    earlier = Frontend(KEPT)
    kept = (earlier(moved.astype("float32"), rate) - earlier(sound.astype("float32"), rate)).abs()
    assert kept.mean() > 4 * change.mean()


def test_a_jump_of_the_offset_is_heard_for_a_moment_only(frontend):
    sound = call(16_000)
    jump = sound + 0.03 * (np.arange(len(sound)) > 2 * 16_000)
    change = (frontend(jump.astype("float32"), 16_000) - frontend(sound.astype("float32"), 16_000)).abs()[0]
    elsewhere = torch.cat([change[:, :180], change[:, 220:]], dim=1)  # 0.2 s to both sides
    assert elsewhere.mean() < 0.02 and 0.1 < change[:, 199:202].mean()


def test_what_is_slow_but_sound_stays(frontend):
    """The 20 Hz of a fin whale, the slowest sound that a window of 32 ms shows, against noise."""
    time = np.arange(64_000) / 16_000
    quiet = 0.001 * np.random.default_rng(0).standard_normal(64_000)
    for hertz in (20, 50, 120):
        sound = (0.1 * np.sin(2 * np.pi * hertz * time) + quiet).astype("float32")
        centred = frontend.centred(frontend.sound(sound, 16_000))
        middle = slice(8_000, 56_000)
        assert np.corrcoef(centred[middle], sound[middle])[0, 1] > 0.99
        assert float(centred[middle].std()) == pytest.approx(float(sound[middle].std()), rel=0.15)


@pytest.mark.parametrize("samples", [40, 5_000, 90_000])
def test_a_constant_and_silence_are_nothing_to_hear(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", np.full((samples, 2), [0.1, 0.2]), 8_000)
    with pytest.raises(AudioError, match="silent"):
        read_recording(tmp_path / "a.wav")
    assert all(window.waveform is None for window in sliding_windows(tmp_path / "a.wav", 1.0))


@pytest.mark.parametrize("settings", [FrontendSettings(), KEPT, FrontendSettings(frames=2)])
def test_the_exported_graph_does_the_same(settings):
    frontend = Frontend(settings)
    rows = np.stack([call(16_000)[: settings.samples] + offset for offset in (0, 0.3, -0.01)]).astype("float32")
    rows[1] += np.linspace(0, 0.1, settings.samples)
    expected = torch.stack([frontend(row, 16_000) for row in rows])
    with torch.inference_mode():
        torch.testing.assert_close(FrontendGraph(frontend)(torch.from_numpy(rows)), expected, atol=1e-3, rtol=0)


def test_what_was_made_before_keeps_its_offsets_and_its_digest(finished, tmp_path):
    """Models and data folders without the setting are what they were."""
    assert KEPT.digest() == "501baaaad101e289"
    assert FrontendSettings.stored({"sample_rate": 16_000}) == KEPT
    assert FrontendSettings.stored(FrontendSettings().model_dump()) == FrontendSettings()
    shutil.copytree(finished.run_dir / "model", tmp_path / "model")
    described = tmp_path / "model" / "model.json"
    description = json.loads(described.read_text())
    assert description["frontend"].pop("remove_offset") is True
    described.write_text(json.dumps(description))
    assert not load_bundle(tmp_path / "model").frontend.settings.remove_offset
    assert load_bundle(finished.run_dir / "model").frontend.settings.remove_offset


def test_a_classifier_answers_the_same_whatever_the_offset(finished, archive, tmp_path):
    classifier = load_bundle(finished.run_dir / "model")
    cuts = sorted(archive.rglob("*.wav"))[::4]
    for offset in (0.0, 0.01, 0.03):
        (tmp_path / str(offset)).mkdir()
        for path in cuts:
            samples, rate = soundfile.read(path)
            soundfile.write(tmp_path / str(offset) / path.name, 0.5 * samples + offset, rate)
    said = {
        offset: classifier.predict(map(classifier.frontend.file_windows, sorted((tmp_path / str(offset)).iterdir())))
        for offset in (0.0, 0.01, 0.03)
    }
    for offset in (0.01, 0.03):
        np.testing.assert_allclose(said[offset].probabilities, said[0.0].probabilities, atol=0.02)
        np.testing.assert_allclose(said[offset].novelty, said[0.0].novelty, rtol=0.1, atol=0.05)


@pytest.mark.real_data
def test_real_cuts_with_an_offset_look_the_same(shared_folder, frontend):
    for path in sorted((shared_folder / "data" / "watkins10").rglob("*.wav"))[::40]:
        recording = frontend.read(path)
        for offset in (0.01, 0.03):
            moved = np.clip(recording.waveform + np.float32(offset), -1, 1)
            change = (frontend(moved, recording.sample_rate) - frontend.recording(recording)).abs()
            assert change.mean() < 0.02, path
