import pytest
import torch
from torch import nn

from watkins_ml.models.families.baseline import BaselineCNN


@pytest.fixture
def network():
    return BaselineCNN(species=5, dropout=0.0).eval()


def test_logits_have_one_column_a_species(network):
    assert network(torch.randn(3, 1, 128, 400)).shape == (3, 5)


def test_four_blocks_of_16_32_64_and_128_channels(network):
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.in_channels for layer in convolutions] == [1, 16, 32, 64]
    assert [layer.out_channels for layer in convolutions] == [16, 32, 64, 128]


@pytest.mark.parametrize("frames", [16, 57, 1000])
def test_global_average_pooling_takes_any_length(network, frames):
    assert network(torch.randn(2, 1, 128, frames)).shape == (2, 5)


def test_a_recording_is_judged_by_itself_not_by_its_batch(network):
    batch = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]))


def test_dropout_acts_in_training_only():
    network = BaselineCNN(species=3, dropout=0.5)
    batch = torch.randn(4, 1, 32, 32)
    assert not torch.equal(network.train()(batch), network(batch))
    assert torch.equal(network.eval()(batch), network(batch))
