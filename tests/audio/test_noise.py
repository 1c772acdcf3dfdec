import numpy as np

from watkins_ml.audio.noise import coloured_noise


def spectra(count: int = 60, samples: int = 16_384) -> np.ndarray:
    rng = np.random.default_rng(0)
    noises = [coloured_noise(rng, samples) for _ in range(count)]
    for noise in noises:
        assert noise.dtype == np.float32 and noise.shape == (samples,)
        assert np.isfinite(noise).all() and abs(noise.std() - 0.1) < 1e-3
    power = np.abs(np.fft.rfft(np.stack(noises))) ** 2
    return 10 * np.log10(power[:, 1:].reshape(count, 64, -1).mean(axis=2))


def test_noises_are_of_many_colours_up_to_many_limits():
    levels = spectra()
    spread = levels.max(axis=1) - levels.min(axis=1)
    assert (spread < 12).any() and (spread > 60).sum() > 10
    edges = {int(np.argmax(row < row.max() - 70)) for row in levels if (row < row.max() - 70).any()}
    assert len(edges) > 8  # where what is left ends, in 64 bands


def test_the_same_seed_gives_the_same_noise():
    first, second = (coloured_noise(np.random.default_rng(3), 5_121) for _ in range(2))
    assert np.array_equal(first, second)
