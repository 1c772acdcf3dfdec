"""Generated ocean noise: spectra as Wenz found them, at the signal-to-noise ratio that was drawn."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.transforms.mel_scale import frequencies
from watkins_ml.transforms.ocean_noise import DECIBEL, OceanNoise, added, fluctuation, spectrum
from watkins_ml.transforms.recorder import NEPERS, standardised
from watkins_ml.transforms.transform import Batch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(spectrograms: torch.Tensor, seed: int = 0, **keys: float) -> torch.Tensor:
    transform = OceanNoise.model_validate({"name": "ocean_noise", **keys})
    labels = torch.arange(len(spectrograms))
    result = transform(Batch(spectrograms, labels, len(labels)), seeded(seed))
    assert torch.equal(result.labels, labels) and result.spectrograms.isfinite().all()
    return result.spectrograms


@pytest.fixture(scope="module")
def spectrograms() -> torch.Tensor:
    """A tone over faint noise, as the frontend leaves it: (30, 1, 128, 50)."""
    sound = 0.3 * torch.randn(30, 1, 128, 50, generator=seeded())
    sound[:, :, 80] += 1.5
    return standardised(sound)


def test_spectra_lie_where_wenz_found_those_of_the_sea():
    """Wenz 1962, figure 13: the usual limits of prevailing noise, and no sea quieter than its thermal noise."""
    hertz = torch.tensor([20.0, 100.0, 1_000.0, 10_000.0])
    levels = spectrum(hertz, 2000, seeded())
    quietest, loudest = levels.quantile(0.02, dim=0), levels.quantile(0.98, dim=0)
    assert (quietest > torch.tensor([55.0, 50.0, 40.0, 20.0])).all()
    assert (loudest < torch.tensor([100.0, 95.0, 90.0, 85.0])).all()
    assert levels.std(dim=0).min() > 3, "no two seas are alike"


def test_wind_noise_falls_by_five_to_six_decibels_an_octave_above_500_hz():
    levels = spectrum(torch.tensor([2_000.0, 4_000.0]), 4000, seeded())
    falls = levels[:, 0] - levels[:, 1]
    assert (falls < 6.5).all(), "nothing falls faster"
    assert ((falls > 4.5) & (falls < 6.1)).float().mean() > 0.3, "nor rain nor hiss in every third"
    assert (falls < 1).float().mean() > 0.05, "hiss and rain in some"


@pytest.mark.parametrize("decibels", [-10.0, 0.0, 20.0])
def test_the_ratio_is_that_of_mean_powers(spectrograms, decibels):
    sound, noise = spectrograms * NEPERS, torch.randn(spectrograms.shape, generator=seeded()) + 7
    mixed = added(sound, noise, torch.tensor(decibels) * DECIBEL)
    powers = [each.double().exp().mean(dim=(-2, -1)) for each in (mixed, sound)]
    torch.testing.assert_close(
        powers[0] / powers[1] - 1, torch.full((30, 1), 10 ** (-decibels / 10)).double(), rtol=1e-3, atol=1e-5
    )


def test_noise_far_below_a_recording_changes_nothing_and_far_above_it_leaves_nothing(spectrograms):
    torch.testing.assert_close(
        noisy(spectrograms, lowest_snr=110, highest_snr=110, probability=1), spectrograms, atol=1e-2, rtol=1e-2
    )
    drowned = noisy(spectrograms, lowest_snr=-60, highest_snr=-60, probability=1)
    alone = noisy(spectrograms.roll(20, 2), lowest_snr=-60, highest_snr=-60, probability=1)
    torch.testing.assert_close(drowned, alone, atol=0.3, rtol=0)


def test_every_recording_gets_another_sea_and_a_call_stays_where_it_is(spectrograms):
    mixed = noisy(spectrograms, lowest_snr=20, highest_snr=30, probability=1)
    assert (mixed[:, 0, 70:].mean(dim=-1).argmax(dim=-1) == 10).all(), "the tone"
    below = (mixed - spectrograms)[:, 0, :60].mean(dim=-1)
    assert torch.corrcoef(below - below.mean(dim=0)).fill_diagonal_(0).max() < 0.9999
    assert below.std(dim=0).mean() > 0.05
    torch.testing.assert_close(mixed, standardised(mixed), atol=1e-4, rtol=1e-4)


def test_a_seed_gives_the_same_noise_and_another_seed_another(spectrograms):
    assert torch.equal(noisy(spectrograms, 3), noisy(spectrograms, 3))
    assert not torch.equal(noisy(spectrograms, 3), noisy(spectrograms, 4))


def test_noise_fluctuates_as_stationary_noise_does():
    """Deviation of power over mean is 1 / sqrt(degrees of freedom); only neighbouring frames overlap."""
    settings = FrontendSettings()
    edges = frequencies(settings, 128)
    width = (edges[2:] - edges[:-2]) / 2
    power = fluctuation((20, 1, 128, 400), width, settings, seeded())[:, 0]
    assert power.shape == (20, 128, 400) and (power > 0).all()
    torch.testing.assert_close(power.mean(dim=(0, 2)), torch.ones(128), atol=0.08, rtol=0)
    deviation = power.std(dim=(0, 2))
    freedom = (width / (1.5 * 16_000 / 512)).clamp(min=1)
    torch.testing.assert_close(deviation, 1 / freedom.sqrt(), atol=0.08, rtol=0.1)
    centred = (power - 1) / deviation[:, None]
    assert (centred[..., 1:] * centred[..., :-1]).mean() > 0.5
    assert abs((centred[..., 5:] * centred[..., :-5]).mean()) < 0.05


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lowest_snr": 10, "highest_snr": 0}, r"at least lowest_snr \(10\.0\)"),
        ({"lowest_snr": 60}, r"at least lowest_snr \(60\.0\)"),
        ({"lowest_snr": -100}, "greater than or equal to -60"),
        ({"probability": 2}, "less than or equal to 1"),
    ],
)
def test_bad_values_are_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        OceanNoise.model_validate({"name": "ocean_noise", **keys})
