import hashlib
import http.server
import os
import pickle
import socket
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import EfficientNet_B0_Weights, efficientnet_b0

from watkins_ml.core.errors import UserError
from watkins_ml.dataset.loading import Side
from watkins_ml.models.families.efficientnet_b0 import (
    FREEZE_STAGES,
    EfficientNetModel,
    SpectrogramEfficientNet,
    build_efficientnet,
)
from watkins_ml.models.registry import build_model
from watkins_ml.training.trainer import Trainer


def config(weights: object = "none", freeze_depth: int = 0, dropout: float = 0.0, **more) -> EfficientNetModel:
    given = {"weights": str(weights), "freeze_depth": freeze_depth, "dropout": dropout, **more}
    return EfficientNetModel(name="efficientnet_b0", **given)


@pytest.fixture(scope="module")
def torchvision_state():
    """What torchvision's weights file holds, with numbers of its own instead of ImageNet's."""
    torch.manual_seed(11)
    return efficientnet_b0(weights=None).state_dict()


@pytest.fixture
def weights_file(torchvision_state, tmp_path):
    """A function that saves the torchvision state with some changes; None takes a tensor away."""

    def save(**changes):
        state = torchvision_state | {name.replace("__", "."): tensor for name, tensor in changes.items()}
        path = tmp_path / "weights.pth"
        torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
        return path

    return save


def test_logits_have_one_column_a_species():
    network = SpectrogramEfficientNet(config(freeze_depth=0, dropout=0.2), 7).eval()
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 7)
    assert network(torch.randn(1, 1, 128, 100)).shape == (1, 7)


def test_the_one_channel_is_repeated_to_three():
    network = SpectrogramEfficientNet(config(freeze_depth=0, dropout=0.0), 2).eval()
    seen = []
    network.features[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    batch = torch.randn(2, 1, 32, 32)
    network(batch)
    assert torch.equal(seen[0], torch.cat([batch, batch, batch], dim=1))


@pytest.mark.parametrize("depth", [0, 4, FREEZE_STAGES])
def test_prefix_and_tail_make_the_whole_network(depth):
    network = SpectrogramEfficientNet(config(freeze_depth=depth, dropout=0.2), 3).eval()
    batch = torch.randn(2, 1, 64, 64)
    whole = network.classifier(network.features(batch.expand(-1, 3, -1, -1)).mean(dim=(2, 3)))
    prefix = network.prefix(batch)
    assert torch.equal(network.tail(prefix), whole)
    assert prefix.shape == {0: (2, 3, 64, 64), 4: (2, 40, 8, 8), FREEZE_STAGES: (2, 1280)}[depth]
    assert not prefix.requires_grad and network.tail(prefix).requires_grad


@pytest.mark.parametrize("depth", [0, 1, 5, FREEZE_STAGES])
def test_training_leaves_frozen_stages_as_they_were_and_changes_the_others(recipe, depth):
    torch.manual_seed(0)
    network = build_model(recipe("efficientnet", f"model.freeze_depth={depth}").model, species=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    split = Side(None, torch.randn(4, 1, 64, 64), torch.tensor([0, 1, 0, 1]))
    trainer = Trainer(recipe("efficientnet", "data.batch_size=2"), network, torch.ones(2), torch.device("cpu"))
    trainer.train_epoch(split, lambda note: None)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}

    frozen = {name for name in before if name.startswith(tuple(f"features.{stage}." for stage in range(depth)))}
    expected = {name for name in before.keys() - frozen if name.endswith(("weight", "running_mean", "running_var"))}
    assert not moved & frozen
    assert {name for name, tensor in network.named_parameters() if not tensor.requires_grad} <= frozen
    assert all(not tensor.requires_grad for name, tensor in network.named_parameters() if name in frozen)
    assert expected <= moved


def test_frozen_batchnorm_keeps_its_statistics_in_train_mode_while_the_others_move():
    network = SpectrogramEfficientNet(config(freeze_depth=5, dropout=0.0), 2).train()
    norms = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    before = {name: layer.running_mean.clone() for name, layer in norms.items()}
    network(torch.randn(2, 1, 64, 64))
    moved = {int(name.split(".")[1]) for name in norms if not torch.equal(norms[name].running_mean, before[name])}
    still = {int(name.split(".")[1]) for name in norms if torch.equal(norms[name].running_mean, before[name])}
    assert (still, moved) == (set(range(5)), set(range(5, FREEZE_STAGES)))


def test_a_weights_file_fills_every_feature_tensor(weights_file, torchvision_state):
    state = build_efficientnet(config(weights_file()), species=4, pretrained=True).state_dict()
    features = [name for name in torchvision_state if name.startswith("features.")]
    assert len(features) > 300
    assert all(torch.equal(state[name], torchvision_state[name]) for name in features)
    assert state["classifier.weight"].shape == (4, 1280)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"features__0__0__weight": torch.zeros(32, 1, 3, 3)},
            r"features\.0\.0\.weight has shape \(32, 1, 3, 3\), not \(32, 3, 3, 3\)",
        ),
        ({"features__8__0__weight": None}, r"features\.8\.0\.weight is missing"),
        ({"features__9__0__weight": torch.zeros(3)}, r"features\.9\.0\.weight is not of EfficientNet-B0"),
    ],
    ids=["wrong shape", "missing", "too many"],
)
def test_weights_that_do_not_fit_are_refused_by_tensor_name(weights_file, changes, said):
    with pytest.raises(UserError, match=said):
        build_efficientnet(config(weights_file(**changes)), species=4, pretrained=True)


def test_weights_of_another_network_name_a_few_tensors_and_count_the_rest(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(UserError, match=r"features\.0\.0\.weight is missing.* and \d+ more$"):
        build_efficientnet(config(tmp_path / "foreign.pth"), species=4, pretrained=True)


def test_weights_that_do_not_fit_leave_nothing_half_loaded(weights_file, monkeypatch):
    built = []
    original = SpectrogramEfficientNet.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        built.append((self, {name: tensor.clone() for name, tensor in self.state_dict().items()}))

    monkeypatch.setattr(SpectrogramEfficientNet, "__init__", remember)
    with pytest.raises(UserError):
        build_efficientnet(config(weights_file(features__8__0__weight=None)), species=4, pretrained=True)
    network, before = built[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a weights file ran code",))


def test_a_pickle_with_code_is_refused_without_running_it(tmp_path):
    torch.save({"features.0.0.weight": Bomb()}, tmp_path / "torch.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("torch.pth", "plain.pth"):
        with pytest.raises(UserError, match=f"{name}: not a weights file that can be loaded safely"):
            build_efficientnet(config(tmp_path / name), species=4, pretrained=True)


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"PK\x03\x04 half a zip"])
def test_a_file_that_holds_no_weights_says_so_in_one_line(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"notes\.txt: not a weights file") as caught:
        build_efficientnet(config(tmp_path / "notes.txt"), species=4, pretrained=True)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_around_the_tensors_is_told_apart(tmp_path, torchvision_state):
    torch.save({"model": torchvision_state}, tmp_path / "best.pt")
    with pytest.raises(UserError, match="expected a state dict of tensors"):
        build_efficientnet(config(tmp_path / "best.pt"), species=4, pretrained=True)


def test_pipes_devices_and_folders_are_no_weights(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=rf"^model\.weights {path}: not a file$"):
            build_efficientnet(config(path), species=4, pretrained=True)


def test_a_missing_weights_file_is_named():
    with pytest.raises(UserError, match=r"model\.weights nowhere/w\.pth: no such file"):
        build_efficientnet(config("nowhere/w.pth"), species=4, pretrained=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """torchvision's download pointed at a local server: a function that takes (file, its hash in the name)."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offer(content: bytes, sha: str | None = None) -> None:
        name = f"efficientnet_b0-{sha or hashlib.sha256(content).hexdigest()[:8]}.pth"
        (folder / name).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monkeypatch.setattr(EfficientNet_B0_Weights.IMAGENET1K_V1.value, "url", url)

    yield offer
    server.shutdown()
    server.server_close()


def test_imagenet_weights_come_through_torchvisions_download(downloads, weights_file, torchvision_state):
    downloads(weights_file().read_bytes())
    network = build_efficientnet(config("imagenet"), species=4, pretrained=True)
    for name in ("features.0.0.weight", "features.8.1.running_var"):
        assert torch.equal(network.state_dict()[name], torchvision_state[name])


def test_a_download_with_the_wrong_hash_is_refused(downloads, weights_file):
    downloads(weights_file().read_bytes(), sha="0badc0de")
    with pytest.raises(UserError, match=r"model.weights imagenet: the download failed .*hash"):
        build_efficientnet(config("imagenet"), species=4, pretrained=True)


def test_an_unreachable_download_server_gives_one_sentence_with_a_way_on(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/efficientnet_b0-12345678.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(EfficientNet_B0_Weights.IMAGENET1K_V1.value, "url", url)
    with pytest.raises(UserError, match=r"the download failed .*-o model\.weights=FILE") as caught:
        build_efficientnet(config("imagenet"), species=4, pretrained=True)
    assert "\n" not in str(caught.value)


def test_a_network_whose_own_state_comes_next_needs_no_weights():
    build_efficientnet(config("nowhere/w.pth"), species=4, pretrained=False)


@pytest.mark.real_data
def test_the_real_imagenet_weights_fit(shared_folder):
    path = shared_folder / "weights" / "efficientnet_b0_imagenet.pth"
    network = build_efficientnet(config(path), species=4, pretrained=True)
    stored = torch.load(path, weights_only=True)
    assert torch.equal(network.features[8][0].weight, stored["features.8.0.weight"])


def test_fewer_stages_with_prototypes_learn_from_what_frozen_stages_give(weights_file):
    given = {"freeze_depth": 3, "stages": 3, "pooling": "mean_max", "head": "prototypes", "dimensions": 8}
    assert len(build_efficientnet(config(weights_file(), **given), species=2, pretrained=True).features) == 3
    network = build_efficientnet(config(**given), species=2, pretrained=True).eval()
    spectrograms, labels = torch.randn(12, 1, 64, 64), torch.tensor([0] * 6 + [1] * 6)
    spectrograms[6:, :, :20] += 2
    features = network.prefix(spectrograms)
    assert features.shape == (12, 2 * 24)
    network.fit_input([features], labels, ["a", "b"] * 6)
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad] == [
        "classifier.prototypes"
    ]
    torch.testing.assert_close(network(spectrograms), network.tail(features))
    assert network.embed(spectrograms).shape == (12, 8) and (network(spectrograms).argmax(dim=1) == labels).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stages": 3, "freeze_depth": 4}, "freeze_depth is at most stages, 3, not 4"),
        ({"head": "prototypes", "freeze_depth": 4}, "set freeze_depth to 9"),
    ],
)
def test_impossible_combinations_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        config(**given)
