import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import load_side, open_side
from watkins_ml.evaluation.controls import (
    CONTROLS,
    WITH_AUDIO,
    control_predictions,
    control_scores,
    control_table,
    controls,
    learned_from,
    spectrum_prediction,
)
from watkins_ml.evaluation.spectrum import band_statistics


def cuts(*rows: tuple[str, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["species", "tape", "sample_rate", "duration_s"])


TRAIN = cuts(
    *[("orca", "54018", 40_000, 1.0)] * 6,
    *[("walrus", "72001", 10_000, 3.0)] * 4,
    *[("beluga", "49001", 40_000, 9.0)] * 3,
)


def test_a_leaky_split_is_solved_by_the_tape_alone():
    test = cuts(("orca", "54018", 1, 1.0), ("walrus", "72001", 1, 1.0), ("beluga", "49001", 1, 1.0))
    found = controls(TRAIN, test)
    assert found["control_tape_accuracy"] == 1
    assert found["control_tape_macro_f1"] == 1
    assert found["control_majority_accuracy"] == pytest.approx(1 / 3)


def test_in_a_grouped_split_the_tape_falls_back_to_the_majority():
    test = cuts(("orca", "90001", 1, 1.0), ("walrus", "90002", 1, 1.0), ("walrus", "90003", 1, 1.0))
    found = controls(TRAIN, test)
    assert found["control_tape_accuracy"] == found["control_majority_accuracy"] == pytest.approx(1 / 3)
    assert found["control_majority_macro_f1"] == pytest.approx(0.5 / 2)  # orca 0.5, walrus 0, beluga absent


def test_sample_rate_and_duration_alone_and_together():
    train = pd.concat(
        [cuts(("orca", "a", 40_000, 1.0), ("walrus", "b", 10_000, 1.0), ("beluga", "c", 40_000, 9.0))] * 20
    )
    test = cuts(("orca", "x", 40_000, 1.1), ("walrus", "y", 10_000, 1.1), ("beluga", "z", 40_000, 8.9))
    predicted = control_predictions(train, test)
    assert list(predicted["sample_rate"]) == ["beluga", "walrus", "beluga"]  # of equals the first by name
    assert predicted["duration"].iloc[0] == predicted["duration"].iloc[1] != "beluga"
    assert predicted["duration"].iloc[2] == "beluga"
    assert list(predicted["rate_duration"]) == list(test.species)


def test_the_site_names_the_species_and_an_empty_or_unseen_one_the_commonest():
    train = TRAIN.assign(site=[*["Churchill"] * 6, *[""] * 4, *["Scoresby Sund"] * 3])
    test = TRAIN.iloc[[0, 6, 12, 12]].reset_index(drop=True)
    test["site"] = ["Churchill", "", "Scoresby Sund", "Elsewhere"]
    assert list(control_predictions(train, test)["site"]) == ["orca", "orca", "beluga", "orca"]
    assert controls(train, test)["control_site_accuracy"] == pytest.approx(2 / 4)
    nowhere = train.assign(site="")
    assert set(control_predictions(nowhere, test)["site"]) == {"orca"}


def test_without_a_site_on_both_sides_there_is_no_control_of_it():
    assert "site" not in control_predictions(TRAIN.assign(site="x"), TRAIN)
    assert "control_site_accuracy" not in controls(TRAIN, TRAIN.assign(site="x"))


@pytest.mark.parametrize("train", [TRAIN.head(1), TRAIN.head(6), TRAIN.iloc[[0, 6]]])
def test_tiny_sets_and_one_species(train):
    found = controls(train, TRAIN)
    assert len(found) == 2 * (len(CONTROLS) - 1)
    assert all(0 <= value <= 1 for value in found.values())


def test_is_repeatable_and_indifferent_to_the_index():
    shuffled = TRAIN.sample(frac=1, random_state=1)
    assert controls(TRAIN, shuffled) == controls(TRAIN, shuffled.reset_index(drop=True))


@settings(deadline=None, max_examples=8)
@given(folds=st.lists(st.integers(0, 2), min_size=len(TRAIN), max_size=len(TRAIN)), seed=st.integers(0, 99))
def test_pooled_over_folds_the_accuracy_is_the_mean_over_cuts_in_whatever_order(folds, seed):
    """What cross-validation pools: each cut is predicted once, by the fold that did not train on it."""
    cut_by_cut = TRAIN.sample(frac=1, random_state=seed).assign(fold=folds, site="x")
    parts = []
    for fold, test in cut_by_cut.groupby("fold"):
        train = cut_by_cut[cut_by_cut.fold != fold]
        if train.empty:
            return
        predicted = control_predictions(train, test)
        parts.append((len(test), control_scores(test.species, predicted), predicted))
    pooled = control_scores(cut_by_cut.species, pd.concat([predicted for *_, predicted in parts]))
    for name in CONTROLS:
        key = f"control_{name}_accuracy"
        mean = sum(count * scores[key] for count, scores, _ in parts) / len(cut_by_cut)
        assert pooled[key] == pytest.approx(mean)


def test_predictions_of_other_cuts_are_not_scored():
    predictions = control_predictions(TRAIN, TRAIN)
    with pytest.raises(ValueError, match="13 cuts, but predictions for 12"):
        control_scores(TRAIN.species, predictions.head(12))
    twice = pd.concat([predictions.head(7), predictions.head(6)])
    with pytest.raises(ValueError, match="duplicate"):
        control_scores(TRAIN.species, twice)


def test_the_table_has_a_row_for_each_control_that_was_scored():
    scores = controls(TRAIN.assign(site="x"), TRAIN.assign(site="x")) | {"accuracy": 1.0}
    table = control_table(scores)
    assert dict(zip(table.control, table.title, strict=True)) == CONTROLS
    assert table.set_index("control").macro_f1["tape"] == scores["control_tape_macro_f1"]
    assert list(control_table(controls(TRAIN, TRAIN)).control) == [name for name in CONTROLS if name != "site"]


def test_the_features_are_mean_and_deviation_of_each_band_whether_in_memory_or_on_the_disk(prepared, monkeypatch):
    data = read_prepared(prepared)
    monkeypatch.setattr("watkins_ml.evaluation.spectrum.BATCH", 5)  # the last batch is smaller
    sides = [load_side(data, name) for name in ("val", "train")]
    found = band_statistics(sides)
    spectrograms = np.concatenate([side.spectrograms.numpy()[:, 0] for side in sides])
    assert found.index.tolist() == [*data.sides["val"].path, *data.sides["train"].path]
    assert found.to_numpy() == pytest.approx(np.hstack([spectrograms.mean(axis=2), spectrograms.std(axis=2)]), abs=1e-4)
    assert found.dtypes.eq(float).all() and found.shape[1] == 2 * data.frontend.n_mels
    from_disk = band_statistics(open_side(data, name) for name in ("val", "train"))
    pd.testing.assert_frame_equal(found, from_disk)


def sounding(frame: pd.DataFrame, bands: dict[str, int], seed: int = 0) -> pd.DataFrame:
    """Features in which each species is louder in a band of its own."""
    features = np.random.default_rng(seed).standard_normal((len(frame), 8)) * 0.3
    features[np.arange(len(frame)), [bands[name] for name in frame.species]] += 3
    return pd.DataFrame(features, index=frame.path)


BANDS = {"orca": 1, "walrus": 3, "beluga": 6}
HEARD = TRAIN.assign(path=[f"a{n}" for n in range(len(TRAIN))])
TO_HEAR = TRAIN.assign(path=[f"b{n}" for n in range(len(TRAIN))], tape="new", sample_rate=1, duration_s=1.0)
SPECTRA = pd.concat([sounding(HEARD, BANDS), sounding(TO_HEAR, BANDS, seed=1)])


def test_with_audio_the_species_are_told_by_their_bands_on_whatever_tape():
    found = controls(HEARD, TO_HEAR, SPECTRA)
    assert found["control_spectrum_accuracy"] == found["control_spectrum_macro_f1"] == 1
    assert found["control_tape_accuracy"] < 0.5
    assert "control_spectrum_accuracy" not in controls(HEARD, TO_HEAR)
    assert list(control_table(found).control)[-1] == "spectrum"
    assert control_table(found).title.iloc[-1] == WITH_AUDIO["spectrum"]


def test_a_band_without_any_difference_and_bands_of_other_scales_do_no_harm():
    scaled = SPECTRA * np.geomspace(1e-3, 1e3, 8) + 50
    scaled[0] = 1.0
    assert spectrum_prediction(HEARD, TO_HEAR, scaled).tolist() == TO_HEAR.species.tolist()


def test_a_rare_species_weighs_as_much_as_a_common_one():
    """With features that overlap, an unweighted regression never names the rarer of two species."""
    train = cuts(*[("orca", "a", 1, 1.0)] * 95, *[("walrus", "b", 1, 1.0)] * 5).assign(
        path=[str(n) for n in range(100)]
    )
    rng = np.random.default_rng(3)
    spectra = pd.DataFrame(rng.standard_normal((100, 2)) + (train.species == "walrus").to_numpy()[:, None], train.path)
    assert spectrum_prediction(train, train, spectra).eq("walrus")[95:].sum() >= 3


def test_one_species_needs_no_regression_and_the_result_repeats_in_any_order():
    alone = HEARD.head(6)
    assert set(spectrum_prediction(alone, TO_HEAR, SPECTRA)) == {"orca"}
    blurred = SPECTRA + np.random.default_rng(4).standard_normal(SPECTRA.shape) * 2
    first = spectrum_prediction(HEARD, TO_HEAR, blurred)
    assert spectrum_prediction(HEARD, TO_HEAR, blurred.sample(frac=1, random_state=2)).equals(first)
    assert spectrum_prediction(HEARD, TO_HEAR.iloc[::-1], blurred).sort_index().equals(first)


def test_after_a_refit_controls_learn_from_what_the_network_has_learned_from():
    """A species that only validation holds is known to a regression beside a network that was trained on it too."""
    sides = {"train": cuts(("a", "t", 1, 1.0)), "val": cuts(("b", "v", 1, 1.0))}
    assert list(learned_from(sides, refit=False)["species"]) == ["a"]
    assert list(learned_from(sides, refit=True)["species"]) == ["a", "b"]
