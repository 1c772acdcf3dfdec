"""`watkins predict` over time on real files: long and short, broken, silent, interrupted."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.support import forked
from watkins_ml.inference.cache import ScoreCache
from watkins_ml.inference.detections import DetectionOptions, detect
from watkins_ml.inference.scores import score_recordings
from watkins_ml.inference.windows import WindowOptions

RATE = 8_000


@pytest.fixture
def cuts(archive) -> list[Path]:
    return sorted(archive.rglob("*.wav"))


@pytest.fixture
def hour(tmp_path) -> Path:
    """One minute (an hour costs the suite too much) of noise with a call of one species from 20 s to 40 s."""
    samples = np.random.default_rng(0).normal(0, 0.02, 60 * RATE).astype("float32")
    samples[20 * RATE : 40 * RATE] += 0.3 * np.sin(2 * np.pi * 3_000 * np.arange(20 * RATE) / RATE)
    path = tmp_path / "day" / "hour.wav"
    path.parent.mkdir()
    soundfile.write(path, samples, RATE)
    return path


def test_a_short_cut_is_judged_as_in_training_and_evaluation(classifier, cuts):
    files = cuts[:35]
    scores = list(score_recordings(classifier, files, WindowOptions()))
    assert [recording.path for recording in scores] == files
    for recording, expected in zip(scores, classifier.classify(files), strict=True):
        assert len(recording.spans) == 1
        np.testing.assert_allclose(recording.probabilities[0], expected, rtol=1e-5)


def test_windows_of_a_long_recording_are_what_they_would_be_as_files(classifier, hour, tmp_path):
    [recording] = score_recordings(classifier, [hour], WindowOptions(overlap=0.5))
    samples, rate = soundfile.read(hour, dtype="float32")
    assert recording.spans[-1][2] == pytest.approx(60)
    for number in (0, 17, len(recording.spans) - 1):
        _, start, end = recording.spans[number]
        part = tmp_path / "part.wav"
        soundfile.write(part, samples[round(start * rate) : round(end * rate)], rate)
        np.testing.assert_allclose(
            recording.probabilities[number], classifier.classify([part])[0], rtol=1e-4, atol=1e-6
        )


def test_progress_tells_how_far_it_is(classifier, hour, cuts):
    done, files = [], [hour, *cuts[:2]]
    list(score_recordings(classifier, files, WindowOptions(), lambda path, end_s: done.append((path, end_s))))
    assert [end for path, end in done if path == hour] == sorted(end for path, end in done if path == hour)
    assert done[-1][0] == cuts[1]


def test_the_table_tells_who_calls_when_and_what_is_unknown(watkins, finished, classifier, hour, tmp_path):
    soundfile.write(tmp_path / "day" / "nothing.wav", np.zeros(20 * RATE), RATE)
    (tmp_path / "day" / "broken.wav").write_bytes(b"RIFF, but not really")
    all_known = ("predict", finished.run_dir, tmp_path / "day", "--max-novelty", "inf")
    said = watkins(*all_known, "--min-confidence", 0, "--format", "csv")
    assert said.status == 0 and "broken.wav: unreadable" in said.err
    [recording] = score_recordings(classifier, [hour], WindowOptions())
    options = DetectionOptions(min_confidence=0, max_novelty=math.inf)
    expected = detect(recording, classifier.classes, options, classifier.temperature).rows
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(said.out)), expected, rtol=1e-4, check_dtype=False)
    said = watkins(*all_known, "--min-confidence", 0)
    assert said.out.count("unknown: silent") == 1 and "unreadable" in said.out
    assert expected["species"][0] in said.out and "0:00:00.0" in said.out and "0:01:00.0" in said.out
    said = watkins(*all_known, "--min-confidence", 1)
    assert said.out.count("nothing above 100%") == said.out.count("unknown: silent") == 1
    assert "unknown: nothing" not in said.out, "by file it has an answer"


def test_noise_is_unknown_until_one_asks_for_the_nearest_species(watkins, finished, tmp_path):
    noise = np.random.default_rng(1).normal(0, 0.1, 20 * RATE)
    soundfile.write(tmp_path / "noise.wav", noise, RATE)
    asked = ("predict", finished.run_dir, tmp_path / "noise.wav", "--min-confidence", 0)
    said = watkins(*asked)
    assert said.status == 0 and "unknown: unlike what the model was trained on" in said.out
    said = watkins(*asked, "--out", "found")
    assert said.status == 0 and "1 file; 1 unknown: unlike what the model was trained on" in said.out
    [kept] = Path("found/windows").iterdir()
    when = kept.stat().st_mtime_ns
    assert pd.read_csv("found/detections.csv").empty
    assert watkins(*asked, "--out", "found", "--max-novelty", "inf").status == 0
    assert len(pd.read_csv("found/detections.csv")) and kept.stat().st_mtime_ns == when
    assert (pd.read_parquet(kept)["novelty"] > 1).all()


def test_bad_wishes_are_refused_in_a_sentence(watkins, finished, hour, tmp_path):
    for wish, sentence in {
        ("--species", "Rissos Dolphin"): "unknown to the model; the nearest that it knows is Risso'sDolphin",
        ("--format", "raven"): "--format raven: is for files; the terminal shows table or csv",
        ("--by", "hour"): "'--by': 'hour' is not one of 'detection', 'window', 'peak', 'file'",
        ("--overlap", "nan"): "Input should be less than or equal to 0.95",
        ("--format", "csv", "--format", "table"): "the terminal takes one format; several need --out FOLDER",
        ("--channels", "left"): "'--channels': 'left' is not one of 'mix', 'each'",
        ("--by", "file", "--out", "found"): "leave out --out",
        ("--by", "file", "--min-confidence", "0.9"): "leave out --min-confidence",
    }.items():
        said = watkins("predict", finished.run_dir, hour, *wish)
        assert said.status == 2 and sentence in said.err
    said = watkins("predict", finished.run_dir, hour, "--out", "found", "--species", "Walrus")
    assert said.status == 2 and "--species Walrus" in said.err
    assert not (tmp_path / "found").exists()


def test_a_folder_of_scores_serves_every_format_and_threshold_without_scoring_again(watkins, finished, hour, tmp_path):
    all_known = ("--max-novelty", "inf")
    begun = ("predict", finished.run_dir, hour.parent, "--out", "found", *all_known)
    assert watkins(*begun, "--format", "raven", "--format", "audacity").status == 0
    [kept] = (tmp_path / "found" / "windows").iterdir()
    when = kept.stat().st_mtime_ns
    said = watkins(*begun, "--min-confidence", 0.4, "--by", "window", "--format", "csv")
    assert said.status == 0 and kept.stat().st_mtime_ns == when
    found = pd.read_csv(tmp_path / "found" / "detections.csv")
    assert len(found) and (found["probability"] >= 0.4).all() and (found["end_s"] - found["start_s"] < 4.1).all()
    [selections] = (tmp_path / "found" / "raven").iterdir()
    assert "hour-" in selections.name and len(selections.read_text().splitlines()) > 1
    sure = ("--min-confidence", 0.4, "--by", "window", "--format", "csv")
    whole = watkins("predict", finished.run_dir, hour, *all_known, *sure)
    alone = pd.read_csv(io.StringIO(whole.out))
    pd.testing.assert_frame_equal(alone, found, rtol=1e-4)


def test_a_folder_of_another_model_or_other_windows_is_not_mixed(watkins, finished, hour):
    begun = ("predict", finished.run_dir, hour, "--out", "found")
    assert watkins(*begun).status == 0
    said = watkins(*begun, "--overlap", 0.25)
    assert said.status == 2 and "found was written with overlap 0.5, now 0.25; give another --out" in said.err
    Path("found/predict.json").write_text("[1")
    said = watkins(*begun)
    assert said.status == 1 and said.err.startswith("watkins: found/predict.json: damaged")
    Path("plain").write_text("")
    said = watkins("predict", finished.run_dir, hour, "--out", "plain")
    assert said.status == 1 and said.err.startswith("watkins: cannot write to plain")


def test_changed_and_damaged_scores_are_made_again(classifier, hour, tmp_path):
    cache = ScoreCache(tmp_path / "found", classifier, "model", WindowOptions())
    [recording] = score_recordings(classifier, [hour], WindowOptions())
    cache.write(recording)
    again = cache.read(hour)
    for name in ("spans", "novelty", "probabilities"):
        np.testing.assert_array_equal(getattr(again, name), getattr(recording, name))
    [file] = (tmp_path / "found" / "windows").iterdir()
    sound = file.read_bytes()
    for damaged in (sound[:-20], sound[:4] + bytes(900) + sound[904:], b""):
        file.write_bytes(damaged)
        assert cache.read(hour) is None
    file.write_bytes(sound)
    assert cache.read(hour) is not None
    os.utime(hour, ns=(1, 1))
    assert cache.read(hour) is None


def test_a_recorder_that_still_writes_is_scored_again_the_next_time(classifier, hour, tmp_path):
    cache = ScoreCache(tmp_path / "found", classifier, "model", WindowOptions())
    [recording] = score_recordings(classifier, [hour], WindowOptions())
    with open(hour, "ab") as file:  # after it was read, before its scores were stored
        file.write(bytes(100))
    cache.write(recording)
    assert cache.read(hour) is None


def test_what_could_not_be_read_stops_nothing_and_is_tried_again(watkins, finished, hour, tmp_path):
    broken = hour.with_name("broken.wav")
    broken.symlink_to(tmp_path / "gone.wav")
    begun = ("predict", finished.run_dir, hour.parent, "--out", "found", "--min-confidence", 0, "--max-novelty", "inf")
    said = watkins(*begun)
    assert said.status == 0 and "broken.wav: unreadable: No such file or directory" in said.out
    (tmp_path / "gone.wav").write_bytes(hour.read_bytes())
    said = watkins(*begun)
    assert said.status == 0 and "unreadable" not in said.out
    assert pd.read_csv("found/detections.csv")["path"].nunique() == 2


def test_names_from_other_systems_and_lengths_go_through(watkins, finished, hour):
    odd = [
        os.fsencode(hour.parent) + b"/" + name for name in (b"for\xeat.wav", b"x" * 230 + b".wav", b"a\nb [red].wav")
    ]
    for name in odd:
        with open(name, "wb") as file:
            file.write(hour.read_bytes())
    hour.unlink()
    for more in ((), ("--out", "found", "--format", "raven", "--format", "csv")):
        said = watkins("predict", finished.run_dir, hour.parent, "--min-confidence", 0, "--max-novelty", "inf", *more)
        assert said.status == 0, said.err
    paths = [Path(path).name for path in pd.read_csv("found/detections.csv")["path"].unique()]
    assert "for\\xeat.wav" in paths, paths
    assert len(list(Path("found/raven").iterdir())) == 3


def test_ctrl_c_says_how_to_go_on(finished, hour, tmp_path):
    for number in range(30):
        (hour.parent / f"{number}.wav").write_bytes(hour.read_bytes())
    command = [sys.executable, "-m", "watkins_ml", "predict", finished.run_dir, hour.parent, "--out", "found"]
    process = forked.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    windows = tmp_path / "found" / "windows"
    while process.poll() is None and not list(windows.glob("*.parquet")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].endswith("watkins: interrupted; the same command goes on\n")
    assert process.returncode == 1


def test_a_killed_job_goes_on_and_ends_as_if_nothing_had_been(watkins, finished, hour, tmp_path):
    samples, _ = soundfile.read(hour, dtype="float32")
    for number in range(4):
        soundfile.write(hour.with_name(f"more-{number}.wav"), np.roll(samples, number * RATE), RATE)
    assert watkins("predict", finished.run_dir, hour.parent, "--out", "undisturbed").status == 0
    command = [sys.executable, "-m", "watkins_ml", "predict", finished.run_dir, hour.parent, "--out", "killed"]
    with open("said.txt", "w") as said:
        process = forked.Popen(command, stdout=said, stderr=said)
    windows = tmp_path / "killed" / "windows"
    while process.poll() is None and len(list(windows.glob("*.parquet"))) < 2:
        time.sleep(0.005)
    assert process.poll() is None, Path("said.txt").read_text()
    process.kill()
    process.wait()
    first = {path: path.stat().st_mtime_ns for path in windows.glob("*.parquet")}
    assert watkins("predict", finished.run_dir, hour.parent, "--out", "killed").status == 0
    assert first and all(path.stat().st_mtime_ns == when for path, when in first.items()), "done files are kept"
    for name in ("detections.csv",):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
