import json
import os
import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.errors import UserError
from watkins_ml.models import build_model
from watkins_ml.models.bundle import load_bundle, save_bundle, to_probabilities
from watkins_ml.models.scoring import cut_logits

CLASSES = ["FinWhale", "Risso'sDolphin", "Walrus"]
FACTS = {"run": "first", "data_digest": "abc"}


@pytest.fixture
def network(recipe):
    torch.manual_seed(3)
    network = build_model(recipe("baseline").model, species=3)
    network.train()(torch.randn(8, 1, 128, 40))  # batch norm has seen something
    return network.eval()


@pytest.fixture
def bundle(network, recipe, tmp_path):
    folder = tmp_path / "model"
    save_bundle(folder, network, recipe("baseline").model, FrontendSettings(hop_length=80), CLASSES, FACTS)
    return folder


def test_a_loaded_bundle_gives_the_probabilities_of_the_network_that_was_saved(bundle, network):
    spectrograms = torch.randn(5, 1, 128, 40)
    with torch.inference_mode():
        expected = network(spectrograms).softmax(dim=1).numpy()
    loaded = load_bundle(bundle)
    np.testing.assert_allclose(loaded.probabilities(spectrograms.split(1)), expected, rtol=1e-5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)


def test_species_are_known_in_either_form_of_unicode(network, recipe, tmp_path):
    forms = [unicodedata.normalize(form, "Épaulard") for form in ("NFD", "NFC")]
    save_bundle(tmp_path, network, recipe("baseline").model, FrontendSettings(), [forms[0], "Orca", "Walrus"], FACTS)
    loaded = load_bundle(tmp_path)  # as earlier versions wrote it
    assert loaded.classes == [forms[1], "Orca", "Walrus"]
    assert [loaded.label(form) for form in forms] == [0, 0]


def test_two_loads_agree_to_the_last_bit(bundle):
    spectrograms = torch.randn(5, 1, 128, 40)
    first, second = (load_bundle(bundle).probabilities(spectrograms.split(1)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_the_batch_size_does_not_matter(bundle):
    classifier, spectrograms = load_bundle(bundle), torch.randn(5, 1, 128, 40)
    whole, singly = (classifier.probabilities(spectrograms.split(1), size) for size in (5, 1))
    np.testing.assert_allclose(whole, singly, rtol=1e-5)


def test_the_temperature_softens_probabilities_and_changes_no_answer(network, bundle, recipe, tmp_path):
    settings = recipe("baseline").model, FrontendSettings(hop_length=80), CLASSES, FACTS
    save_bundle(tmp_path / "warm", network, *settings, temperature=2.5)
    plain, warm = load_bundle(bundle), load_bundle(tmp_path / "warm")
    assert (plain.temperature, warm.temperature) == (1.0, 2.5)
    spectrograms = torch.randn(6, 1, 128, 40)
    with torch.inference_mode():
        expected = (network(spectrograms) / 2.5).softmax(dim=1)
    np.testing.assert_allclose(warm.probabilities(spectrograms.split(1)), expected, rtol=1e-5)
    assert (
        warm.probabilities(spectrograms.split(1)).max(axis=1) < plain.probabilities(spectrograms.split(1)).max(axis=1)
    ).all()


@pytest.mark.parametrize("temperature", [0.05, 1.7, 20.0])
def test_no_temperature_changes_which_species_is_most_probable(temperature):
    logits = torch.randn(200, 44)
    runner_up = logits.topk(2).indices[:, 1:]
    logits.scatter_(1, runner_up, torch.nextafter(logits.amax(1, keepdim=True), torch.tensor(-99.0)))  # all but ties
    assert (to_probabilities(logits, temperature).argmax(axis=1) == logits.argmax(dim=1).numpy()).all()


def test_a_bundle_of_an_earlier_version_has_temperature_one(bundle):
    description = json.loads((bundle / "model.json").read_text())
    del description["temperature"]
    (bundle / "model.json").write_text(json.dumps(description))
    assert load_bundle(bundle).temperature == 1.0


@pytest.mark.parametrize("temperature", [0, -1, "hot", None])
def test_a_temperature_that_is_none_is_damage(bundle, temperature):
    description = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(description | {"temperature": temperature}))
    with pytest.raises(UserError, match=r"damaged model, model\.json"):
        load_bundle(bundle)


def test_a_cut_of_several_windows_is_judged_by_their_mean_logits(bundle, network):
    classifier, cuts = load_bundle(bundle), [torch.randn(n, 1, 128, 40) for n in (1, 3, 7, 1, 2)]
    with torch.inference_mode():
        expected = torch.stack([network(cut).mean(dim=0) for cut in cuts]).softmax(dim=1)
    for size in (1, 2, 4, 32):  # also where a cut is divided between batches
        np.testing.assert_allclose(classifier.probabilities(cuts, size), expected, rtol=1e-4)


def test_cuts_of_one_window_give_what_one_batch_gives_bit_for_bit(network):
    spectrograms = torch.randn(40, 1, 128, 40)
    with torch.inference_mode():
        expected = torch.cat([network(batch) for batch in spectrograms.split(32)])
    assert torch.equal(cut_logits(network, spectrograms.split(1)), expected)


def test_windows_are_read_as_they_are_needed(network):
    read = []

    def cuts():
        for number in range(20):
            read.append(number)
            yield torch.randn(2, 1, 128, 40)

    seen = []
    network.features.register_forward_hook(lambda *_: seen.append(len(read)))
    assert cut_logits(network, cuts(), batch_size=8).shape == (20, 3)
    assert seen == [4, 8, 12, 16, 20]
    assert cut_logits(network, []).shape == (0, 0)


def test_species_frontend_and_facts_travel_with_the_weights(bundle):
    classifier = load_bundle(bundle)
    assert (classifier.classes, classifier.facts) == (CLASSES, FACTS)
    assert classifier.frontend.settings == FrontendSettings(hop_length=80)


def test_classify_reads_audio_files(bundle, archive):
    probabilities = load_bundle(bundle).classify(sorted(archive.rglob("*.wav"))[:2])
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_an_efficientnet_bundle_needs_no_pretrained_weights(recipe, tmp_path):
    config = recipe("efficientnet").model
    network = build_model(config, species=3).eval()
    config = config.model_copy(update={"weights": "/gone/since/then.pth"})
    save_bundle(tmp_path, network, config, FrontendSettings(), CLASSES, FACTS)
    spectrograms = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        expected = network(spectrograms).softmax(dim=1).numpy()
    np.testing.assert_allclose(load_bundle(tmp_path).probabilities(spectrograms.split(1)), expected, rtol=1e-4)


@pytest.mark.parametrize("part", ["model.json", "weights.pt"])
def test_a_missing_part_is_named(bundle, part):
    (bundle / part).unlink()
    with pytest.raises(UserError, match=f"no trained model here \\({part} is missing\\)"):
        load_bundle(bundle)


@pytest.mark.parametrize("part", ["model.json", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"not what it was", b"[]"])
def test_a_damaged_part_is_named_in_one_line(bundle, part, content):
    (bundle / part).write_bytes(content)
    with pytest.raises(UserError, match=f"damaged model, {part}") as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["model.json", "weights.pt"])
def test_a_part_that_is_a_link_to_elsewhere_or_a_pipe_is_refused(bundle, tmp_path, part):
    content = (bundle / part).read_bytes()
    (bundle / part).unlink()
    for target in (tmp_path / "outside", Path("/dev/zero")):
        (tmp_path / "outside").write_bytes(content)
        (bundle / part).symlink_to(target)
        with pytest.raises(UserError, match=f"'{part}' leads out of"):
            load_bundle(bundle)
        (bundle / part).unlink()
    os.mkfifo(bundle / part)
    with pytest.raises(UserError, match=f"'{part}' is no regular file"):
        load_bundle(bundle)


def test_cut_off_weights_are_damaged(bundle):
    content = (bundle / "weights.pt").read_bytes()
    (bundle / "weights.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"damaged model, weights\.pt"):
        load_bundle(bundle)


def test_weights_of_another_number_of_species_do_not_fit(bundle):
    description = json.loads((bundle / "model.json").read_text())
    description["classes"].append("Narwhal")
    (bundle / "model.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"damaged model, weights\.pt"):
        load_bundle(bundle)


def test_a_later_format_asks_for_a_newer_program(bundle):
    description = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(UserError, match="format 99 needs a newer watkins_ml"):
        load_bundle(bundle)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a bundle ran code",))


def test_a_pickle_with_code_is_refused_without_running_it(bundle):
    torch.save({"classifier.bias": Bomb()}, bundle / "weights.pt")
    with pytest.raises(UserError, match="damaged model"):
        load_bundle(bundle)
    (bundle / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="damaged model"):
        load_bundle(bundle)
