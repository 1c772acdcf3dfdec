"""Backbones of timm without weights: three kinds of convolutional networks and a transformer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.support import EXPERIMENTS
from watkins_ml.config import load_config
from watkins_ml.core.errors import UserError
from watkins_ml.models.family import PrefixedNetwork, frozen_tensors
from watkins_ml.models.registry import build_model

BACKBONES = ["resnet10t", "mobilenetv3_small_050", "convnext_atto"]


def section(backbone: str, *more: str, weights: object = "none"):
    words = [f"model.backbone={backbone}", f"model.weights={weights}", "model.freeze_depth=0", *more]
    return load_config(EXPERIMENTS / "timm.yaml", words).model


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_gives_embeddings_logits_and_a_layer_to_explain(backbone):
    network = build_model(section(backbone), 3).eval()
    spectrograms = torch.randn(2, 1, 64, 96)
    with torch.inference_mode():
        embedded = network.embed(spectrograms)
        assert embedded.shape == (2, network.embedding_size)
        torch.testing.assert_close(network.head(embedded), network(spectrograms))
    maps = []
    network.explained_layer.register_forward_hook(lambda layer, inputs, output: maps.append(output))
    network(spectrograms)
    assert maps[0].ndim == 4 and len(maps[0]) == 2


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_groups_keep_their_weights_and_statistics_while_the_others_learn(backbone):
    network = build_model(section(backbone, "model.freeze_depth=2"), 3).train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=0.1)
    nn.functional.cross_entropy(network(torch.randn(4, 1, 64, 96)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {id(each) for module in network._frozen for each in (*module.parameters(), *module.buffers())}
    still = {name for name, each in (*network.named_parameters(), *network.named_buffers()) if id(each) in frozen}
    assert still and not changed & still
    assert "classifier.weight" in changed and any(name.startswith("backbone.") for name in changed)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_embeddings_of_a_whole_frozen_backbone_can_be_cached(backbone):
    groups = 100
    with pytest.raises(UserError, match=r"has (\d+) stage groups") as refused:
        build_model(section(backbone, f"model.freeze_depth={groups}"), 3)
    groups = int(str(refused.value).split(" has ")[1].split()[0])
    network = build_model(section(backbone, f"model.freeze_depth={groups}"), 3).train()
    assert isinstance(network, PrefixedNetwork) and network.frozen_stages == groups
    spectrograms = torch.randn(2, 1, 64, 96)
    torch.testing.assert_close(network.eval().tail(network.prefix(spectrograms)), network(spectrograms))
    assert set(frozen_tensors(network)) == {name for name in network.state_dict() if name.startswith("backbone.")}
    assert not frozen_tensors(build_model(section(backbone, "model.freeze_depth=1"), 3))


def test_a_transformer_takes_any_size_and_has_no_layer_to_explain():
    network = build_model(section("vit_tiny_patch16_224"), 3).eval()
    assert network(torch.randn(1, 1, 128, 400)).shape == (1, 3)
    assert network.explained_layer is None


def test_a_backbone_of_one_size_says_so():
    network = build_model(section("mixer_s32_224"), 3).eval()
    with pytest.raises(UserError, match=r"model.backbone mixer_s32_224: does not take spectrograms of 128 × 400"):
        network(torch.randn(1, 1, 128, 400))


def test_an_unknown_backbone_is_refused_with_the_nearest_names():
    with pytest.raises(UserError, match=r"knows no such name; did you mean .*resnet18"):
        build_model(section("resnet18x"), 3)


def test_weights_of_a_file_with_three_channels_are_taken(tmp_path):
    import timm

    colours = timm.create_model("resnet10t", pretrained=False)
    torch.save(colours.state_dict(), tmp_path / "weights.pth")
    network = build_model(section("resnet10t", weights=tmp_path / "weights.pth"), 3)
    state = network.backbone.state_dict()
    assert torch.equal(state["layer1.0.conv1.weight"], colours.state_dict()["layer1.0.conv1.weight"])
    torch.testing.assert_close(state["conv1.0.weight"], colours.state_dict()["conv1.0.weight"].sum(1, keepdim=True))
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="cannot be had for resnet10t"):
        build_model(section("resnet10t", weights=tmp_path / "other.pth"), 3)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_training_its_bundle_and_its_predictions(backbone, prepared, watkins, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"data.dir={prepared}", "data.batch_size=8", "train.epochs=2", "train.device=cpu", "model.weights=none"]
    words += [f"model.backbone={backbone}", "model.freeze_depth=1"]
    overrides = [part for word in words for part in ("-o", word)]
    said = watkins("train", EXPERIMENTS / "timm.yaml", *overrides, "--run-dir", "run")
    assert said.status == 0, said.err
    call = next((prepared.parent).rglob("*.wav"), None) or next(tmp_path.parent.rglob("*.wav"))
    said = watkins("predict", "models:/watkins-timm/1", call, "--min-confidence", "0")
    assert said.status == 0 and call.name in said.out
