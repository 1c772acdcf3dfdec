"""What a network looked at is where the sound is, and where the probability comes from."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from watkins_ml.audio.frontend import Frontend
from watkins_ml.inference.explain import explain, grad_cam
from watkins_ml.models.bundle import Classifier, save_bundle
from watkins_ml.models.registry import build_model

RATE = 16_000
KINDS = {"GreyWhale": 700.0, "Narwhal": 3_000.0, "Nothing": None}
LENGTH_S = 0.7


def call(kind: str, begin: float, seed: int, seconds: float = 3.99) -> np.ndarray:
    """A tone of `LENGTH_S` from `begin` (s) on in noise, or noise alone, shape (samples,)."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = 0.05 * np.random.default_rng(seed).standard_normal(len(time))
    sounding = (time >= begin) & (time < begin + LENGTH_S)
    tone = np.sin(2 * np.pi * (KINDS[kind] or 0) * time)
    return (noise + 0.2 * tone * sounding).astype("float32")


@pytest.fixture(scope="module")
def config(recipe):
    return recipe("baseline", "model.dropout=0").model


@pytest.fixture(scope="module")
def classifier(config) -> Classifier:
    """A baseline that tells two tone bursts and noise apart, trained in seconds."""
    frontend, rng = Frontend(), np.random.default_rng(0)
    labels = torch.arange(36) % 3
    names = list(KINDS)
    sounds = [call(names[label], rng.uniform(0, 3.2), seed) for seed, label in enumerate(labels)]
    spectrograms = torch.stack([frontend(sound, RATE) for sound in sounds])
    torch.manual_seed(0)
    network = build_model(config, species=3).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(24):
        batch = torch.arange(step * 12, step * 12 + 12) % 36
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(spectrograms[batch]), labels[batch]).backward()
        optimiser.step()
    return Classifier(network.eval(), frontend, names, {})


@pytest.fixture
def recording(tmp_path):
    """A function that writes samples as a recording."""

    def write(samples: np.ndarray):
        soundfile.write(tmp_path / "call.wav", samples, RATE, subtype="FLOAT")
        return tmp_path / "call.wav"

    return write


@pytest.mark.parametrize("begin", [0.4, 1.5, 2.8])
@pytest.mark.parametrize("kind", ["GreyWhale", "Narwhal"])
def test_a_tone_burst_in_noise_is_found_at_its_place(classifier, recording, kind, begin):
    found = explain(classifier, recording(call(kind, begin, seed=99)))
    band, frame = np.unravel_index(found.attribution.argmax(), found.attribution.shape)
    assert (found.species, found.attribution.max()) == (kind, 1)
    assert begin - 0.1 <= frame / 100 <= begin + LENGTH_S + 0.1  # a place of the coarse map is 0.16 s long
    assert abs(band - classifier.frontend.band(KINDS[kind])) <= 16  # and 16 bands high


def test_hiding_what_it_looked_at_costs_more_probability_than_hiding_as_much_elsewhere(classifier, recording):
    found = explain(classifier, recording(call("Narwhal", 1.5, seed=99)))
    looked_at, shape = found.attribution >= 0.5, found.attribution.shape
    background = np.median(found.spectrogram, axis=1, keepdims=True)

    def without(hidden: np.ndarray) -> float:
        spectrogram = torch.from_numpy(np.where(hidden, background, found.spectrogram))
        return classifier.probabilities([spectrogram[None, None]])[0, 1]

    elsewhere = [np.roll(looked_at, (down, later), (0, 1)) for down in (0, 64) for later in (0, 133, 266)][1:]
    assert 0 < looked_at.sum() < 0.2 * np.prod(shape)
    assert without(looked_at) < 0.5 * found.probability
    assert all(without(hidden) > 0.9 * found.probability for hidden in elsewhere)


def test_of_a_long_recording_the_surest_window_is_shown_with_its_place(classifier, recording):
    quiet = call("Nothing", 0, seed=5, seconds=12)
    quiet[9 * RATE :] = call("GreyWhale", 0.5, seed=6, seconds=3)
    found = explain(classifier, recording(np.concatenate([np.zeros(RATE, "float32"), quiet])), "GreyWhale")
    assert (found.windows, found.species) == (4, "GreyWhale")
    assert found.start_s == pytest.approx(13 - found.sound_s, abs=1e-3)  # the silence before the noise is counted
    frame = np.unravel_index(found.attribution.argmax(), found.attribution.shape)[1]
    assert 10.4 <= found.start_s + frame / 100 <= 10.5 + LENGTH_S + 0.1
    assert f"{found.start_s:.1f}–13.0 s of 13.0 s, the surest of 4 windows; the whole: " in found.where()


def test_a_short_recording_says_where_it_is_repeated(classifier, recording):
    found = explain(classifier, recording(call("Narwhal", 0.2, seed=9, seconds=1.5)))
    assert (found.start_s, found.sound_s, found.duration_s, found.windows) == (0, 1.5, 1.5, 1)


@pytest.mark.parametrize("frozen", [0, 6, 9])
def test_efficientnet_is_explained_whatever_was_frozen(recipe, frozen):
    network = build_model(recipe("efficientnet", f"model.freeze_depth={frozen}").model, species=3)
    spectrogram = torch.randn(1, 128, 400)
    found = grad_cam(network, spectrogram, 2)
    assert found.shape == (128, 400) and found.min() >= 0 and found.max() == 1
    assert not spectrogram.requires_grad
    with torch.no_grad():  # with average pooling, Grad-CAM is the maps weighed by the classifier
        maps = network.features(spectrogram.expand(1, 3, -1, -1))[0]
        expected = torch.einsum("c,chw->hw", network.classifier.weight[2], maps).relu()
        expected = torch.nn.functional.interpolate(expected[None, None], (128, 400), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-4)


@pytest.fixture
def saved(classifier, config, tmp_path):
    save_bundle(tmp_path / "model", classifier.network, config, classifier.frontend.settings, classifier.classes, {})
    return tmp_path / "model"


def test_the_command_draws_a_picture_and_says_where_it_looked(watkins, saved, recording, tmp_path, real_pictures):
    path = recording(call("Narwhal", 1.5, seed=99))
    said = watkins("explain", saved, path)
    assert (said.status, said.err) == (0, "")
    assert f"{path}: Narwhal " in said.out and " at 0.0–4.0 s of 4.0 s\n" in said.out
    assert "The picture: results/call-explained.png" in said.out
    with Image.open(tmp_path / "results" / "call-explained.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
    said = watkins("explain", saved, path, "--species", "GreyWhale", "--out", "grey.png")
    assert said.out.startswith(f"{path}: GreyWhale ") and "the whole: Narwhal " in said.out
    assert (tmp_path / "grey.png").is_file()


def test_what_cannot_be_explained_is_one_sentence(watkins, saved, recording, tmp_path):
    path = recording(call("Narwhal", 1.5, seed=99))
    said = watkins("explain", saved, path, "--species", "Narwal")
    assert said.status == 2
    assert said.err == "watkins: --species Narwal: unknown to the model; the nearest that it knows is Narwhal\n"
    assert watkins("explain", saved, path, "--out", "a.jpg").err == "watkins: --out a.jpg: must end with .png\n"
    assert watkins("explain", saved, "gone.wav").err == "watkins: gone.wav: no such file\n"
    assert watkins("explain", saved, tmp_path).err == f"watkins: {tmp_path}: a folder; name one audio file\n"
    path.write_bytes(b"no audio")
    assert f"watkins: {path}: unreadable: " in watkins("explain", saved, path).err
