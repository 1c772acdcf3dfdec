import json
import os
import pickle
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.models.bundle import load_bundle, save_bundle, to_probabilities
from watkins_ml.models.registry import build_model
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


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_bundle(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder}: damaged model, ") and "\n" not in said and len(said) < 1000
    return said


def test_a_pickle_with_code_is_refused_without_running_it_or_telling_how_to(bundle):
    weights = torch.load(bundle / "weights.pt", weights_only=True)
    for part in ("weights.pt", "novelty.pt"):
        torch.save(weights | {"classifier.bias": Bomb()}, bundle / part)
        assert "holds something else than tensors; a file's own code is never run" in refusal(bundle)
        (bundle / part).write_bytes(pickle.dumps(Bomb()))
        assert "it is no file of tensors" in refusal(bundle)
        torch.save(weights, bundle / part)


class Much:
    """What torch's own loader without code would do: a hundred gigabytes."""

    def __init__(self, kind: type, *arguments: object):
        self.kind, self.arguments = kind, arguments

    def __reduce__(self):
        return (self.kind, self.arguments)


@pytest.mark.parametrize("much", [Much(bytearray, 10**11), Much(torch.Tensor, 10**5, 10**6)], ids=["bytes", "tensor"])
def test_what_torch_allows_beside_tensors_is_refused(bundle, much):
    torch.save({"classifier.bias": much}, bundle / "weights.pt")
    assert "something else than tensors" in refusal(bundle)


def rewritten(path: Path, compression: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    """The same archive with this compression and more entries."""
    with zipfile.ZipFile(path) as old:
        entries = {each.filename: old.read(each) for each in old.infolist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in (entries | more).items():
            new.writestr(name, content)


def test_a_zip_bomb_is_not_unpacked(bundle):
    size = (bundle / "weights.pt").stat().st_size
    rewritten(bundle / "weights.pt", zipfile.ZIP_DEFLATED, bomb=bytes(1 << 28))
    assert (bundle / "weights.pt").stat().st_size < 2 * size
    assert "it is compressed" in refusal(bundle)
    torch.save({"classifier.bias": torch.zeros(1 << 24)}, bundle / "weights.pt")
    assert "67,1" in refusal(bundle) and "are needed" in refusal(bundle)
    torch.save({"classifier.bias": torch.zeros(1).expand(10**6, 10**6)}, bundle / "weights.pt")
    assert "its tensors would take more than" in refusal(bundle)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(bundle, value):
    weights = torch.load(bundle / "weights.pt", weights_only=True)
    for name in ("classifier.weight", next(name for name in weights if name.endswith("running_mean"))):
        changed = weights[name].clone()
        changed.view(-1)[0] = value
        torch.save(weights | {name: changed}, bundle / "weights.pt")
        assert f"weights.pt does not fit ({name} holds NaN or infinite numbers)" in refusal(bundle)
    name = next(name for name in weights if name.endswith("running_var"))
    torch.save(weights | {name: -weights[name]}, bundle / "weights.pt")
    assert f"{name} holds variances below 0" in refusal(bundle)


def test_weights_that_overflow_are_told_when_they_do(bundle):
    weights = torch.load(bundle / "weights.pt", weights_only=True)
    huge = {name: torch.full_like(tensor, 3e38) for name, tensor in weights.items() if tensor.is_floating_point()}
    torch.save(weights | huge, bundle / "weights.pt")
    with pytest.raises(UserError, match="the model gives no numbers for this sound"):
        load_bundle(bundle).probabilities([torch.randn(1, 1, 128, 40)])


def test_weights_of_another_network_are_named(bundle):
    weights = torch.load(bundle / "weights.pt", weights_only=True)
    for changed, said in (
        ({name: tensor for name, tensor in weights.items() if name != "classifier.bias"}, "classifier.bias is missing"),
        (weights | {"backdoor": torch.zeros(1)}, "backdoor is not of this network"),
        (weights | {"classifier.bias": torch.zeros(7)}, "classifier.bias is torch.float32 (7,), not torch.float32 (3"),
        (weights | {"classifier.bias": torch.zeros(3, dtype=torch.int64)}, "classifier.bias is torch.int64 (3,)"),
        ([torch.zeros(3)], "something else than tensors"),
        ({1: torch.zeros(3)}, "something else than tensors"),
    ):
        torch.save(changed, bundle / "weights.pt")
        assert said in refusal(bundle)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_novelty_that_is_no_number_is_refused(bundle, value):
    good = {"known": torch.ones(2, 128), "noise": torch.ones(2, 128), "limit": torch.tensor(0.1)}
    torch.save(good, bundle / "novelty.pt")
    assert load_bundle(bundle).novelty is not None
    for bad in (
        {"known": torch.full((2, 128), value)}, {"noise": torch.full((2, 128), value)}, {"limit": torch.tensor(value)},
        {"known": torch.ones(0, 128)}, {"noise": torch.ones(128)}, {"limit": torch.ones(1)}, {"more": torch.ones(1)},
        {"known": torch.ones(1, 1).expand(10**9, 128)}, {"known": torch.tensor(1.0)},
    ):  # fmt: skip
        torch.save(good | bad, bundle / "novelty.pt")
        assert "novelty.pt does not fit" in refusal(bundle)


WRONG = {
    "a list": [],
    "no format": {"format": None},
    "a format in words": {"format": "1"},
    "an earlier format": {"format": 0},
    "no model": {"model": None},
    "another model": {"model": {"name": "resnet"}},
    "a model with more": {"model": {"name": "baseline", "dropout": 0.2, "x\n": 1}},
    "a number as text": {"model": {"name": "baseline", "dropout": "0.2"}},
    "no classes": {"classes": []},
    "classes as text": {"classes": "abc"},
    "a class that is a number": {"classes": ["a", "b", 3]},
    "an empty class": {"classes": ["a", "b", ""]},
    "a blank class": {"classes": ["a", "b", " "]},
    "a class twice": {"classes": ["a", "b", "a"]},
    "a class twice in two forms": {"classes": ["a", "\u00e9", "e\u0301"]},
    "half a character": {"classes": ["a", "b", "\ud800"]},
    "too many classes": {"classes": [f"s{number}" for number in range(10_001)]},
    "a temperature of nought": {"temperature": 0},
    "no temperature": {"temperature": None},
    "a temperature in words": {"temperature": "1"},
    "an infinite temperature": {"temperature": float("inf")},
    "no number for a temperature": {"temperature": float("nan")},
    "facts as a list": {"facts": []},
    "nested facts": {"facts": {"run": {"name": "x"}}},
    "a threshold in words": {"facts": {"threshold_90": "0.9"}},
}
FRONTENDS = {
    "n_fft": [0, 63, 1 << 17, 10**30, "2048", 2048.5, None, True],
    "n_mels": [0, -1, 1025, 10**9, "128"],
    "win_length": [0, 4096, 1 << 17],
    "hop_length": [0, 1 << 17, "160"],
    "frames": [0, 1, 10_001, 10**12],
    "sample_rate": [0, 999, 200_001, "16000"],
    "top_db": [0, -80, float("nan"), float("inf"), "80", 1e9],
    "window": ["hann"],
}


def described(bundle: Path, changes: object) -> None:
    description = json.loads((bundle / "model.json").read_text())
    changed = description | changes if isinstance(changes, dict) else changes
    (bundle / "model.json").write_text(json.dumps(changed))


@pytest.mark.parametrize("kind", WRONG)
def test_a_description_with_a_wrong_part_is_refused(bundle, kind):
    described(bundle, WRONG[kind])
    assert "model.json does not fit" in refusal(bundle)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in FRONTENDS.items() for value in values])
def test_a_frontend_out_of_bounds_is_refused(bundle, key, value):
    described(bundle, {"frontend": FrontendSettings().model_dump() | {key: value}})
    assert "model.json does not fit" in refusal(bundle)


def test_a_frontend_whose_spectrogram_would_fill_the_memory_is_refused(bundle):
    large = {"n_fft": 1 << 16, "win_length": 1 << 16, "frames": 10_000}
    described(bundle, {"frontend": FrontendSettings().model_dump() | large})
    assert "would be made from more than 67,108,864 numbers" in refusal(bundle)
    described(bundle, {"frontend": FrontendSettings().model_dump() | {"n_mels": 500, "frames": 10_000, "n_fft": 4096}})
    assert "would have more than 524,288 numbers" in refusal(bundle)
    described(bundle, {"frontend": FrontendSettings().model_dump() | {"n_mels": 1}})
    assert "model.json does not fit (Given input size" in refusal(bundle)
    described(bundle, {"frontend": FrontendSettings().model_dump() | {"n_mels": 1024}})
    assert "would be empty" in refusal(bundle)


@pytest.mark.parametrize("key", ["format", "model", "frontend", "classes", "facts"])
def test_a_description_without_a_part_is_refused(bundle, key):
    description = json.loads((bundle / "model.json").read_text())
    del description[key]
    (bundle / "model.json").write_text(json.dumps(description))
    assert f"{key}: Field required" in refusal(bundle)


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"format": ' + b"9" * 5000 + b"}", b"\xff\xfe", b'{"format": 1'])
def test_a_description_that_is_no_json_is_refused(bundle, content):
    (bundle / "model.json").write_bytes(content)
    assert "model.json does not fit" in refusal(bundle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=9), inside, max_size=3),
    max_leaves=6,
)
PLACES = [
    ("format",), ("model",), ("model", "name"), ("model", "dropout"), ("frontend",), ("temperature",), ("classes",),
    ("classes", 0), ("facts",), ("facts", "run"), ("facts", "threshold_90"), ("more",),
    *(("frontend", key) for key in FrontendSettings.model_fields),
]  # fmt: skip


def loads_or_says_why(folder: Path) -> None:
    """A classifier whose answers are numbers, or an error of one line."""
    try:
        classifier = load_bundle(folder)
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith(str(folder))
    else:
        sound = np.random.default_rng(0).normal(0, 0.1, 4_000).astype("float32")
        assert np.isfinite(classifier.probabilities([classifier.frontend(sound, 8_000).unsqueeze(0)])).all()


@given(place=st.sampled_from(PLACES), value=JSON)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_description_it_is_used_or_refused_with_a_sentence(bundle, place, value):
    intact = (bundle / "model.json").read_text()
    description = node = json.loads(intact)
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    try:
        (bundle / "model.json").write_text(json.dumps(description))
        loads_or_says_why(bundle)
    finally:
        (bundle / "model.json").write_text(intact)


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_are_changed_in_a_bundle_it_is_used_or_refused_with_a_sentence(bundle, data):
    part = bundle / data.draw(st.sampled_from(["model.json", "weights.pt"]))
    intact = part.read_bytes()
    changed, ends = bytearray(intact), min(len(intact), 2_000)  # the pickle first, the table of the archive last
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, ends - 1)) * data.draw(st.sampled_from([1, -1])) % len(intact)
        new = data.draw(st.binary(max_size=6))
        changed[at : at + data.draw(st.integers(0, 6))] = new
    try:
        part.write_bytes(changed)
        loads_or_says_why(bundle)
    finally:
        part.write_bytes(intact)
