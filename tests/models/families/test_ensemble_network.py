"""The network and the section `model` of ensembles, without any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import tone
from tests.support import EXPERIMENTS
from tests.support.tiny_encoder import RATE, SECTION, SIZE, write_tiny_encoder
from watkins_ml.audio.encoder import EncoderFrontend
from watkins_ml.audio.encoder_runtime import read_encoder
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.config import load_config, load_stored, validate
from watkins_ml.core.errors import UsageError
from watkins_ml.models.bundle import load_bundle, save_bundle, weights_digest
from watkins_ml.models.bundle_files import bundle_digest, copy_bundle
from watkins_ml.models.family import FittedNetwork
from watkins_ml.models.novelty import Novelty
from watkins_ml.models.registry import build_model, families_in, family, licence_of

SPECTROGRAM = FrontendSettings(n_mels=32, frames=41)
CLASSES = ["a", "b", "c"]


def head_on(file: Path) -> dict:
    """The member that is a head on an encoder's file, of windows as long as SPECTROGRAM."""
    section = load_config(EXPERIMENTS / "encoder.yaml", [f"model.encoder={file}", *SECTION, "model.head=linear"]).model
    settings = section.settings(read_encoder(file)[1])
    return {"model": section.model_dump(), "frontend": settings.model_dump(), "temperature": 0.5}


def baseline(**changes) -> dict:
    section = load_config(EXPERIMENTS / "baseline.yaml").model.model_dump()
    return {"model": section, "frontend": SPECTROGRAM.model_dump(), "temperature": 2.0, **changes}


def configured(*members: dict):
    tree = load_config(EXPERIMENTS / "baseline.yaml").model_dump()
    return validate(tree | {"augment": [], "model": {"name": "ensemble", "members": list(members)}}, "here")


@pytest.fixture
def two_encoders(tmp_path) -> list[Path]:
    """Two encoders of one name, which differ."""
    files = [tmp_path / name / "tiny.onnx" for name in ("one", "two")]
    for file, gain in zip(files, (1.0, 2.0), strict=True):
        file.parent.mkdir()
        write_tiny_encoder(file, gain=gain)
    return files


def random_network(config, seed: int = 0):
    torch.manual_seed(seed)
    network = build_model(config.model, len(CLASSES), pretrained=False).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network


def test_logits_are_the_mean_of_calibrated_log_probabilities_whatever_the_lengths_of_embeddings(two_encoders):
    config = configured(baseline(), head_on(two_encoders[0]), baseline(temperature=0.25))
    network, settings = random_network(config), config.model.settings()
    assert len(settings.frontends) == 2, "members with the same frontend share what it gives"
    tensors = torch.randn(6, 1, 1, settings.shape[2])
    spectrograms, embeddings = tensors.split([32 * 41, 4 * SIZE], dim=3)
    given = [spectrograms.reshape(6, 1, 32, 41), embeddings, spectrograms.reshape(6, 1, 32, 41)]
    with torch.inference_mode():
        logits = [member(each).double() for member, each in zip(network.members, given, strict=True)]
        expected = sum(torch.log_softmax(x / t, dim=1) for x, t in zip(logits, (2.0, 0.5, 0.25), strict=True)) / 3
        torch.testing.assert_close(network(tensors).double(), expected, rtol=0, atol=2e-6)
        before = network(tensors)
        assert isinstance(network, FittedNetwork)
        network.fit_input(tensors.split(2), torch.zeros(6).long(), ["tape"] * 6)
        assert torch.equal(network(tensors), before), "powers of two round nothing"
        lengths = [part.norm(dim=1).mean() for part in network.embed(tensors).split(network.sizes, dim=1)]
    assert max(lengths) / min(lengths) < 2
    assert network.embedding_size == network.embed(tensors).shape[1]


def test_the_frontend_gives_what_those_of_the_members_give_at_any_rate(two_encoders):
    config = configured(baseline(), head_on(two_encoders[1]))
    settings = config.model.settings()
    frontend = family("ensemble").own_input.open(config.model, settings, None)
    sound = tone(700, 0.35, seed=0, rate=22_050)
    found = frontend(sound, 22_050)
    parts = [own(sound, 22_050) for own in frontend.frontends]
    assert found.shape == settings.shape
    torch.testing.assert_close(found.flatten(), torch.cat([part.flatten() for part in parts]))
    assert (settings.sample_rate, settings.highest) == (16_000, 8_000.0)
    assert settings.digest() != configured(baseline(), head_on(two_encoders[0])).model.settings().digest()


def test_two_encoders_of_one_name_go_into_one_bundle_and_come_out_of_its_copy(two_encoders, tmp_path, monkeypatch):
    config = configured(*map(head_on, two_encoders))
    settings, network = config.model.settings(), random_network(config)
    for number, file in enumerate(two_encoders, start=1):
        target = tmp_path / "model" / f"member-{number}" / "encoder.onnx"
        target.parent.mkdir(parents=True)
        target.write_bytes(file.read_bytes())
        file.unlink()
    known = torch.eye(network.embedding_size)[:4]
    novelty = Novelty(known, known.roll(4, dims=1), torch.tensor(0.5))
    save_bundle(tmp_path / "model", network, config.model, settings, CLASSES, {"run": "r"}, 1.0, novelty)
    digest = copy_bundle(tmp_path / "model", tmp_path / "copy")
    assert digest == bundle_digest(tmp_path / "model")
    loaded = load_bundle(tmp_path / "copy")
    assert weights_digest(loaded.network) == weights_digest(network)
    one, two = loaded.frontend.frontends
    assert isinstance(one, EncoderFrontend) and one.settings.sha256 != two.settings.sha256
    sound = tone(900, 0.4, seed=1, rate=RATE)
    torch.testing.assert_close(two(sound, RATE), 4 * one(sound, RATE))  # twice the amplitude of each band
    (tmp_path / "copy" / "member-2" / "encoder.onnx").write_bytes(b"other")
    assert bundle_digest(tmp_path / "copy") != digest


def test_a_stored_configuration_is_read_back(two_encoders, tmp_path):
    config = configured(baseline(), head_on(two_encoders[0]), baseline(temperature=None))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_stored(tmp_path / "config.yaml") == config
    assert families_in(config.model) == ["ensemble", "baseline", "encoder"]
    requirements = family("ensemble").own_input.requirements(config.model)
    assert requirements == ["onnxruntime"]


def test_licences_of_members_are_joined(two_encoders, monkeypatch):
    from watkins_ml.models.families.encoder import LICENCES

    assert licence_of(configured(baseline(), baseline(temperature=1.0)).model) is None
    for file, licence in zip(two_encoders, ("first licence", "second licence"), strict=True):
        monkeypatch.setitem(LICENCES, str(file), licence)
    both = configured(baseline(), *map(head_on, two_encoders))
    assert licence_of(both.model) == "first licence; second licence"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([baseline()], "model.members"),
        ([baseline(), baseline(temperature=0.0)], "model.members.1.temperature must be greater than 0"),
        ([baseline(), baseline(temperature=float("nan"))], "model.members.1.temperature"),
        ([baseline(), baseline(model={"name": "baselin"})], "baselin: must be one of"),
        ([baseline(), baseline(model={"name": "baseline"})], "model.members.1.model: dropout: Field required"),
        ([baseline(), baseline(frontend=FrontendSettings().model_dump())], "members hear 0.40 and 3.99 s at once"),
        ([baseline(), baseline(model={"name": "ensemble", "members": [baseline(), baseline()]})], "is an ensemble"),
        ([baseline()] * 17, "model.members"),
    ],
)
def test_members_that_do_not_fit_are_refused_with_their_key(members, said):
    with pytest.raises(UsageError, match=r"^here: ") as refused:
        configured(*members)
    assert said in str(refused.value)


def test_a_frontend_of_another_kind_than_the_family_needs_is_refused(two_encoders):
    with pytest.raises(UsageError, match="member 2 has a frontend of another kind than its family needs"):
        configured(baseline(), head_on(two_encoders[0]) | {"frontend": SPECTROGRAM.model_dump()})


def test_noise_and_silence_are_no_special_case(two_encoders):
    config = configured(baseline(), head_on(two_encoders[0]))
    frontend = family("ensemble").own_input.open(config.model, config.model.settings(), None)
    for sound in (np.zeros(1, np.float32), np.zeros(9, np.float32), np.ones(100_000, np.float32)):
        assert torch.isfinite(frontend(sound, 96_000)).all()
