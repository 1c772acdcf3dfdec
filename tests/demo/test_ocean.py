"""The generated ocean: reproducible, shaped like an archive of tapes, and calling as the papers say."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from watkins_ml.demo import calls
from watkins_ml.demo.calls import SPECIES
from watkins_ml.demo.ocean import OceanSummary, generate_ocean, generate_recording

BANDS = {species.name: species.band for species in SPECIES}


@pytest.fixture(scope="module")
def ocean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OceanSummary]:
    """The default ocean of 360 clips."""
    folder = tmp_path_factory.mktemp("ocean")
    return folder, generate_ocean(folder)


def readable(folder: Path, summary: OceanSummary) -> list[Path]:
    return [path for path in sorted(folder.glob("*/*.wav")) if path != summary.corrupt]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def share_in_band(samples: np.ndarray, rate: int, band: tuple[float, float]) -> float:
    """The share of the energy that lies within `band` hertz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / rate)
    return power[(frequency >= band[0]) & (frequency <= band[1])].sum() / power.sum()


def peak_frequency(samples: np.ndarray, rate: int) -> float:
    """The frequency in hertz where a windowed, zero-padded spectrum is highest."""
    size = max(len(samples), 2 * rate)
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size)).argmax() * rate / size)


def sounding(samples: np.ndarray) -> np.ndarray:
    """The part between the first and the last sample that is not silent."""
    at = np.flatnonzero(samples)
    return samples[at[0] : at[-1] + 1]


def click_times(samples: np.ndarray, rate: int) -> np.ndarray:
    """When each click begins: the first non-zero sample after at least 5 ms of silence."""
    at = np.flatnonzero(samples)
    return at[np.diff(at, prepend=-rate) > 0.005 * rate] / rate


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    first = generate_ocean(tmp_path / "a", seed=3, clips=40)
    again = generate_ocean(tmp_path / "b", seed=3, clips=40)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (first.species, first.tapes, first.seconds) == (again.species, again.tapes, again.seconds)


def test_another_seed_gives_another_ocean_and_replaces_the_old_one(tmp_path):
    generate_ocean(tmp_path, seed=1, clips=60)
    before = contents(tmp_path)
    generate_ocean(tmp_path, seed=2, clips=40)
    after = contents(tmp_path)
    assert len([name for name in after if name.endswith(".wav")]) == 42
    audio = set(before.values()) & set(after.values())
    assert not [data for data in audio if data.startswith(b"RIFF") and len(data) > 30]
    assert not list(tmp_path.rglob("*.part"))


def test_an_interrupted_ocean_can_be_generated_again(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disc full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disc full"):
        patch.setattr(sf, "write", fail)
        generate_ocean(tmp_path, clips=40)
    assert generate_ocean(tmp_path, clips=40).corrupt.exists()


def test_recordings_that_are_not_ours_are_left_alone(tmp_path):
    precious = tmp_path / "SpermWhale" / "61025001.wav"
    precious.parent.mkdir()
    precious.write_bytes(b"a real recording")
    with pytest.raises(FileExistsError, match="SpermWhale"):
        generate_ocean(tmp_path, clips=40)
    assert contents(tmp_path) == {"SpermWhale/61025001.wav": b"a real recording"}


@pytest.mark.parametrize("clips", [0, 39, 10_001])
def test_a_number_of_clips_that_cannot_be_shared_out_is_refused(tmp_path, clips):
    with pytest.raises(ValueError, match=f"not {clips}"):
        generate_ocean(tmp_path / "ocean", clips=clips)
    assert not (tmp_path / "ocean").exists()


def test_the_species_are_imbalanced_and_their_counts_are_those_on_disc(ocean):
    folder, summary = ocean
    extra = {summary.corrupt, summary.duplicate}
    found = {
        path.name: sum(wav not in extra for wav in path.glob("*.wav")) for path in folder.iterdir() if path.is_dir()
    }
    assert found == summary.species
    assert len(found) >= 8
    assert sum(found.values()) == 360
    assert min(found.values()) >= 24
    assert 5 <= max(found.values()) / min(found.values()) <= 7


def test_each_species_has_several_tapes_and_no_tape_two_species(ocean):
    folder, summary = ocean
    on_disc = defaultdict(set)
    for path in folder.glob("*/*.wav"):
        assert len(path.stem) == 8 and path.stem.isdigit()
        on_disc[path.parent.name].add(path.stem[:5])
    assert on_disc == {name: set(tapes) for name, tapes in summary.tapes.items()}
    assert all(5 <= len(tapes) <= 9 for tapes in on_disc.values())
    assert len(set().union(*on_disc.values())) == sum(map(len, on_disc.values()))


def test_tapes_have_their_own_rate_which_leaves_room_for_the_call(ocean):
    folder, summary = ocean
    rates, channels = defaultdict(set), defaultdict(set)
    for path in readable(folder, summary):
        info = sf.info(path)
        assert info.samplerate / 2 > BANDS[path.parent.name][1]
        assert 0.29 <= info.duration <= 5.01
        if path != summary.duplicate:
            rates[path.stem[:5]].add(info.samplerate)
            channels[path.stem[:5]].add(info.channels)
    assert all(len(one) == 1 for one in [*rates.values(), *channels.values()])
    assert set.union(*rates.values()) == {10000, 16000, 22050, 44100, 96000}
    assert set.union(*channels.values()) == {1, 2}
    for tapes in summary.tapes.values():
        assert len(set.union(*(rates[tape] for tape in tapes))) >= 2


def test_the_two_channels_of_a_stereo_cut_differ(ocean):
    folder, summary = ocean
    stereo = next(path for path in readable(folder, summary) if sf.info(path).channels == 2)
    left, right = sf.read(stereo)[0].T
    assert not np.array_equal(left, right)


def test_tapes_differ_in_level_and_colour_of_their_noise(ocean):
    """The quietest tapes lie well below the loudest, and the darkest far from the brightest."""
    folder, summary = ocean
    levels, bright = defaultdict(list), defaultdict(list)
    for path in readable(folder, summary)[::3]:
        samples, rate = sf.read(path, frames=2**15, always_2d=True)
        levels[path.stem[:5]].append(10 * np.log10(np.mean(samples[:, 0] ** 2)))
        bright[path.stem[:5]].append(share_in_band(samples[:, 0], rate, (0.3 * rate, 0.5 * rate)))
    level, share = ([np.median(values) for values in by.values()] for by in (levels, bright))
    assert np.ptp(level) > 15
    assert min(share) < 0.05 and max(share) > 0.25


def test_no_cut_is_silent_or_clipped(ocean):
    folder, summary = ocean
    for path in readable(folder, summary):
        peak = np.abs(sf.read(path)[0]).max()
        assert 0.003 < peak < 0.99, path


def test_the_corrupt_file_alone_cannot_be_read(ocean):
    folder, summary = ocean
    with pytest.raises(sf.LibsndfileError):
        sf.read(summary.corrupt)
    assert summary.corrupt.suffix == ".wav" and summary.corrupt.stat().st_size > 0
    for path in readable(folder, summary):
        assert sf.info(path).frames > 0


def test_there_is_exactly_one_duplicate_and_it_sits_on_another_tape(ocean):
    folder, summary = ocean
    same = defaultdict(set)
    for path in readable(folder, summary):
        same[sf.read(path)[0].tobytes()].add(path)
    assert [group for group in same.values() if len(group) > 1] == [{summary.original, summary.duplicate}]
    assert summary.original.parent == summary.duplicate.parent
    assert summary.original.stem[:5] != summary.duplicate.stem[:5]


def test_the_seconds_are_those_of_the_distinct_cuts(ocean):
    folder, summary = ocean
    total = sum(sf.info(path).duration for path in readable(folder, summary) if path != summary.duplicate)
    assert summary.seconds == pytest.approx(total)


@pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.name)
def test_the_energy_of_a_call_lies_in_its_published_band_at_every_rate(species):
    for rate in species.rates:
        for seed in range(8):
            seconds = species.seconds[seed % 2]
            call = species.call(np.random.default_rng(seed), rate, seconds)
            assert len(call) == round(seconds * rate)
            assert 0.3 < np.abs(call).max() < 1.6
            assert share_in_band(call, rate, species.band) > 0.97, (rate, seed)


def test_the_fin_whale_pulse_sweeps_down_from_23_to_18_hz_in_about_a_second():
    for seed in range(8):
        pulse = sounding(calls.fin_whale(np.random.default_rng(seed), 1000, 1.5))
        third = len(pulse) // 3
        assert 0.7 < len(pulse) / 1000 < 1.2
        start, end = peak_frequency(pulse[:third], 1000), peak_frequency(pulse[-third:], 1000)
        assert 20.5 < start < 24.5 and 16.5 < end < 20.5 and start - end > 1.5


def test_usual_sperm_whale_clicks_are_half_a_second_to_two_seconds_apart_and_regular():
    means = []
    for seed in range(20):
        times = click_times(calls.sperm_clicks(np.random.default_rng(seed), 44100, 20.0), 44100)
        gaps = np.diff(times)
        assert len(gaps) >= 8
        assert gaps.min() >= 0.5 and gaps.max() <= 2.0
        assert gaps.std() / gaps.mean() < 0.1
        means.append(gaps.mean())
    assert np.ptp(means) > 0.5


def test_a_sperm_whale_click_is_several_pulses_a_few_milliseconds_apart():
    rate = 44100
    for seed in range(8):
        samples = sounding(calls.sperm_clicks(np.random.default_rng(seed), rate, 1.0))[: round(0.04 * rate)]
        envelope = np.convolve(np.abs(samples), np.hanning(33) / 16, "same")
        echo = np.correlate(envelope, envelope, "full")[len(envelope) - 1 :]
        lag = round(0.0025 * rate) + echo[round(0.0025 * rate) : round(0.008 * rate)].argmax()
        assert 0.0029 < lag / rate < 0.0071
        assert echo[lag] > 0.3 * echo[0]


def test_a_creak_speeds_up_to_tens_of_milliseconds():
    for seed in range(10):
        gaps = np.diff(click_times(calls.sperm_creak(np.random.default_rng(seed), 44100, 4.0), 44100))
        assert 0.09 < gaps[0] < 0.2 and 0.015 < gaps[-1] < 0.06
        assert np.all(np.diff(gaps) < 0.001)


def test_the_bearded_seal_trill_falls_by_more_than_an_octave():
    for seed in range(8):
        trill = sounding(calls.bearded_seal(np.random.default_rng(seed), 16000, 4.0))
        tenth = len(trill) // 10
        start, end = (peak_frequency(part, 16000) for part in (trill[tenth : 2 * tenth], trill[-tenth:]))
        assert start > 1.8 * end and end < 1100


def test_killer_whale_sidebands_are_evenly_spaced_by_a_rate_that_changes():
    """The spectrum of a stretch of call is a comb; its spacing, from the autocorrelation, is 200-1700 Hz."""
    rate, spacing = 44100, []
    for seed in range(8):
        call = sounding(calls.killer_whale(np.random.default_rng(seed), rate, 0.9))
        for part in np.array_split(call, 20)[1:-1]:
            echo = np.correlate(part, part, "full")[len(part) - 1 :]
            lags = slice(rate // 1700, rate // 200)
            best = lags.start + echo[lags].argmax()
            spacing.append(rate / best if echo[best] > 0.3 * echo[0] else np.nan)
    spacing = np.array(spacing).reshape(8, -1)
    assert np.isfinite(spacing).mean() > 0.8
    assert np.median(np.nanmax(spacing, 1) / np.nanmin(spacing, 1)) > 1.2


def test_a_recording_is_reproducible_and_its_calls_are_where_it_says(tmp_path):
    seen = set()
    for seed in range(6):
        found = generate_recording(tmp_path / "recordings" / "a.wav", seed)
        first = (tmp_path / "recordings" / "a.wav").read_bytes()
        assert generate_recording(tmp_path / "recordings" / "a.wav", seed) == found
        assert (tmp_path / "recordings" / "a.wav").read_bytes() == first
        samples, rate = sf.read(tmp_path / "recordings" / "a.wav", always_2d=True)
        assert len(samples) / rate == pytest.approx(30)
        edges = [edge for start, end, _ in found for edge in (start, end)]
        assert len(found) >= 3 and edges == sorted(edges) and 0 < edges[0] and edges[-1] < 30
        (species,) = {name for _, _, name in found}
        seen.add(species)
        assert contrast(samples[:, 0], rate, found, BANDS[species]) > 1.5
    assert len(seen) >= 3


def contrast(samples: np.ndarray, rate: int, spans: list, band: tuple[float, float]) -> float:
    """The power within `band` inside the spans over that outside them."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / rate)
    spectrum[(frequency < band[0]) | (frequency > band[1])] = 0
    power = np.fft.irfft(spectrum, len(samples)) ** 2
    inside = np.zeros(len(samples), bool)
    for start, end, _ in spans:
        inside[round(start * rate) : round(end * rate)] = True
    return float(power[inside].mean() / power[~inside].mean())
