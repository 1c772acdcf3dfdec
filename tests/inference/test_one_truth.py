"""By file, by window, by detection, served and evaluated: one recording, one answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from watkins_ml.audio.stream import sliding_windows
from watkins_ml.core.errors import UserError
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.detections import DetectionOptions
from watkins_ml.inference.pipeline import predict_recordings
from watkins_ml.inference.scores import score_recordings
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.scoring import window_outputs

RATE = 8_000
ALL = 99


def sound(parts: list[tuple[str, float]], seed: int) -> np.ndarray:
    """Calls, noise and digital silence one after the other, each for so many seconds."""
    rng, made = np.random.default_rng(seed), []
    for kind, seconds in parts:
        time = np.arange(round(seconds * RATE)) / RATE
        hertz = {"fin": 400, "dolphin": 3_000, "pilot": 1_500}.get(kind)
        call = 0 if hertz is None else 0.3 * np.sin(2 * np.pi * hertz * time)
        made.append(np.zeros(len(time)) if kind == "silence" else call + 0.05 * rng.standard_normal(len(time)))
    return np.concatenate(made).astype("float32")


PARTS = st.lists(
    st.tuples(st.sampled_from(["fin", "dolphin", "pilot", "noise", "silence"]), st.floats(0.05, 2.5)),
    min_size=1,
    max_size=5,
)


WINDOWS = st.sampled_from([WindowOptions(), WindowOptions(0.75), WindowOptions(each_channel=True)])
FINISH = st.sampled_from(["", "", "offset", "quiet", "stereo"])


def finished_as(samples: np.ndarray, finish: str) -> np.ndarray:
    """With an offset, below what counts as sound, or the other way round on a second channel with its own noise."""
    if finish == "offset":
        return samples + np.float32(0.1)
    if finish == "quiet":
        return samples / max(np.abs(samples).max(), 1e-3) * np.float32(0.9e-5)
    if finish == "stereo":
        noise = np.random.default_rng(1).standard_normal(len(samples)).astype("float32")
        return np.stack([samples, 0.02 * noise], axis=1)
    return samples


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARTS, st.integers(0, 99), st.sampled_from([0.3, 0.7, 1.0, 1.5, math.inf]), WINDOWS, FINISH)
@example([("silence", 18), ("dolphin", 0.6), ("silence", 19)], 0, 0.7, WindowOptions(), "")
@example([("silence", 18), ("dolphin", 0.6), ("silence", 19)], 0, 1.5, WindowOptions(), "offset")
@example([("fin", 0.5)], 0, 1.0, WindowOptions(), "quiet")
def test_file_windows_and_detections_never_contradict(classifier, tmp_path_factory, parts, seed, limit, over, finish):
    path = tmp_path_factory.mktemp("sound") / "a.wav"
    soundfile.write(path, finished_as(sound(parts, seed), finish), RATE, subtype="FLOAT")
    [whole] = predict_files(classifier, [path], max_novelty=limit, options=over).to_dict("records")
    options = DetectionOptions(min_confidence=0, top=ALL, max_novelty=limit)
    [detected] = predict_recordings(classifier, [path], options, over).recordings
    assert (whole["species"] == "unknown") == detected.rows.empty
    assert detected.rows.empty == bool(detected.unknown)
    if whole["species"] == "unknown":
        assert math.isnan(whole["probability"]) and not whole["novelty"] <= limit
        assert whole["novelty"] == pytest.approx(detected.unknown.novelty, rel=1e-4, nan_ok=True)
        return
    assert whole["species"] in set(detected.rows["species"]), "what a file is called is detected in it"
    assert (detected.rows["novelty"] <= limit).all() and whole["novelty"] <= limit
    assert set(detected.rows["temperature"]) == {whole["temperature"]} == {classifier.temperature}
    windows = predict_recordings(classifier, [path], replace(options, merge=False), over).rows
    if limit < math.inf:
        surest = windows.sort_values("probability", ascending=False).groupby(["channel", "start_s"]).first()
        assert whole["species"] in set(surest["species"]), "and what some window is called first of all"
    [recording] = score_recordings(classifier, [path], over)
    if len(recording.spans) == 1:
        for table in (detected.rows, windows):
            first = table.loc[table["probability"].idxmax()]
            assert first["species"] == whole["species"]
            assert [first["probability"], first["novelty"]] == pytest.approx(
                [whole["probability"], whole["novelty"]], rel=1e-4
            )
    if (
        limit == math.inf and finish != "quiet"
    ):  # as `watkins evaluate`, which asks for the nearest species of every cut
        (expected,) = classifier.classify([path])
        assert whole["probability"] == pytest.approx(expected.max(), rel=1e-4)


def test_unknown_windows_do_not_outvote_a_known_one(classifier, tmp_path):
    samples = sound([("dolphin", 1), ("noise", 9)], seed=2)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    windows = classifier.frontend.file_windows(tmp_path / "a.wav")
    outputs = window_outputs(classifier.network, [windows])
    novelties = classifier.window_novelty(outputs)
    limit = float(novelties.sort().values[:2].mean())  # one window is known
    answer = classifier.predict_outputs(outputs, limit)
    alone = classifier.predict([windows[int(novelties.argmin())][None]])
    np.testing.assert_allclose(answer.probabilities, alone.probabilities, rtol=1e-4)
    assert answer.novelty[0] == pytest.approx(float(novelties.min()), rel=1e-4)
    nothing = classifier.predict_outputs(outputs, 0.0)
    np.testing.assert_allclose(nothing.probabilities, classifier.predict_outputs(outputs).probabilities)
    assert nothing.novelty[0] == pytest.approx(float(novelties.min()), rel=1e-4)


def test_a_sound_for_which_the_network_gives_no_numbers_is_told(classifier):
    broken = torch.full((1, 1, *classifier.frontend(np.ones(99), RATE).shape[1:]), math.nan)
    with pytest.raises(UserError, match="no numbers for this sound"):
        classifier.predict([broken], max_novelty=1.0)


def test_a_call_between_silent_ends_is_one_window_as_in_training(classifier, tmp_path):
    path = tmp_path / "padded.wav"
    soundfile.write(path, sound([("silence", 2.1), ("dolphin", 0.6), ("silence", 3)], seed=3), RATE, subtype="FLOAT")
    [window] = sliding_windows(path, classifier.frontend.settings.seconds)
    assert (window.start_s, window.end_s) == (pytest.approx(2.1), pytest.approx(2.7))
    [recording] = score_recordings(classifier, [path], WindowOptions())
    np.testing.assert_allclose(recording.probabilities[0], classifier.classify([path])[0], rtol=1e-4)


@pytest.fixture
def days(archive, tmp_path) -> tuple[Path, Path]:
    """Two folders of recordings, two of which have one name."""
    folders = tmp_path / "day1", tmp_path / "day2"
    cuts = sorted(archive.rglob("*.wav"))
    for number, folder in enumerate(folders):
        folder.mkdir()
        for name, cut in zip(("a.wav", f"{number}.wav"), cuts[number::12], strict=False):
            (folder / name).write_bytes(cut.read_bytes())
    return folders


ASKED = ("--min-confidence", 0, "--max-novelty", "inf")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix in
            (".csv", ".txt")}  # fmt: skip


def test_a_second_folder_is_added_whatever_the_order(watkins, finished, days):
    formats = ("--format", "csv", "--format", "raven", "--format", "audacity")
    for folder, out in ((days[0], "one"), (days[1], "one"), (days[1], "two"), (days[0], "two")):
        said = watkins("predict", finished.run_dir, folder, "--out", out, *ASKED, *formats)
        assert said.status == 0
    assert "2 files" in said.out and "(with 2 recordings of earlier commands)" in said.out
    assert watkins("predict", finished.run_dir, *days, "--out", "both", *ASKED, *formats).status == 0
    assert content(Path("one")) == content(Path("two")) == content(Path("both"))
    found = pd.read_csv("one/detections.csv")
    assert found["path"].nunique() == len(list(Path("one/raven").iterdir())) == 4
    for table in Path("one/raven").iterdir():
        rows = pd.read_csv(table, sep="\t")
        assert Path(rows["Begin Path"][0]).is_absolute() and Path(rows["Begin Path"][0]).name == rows["Begin File"][0]


def test_a_folder_of_scores_that_is_moved_with_its_recordings_goes_on(watkins, finished, days, tmp_path, monkeypatch):
    formats = ("--format", "csv", "--format", "raven")
    assert watkins("predict", finished.run_dir, "day1", "--out", "found", *ASKED, *formats).status == 0
    (tmp_path / "moved").mkdir()
    for name in ("found", "day1", "day2"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    monkeypatch.chdir(tmp_path / "moved")
    kept = {path: path.stat().st_mtime_ns for path in Path("found/windows").iterdir()}
    assert watkins("predict", finished.run_dir, "day1", "--out", "found", *ASKED, *formats).status == 0
    assert {path: path.stat().st_mtime_ns for path in Path("found/windows").iterdir()} == kept, "not scored again"
    assert watkins("predict", finished.run_dir, "day2", "--out", "found", *ASKED, *formats).status == 0
    assert len(pd.read_csv("found/detections.csv")) == len(list(Path("found/raven").iterdir())) == 4
    for table in Path("found/raven").iterdir():
        assert Path(pd.read_csv(table, sep="\t")["Begin Path"][0]).is_file(), "where the recordings lie now"


def test_a_recording_that_is_scored_again_is_replaced(watkins, finished, days, archive):
    asked = ("predict", finished.run_dir, days[0], "--out", "found", *ASKED, "--format", "csv", "--format", "raven")
    assert watkins(*asked).status == 0
    before = content(Path("found"))
    (days[0] / "a.wav").write_bytes(sorted(archive.rglob("*.wav"))[30].read_bytes())
    assert watkins(*asked).status == 0
    assert before.keys() == content(Path("found")).keys() and before != content(Path("found"))
    assert len(pd.read_csv("found/detections.csv")) == 2


def test_all_tables_of_a_folder_follow_the_same_thresholds(watkins, finished, days):
    begun = ("predict", finished.run_dir, days[0], "--out", "found", "--format", "raven", "--format", "csv")
    assert watkins(*begun, *ASKED).status == 0
    [a, _] = sorted(Path("found/raven").iterdir())
    edited = a.read_text() + "\n"
    a.write_text(edited)
    second = ("predict", finished.run_dir, days[1], "--out", "found", "--format", "csv")
    assert watkins(*second, *ASKED).status == 0
    assert a.read_text() == edited, "a table that somebody has gone on with stays as it is"
    assert len(list(Path("found/raven").iterdir())) == 4, "formats of earlier commands are gone on with"
    assert watkins(*second, "--min-confidence", 1, "--max-novelty", "inf").status == 0
    assert pd.read_csv("found/detections.csv").empty
    assert all(pd.read_csv(each, sep="\t").empty for each in Path("found/raven").iterdir())


def test_what_a_killed_command_has_scored_is_in_the_tables_of_the_next(watkins, finished, days, monkeypatch):
    import watkins_ml.inference.pipeline as module

    def killed(*_):
        raise KeyboardInterrupt

    asked = ("predict", finished.run_dir, "--out", "found", *ASKED, "--format", "raven", "--format", "csv")
    assert watkins(*asked, days[0]).status == 0
    before = content(Path("found"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_outputs", killed)
        assert watkins(*asked, days[1]).status == 1
    assert content(Path("found")) == before, "nothing half"
    assert watkins(*asked, days[0] / "a.wav").status == 0
    together = content(Path("found"))
    assert watkins("predict", finished.run_dir, *days, "--out", "both", *asked[4:]).status == 0
    assert together == content(Path("both"))


def test_what_could_be_read_of_a_truncated_recording_stays_in_the_tables(watkins, finished, days):
    whole = sound([("dolphin", 30)], seed=4)
    soundfile.write(days[0] / "long.wav", whole, RATE)
    content_of = (days[0] / "long.wav").read_bytes()
    (days[0] / "long.wav").write_bytes(content_of[: len(content_of) // 2])
    asked = ("predict", finished.run_dir, "--out", "found", *ASKED, "--format", "csv", "--format", "raven")
    assert watkins(*asked, days[0]).status == watkins(*asked, days[1]).status == 0
    assert pd.read_csv("found/detections.csv")["path"].nunique() == len(list(Path("found/raven").iterdir())) == 5
    (days[0] / "long.wav").write_bytes(content_of)
    assert watkins(*asked, days[0]).status == 0
    assert pd.read_csv("found/detections.csv")["end_s"].max() == pytest.approx(30)
    assert not list(Path("found/partly").iterdir())


def test_damaged_scores_are_told_and_stops_nothing(watkins, finished, days):
    asked = ("predict", finished.run_dir, "--out", "found", *ASKED)
    assert watkins(*asked, days[0]).status == 0
    next(Path("found/windows").glob("a-*")).write_bytes(b"PAR1")
    said = watkins(*asked, days[1])
    assert said.status == 0 and "damaged, so its recording is missing from the tables" in said.err
    assert pd.read_csv("found/detections.csv")["path"].nunique() == 3


def test_a_folder_of_an_earlier_version_is_refused_in_a_sentence(watkins, finished, days):
    Path("found").mkdir()
    Path("found/predict.json").write_text('{"model_digest": "1"}')
    said = watkins("predict", finished.run_dir, days[0], "--out", "found")
    assert said.status == 2
    assert said.err == "watkins: found was written by an earlier version; give another --out\n"


def test_every_table_tells_the_novelty(watkins, finished, days):
    formats = ("csv", "parquet", "raven", "audacity")
    asked = ("predict", finished.run_dir, days[0], *ASKED)
    said = watkins(*asked, "--out", "found", *(word for each in formats for word in ("--format", each)))
    assert said.status == 0
    csv = pd.read_csv("found/detections.csv")
    assert csv["novelty"].tolist() == pytest.approx(pd.read_parquet("found/detections.parquet")["novelty"], abs=1e-6)
    raven = pd.concat(pd.read_csv(each, sep="\t") for each in sorted(Path("found/raven").iterdir()))
    assert sorted(raven["Novelty"]) == pytest.approx(sorted(csv["novelty"]), abs=1e-6)
    assert all(" novelty " in each.read_text() for each in Path("found/audacity").iterdir())
    for by in ("detection", "window"):
        said = watkins(*asked, "--by", by)
        assert "novelty" in said.out and f"{csv['novelty'][0]:.2f}" in said.out
    assert "novelty" in watkins(*asked[:3], "--max-novelty", "inf", "--by", "file").out
    windows = pd.concat(map(pd.read_parquet, Path("found/windows").iterdir()))
    assert windows["novelty"].notna().all()
