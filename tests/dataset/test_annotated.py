"""`watkins prepare --annotations`: windows of long recordings as the rows of a data folder."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tests.support.folders import SIDES, spectrograms, stamps, table
from watkins_ml.annotations.collect import AnnotationOptions, Annotations
from watkins_ml.annotations.labelling import Thresholds
from watkins_ml.annotations.recordings import LongRecording
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.dataset import annotated
from watkins_ml.dataset.annotated import AnnotatedOptions, prepare_annotated
from watkins_ml.dataset.export import export_spectrograms
from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.own_input import with_own_input
from watkins_ml.dataset.prepare import Prepared, PrepareOptions
from watkins_ml.dataset.rows import Rows
from watkins_ml.dataset.windowing import WindowRule, windows_of

RATE = 2_000
FRONTEND = FrontendSettings.at(RATE, 1.01, n_mels=16)
"""Windows of one second and a sample."""
SEA = {"20240101_a": 0, "20240101_b": 1, "20240102_a": 2, "20240103_a": 3, "20240104_a": 4, "20240105_a": 5}


def write_sea(folder: Path, seconds: int = 20) -> Path:
    """Six recordings, each with Orca at 2 to 4 s, Walrus at 10.5 to 12.5 s, and both at 15 s; the tables as one CSV."""
    rows = []
    for name, seed in SEA.items():
        samples = np.random.default_rng(seed).integers(-9_000, 9_000, seconds * RATE, dtype="int16")
        path = folder / "audio" / name[:8] / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE)
        rows += [(f"{name}.wav", 2, 4, "Orca"), (f"{name}.wav", 10.5, 12.5, "Walrus")]
        rows += [(f"{name}.wav", 15, 16, "Orca"), (f"{name}.wav", 15.2, 16, "Walrus")]
    pd.DataFrame(rows, columns=["file", "start_s", "end_s", "species"]).to_csv(folder / "calls.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def sea(tmp_path_factory) -> Path:
    return write_sea(tmp_path_factory.mktemp("sea"))


@pytest.fixture
def prepare_sea(sea, tmp_path) -> Callable[..., Prepared]:
    """A function that prepares the sea (or another folder like it) into `out`, with some options changed."""

    def prepare_sea(folder: Path = sea, out: str = "out", windows: dict | None = None, **changed) -> Prepared:
        tables = {name: changed.pop(name) for name in ("reviewed", "labels", "label") if name in changed}
        annotated = AnnotatedOptions(
            AnnotationOptions(**{"reviewed": "all"} | tables),
            WindowRule(**{"thresholds": Thresholds(0.45)} | (windows or {})),
            changed.pop("group_by", "recording"),
        )
        options = PrepareOptions(**{"workers": 1, "min_clips": 3, "frontend": FRONTEND} | changed)
        return prepare_annotated(folder / "audio", folder / "calls.csv", tmp_path / out, options, annotated)

    return prepare_sea


def rows_of(out: Path) -> pd.DataFrame:
    return table(out, "audio_annotations")


# ---------------------------------------------------------------- rows


def test_windows_are_labelled_by_the_calls_in_them(prepare_sea, tmp_path):
    prepare_sea(windows={"background_ratio": 100.0})
    rows = rows_of(tmp_path / "out")
    one = rows[rows["recording"] == "20240102/20240102_a.wav"].set_index("start_s")["species"]
    assert one[one == "Orca"].index.tolist() == [1.5, 2.0, 2.5, 3.0, 3.5]
    assert one[one == "Walrus"].index.tolist() == [10.0, 10.5, 11.0, 11.5, 12.0]
    both = {14.5, 15.0, 15.5}
    labelled = set(one[one != "background"].index) | both
    last = 20 - FRONTEND.seconds  # ends with the recording
    assert set(one[one == "background"].index) == set(np.arange(0, 19, 0.5)) - labelled | {last}
    rejected = table(tmp_path / "out", "rejected")
    assert rejected.loc[:2, ["path", "reason"]].to_numpy().tolist() == [
        ["20240101/20240101_a.wav#t=14.500,15.501", "partial call: Walrus 38%"],
        ["20240101/20240101_a.wav#t=15.000,16.000", "several species: Orca, Walrus"],
        ["20240101/20240101_a.wav#t=15.500,16.500", "several species: Orca, Walrus"],
    ]


def test_a_row_says_recording_and_seconds_and_its_spectrogram_is_of_them(prepare_sea, sea, tmp_path):
    prepare_sea()
    data = read_prepared(tmp_path / "out")
    row = data.sides["train"][data.sides["train"]["species"] == "Orca"].iloc[0]
    begin, end = row["start_s"], row["end_s"]
    assert row["path"] == f"{row['recording']}#t={begin:.3f},{end:.3f}"
    assert row["cut_id"] == f"{Path(row['recording']).stem}_{begin:.3f}-{end:.3f}s"
    samples, _ = soundfile.read(sea / "audio" / row["recording"], dtype="float32")
    part = samples[round(begin * RATE) : round(end * RATE)]
    found = torch.load(tmp_path / "out" / row["spectrogram"], weights_only=True)
    assert torch.equal(found, Frontend(FRONTEND)(part, RATE))
    assert data.recording(row["path"]) == (sea / "audio" / row["recording"]).resolve()
    assert np.array_equal(Rows(data).read(row["path"], Frontend(FRONTEND)).waveform, part)
    assert Rows(data).sha256(row["path"]) == rows_of(tmp_path / "out").set_index("path")["sha256"][row["path"]]


@pytest.mark.parametrize(("group_by", "group"), [("recording", "recording"), ("day", "day"), (r"_(\w)$", "letter")])
def test_nothing_of_a_group_stands_on_two_sides(prepare_sea, tmp_path, group_by, group):
    if group == "letter":
        with pytest.raises(UserError, match=r"windows of 2 groups cannot be divided into train, val and test"):
            prepare_sea(group_by=group_by)
        assert not list((tmp_path / "out").rglob("*.pt"))  # nothing was computed for that
        return
    prepare_sea(group_by=group_by)
    data = read_prepared(tmp_path / "out")
    key = {"recording": lambda path: path, "day": lambda path: path[:8]}[group]
    groups = [set(data.sides[side]["recording"].map(key)) for side in SIDES]
    assert all(groups)
    assert sum(map(len, groups)) == len(set().union(*groups))
    folds = make_folds(data, FoldRule(count=3)).table
    assert (folds.groupby(folds["recording"].map(key))["fold"].nunique() == 1).all()


def test_groups_may_come_from_a_column_of_the_metadata(prepare_sea, tmp_path):
    sites = "file,site\n" + "".join(f"{name}.wav,{'NS'[number % 2]}{number // 3}\n" for name, number in SEA.items())
    (tmp_path / "sites.csv").write_text(sites)
    summary = prepare_sea(group_by="site", metadata=tmp_path / "sites.csv").summary
    assert summary["counts"]["tapes"] == 4
    assert set(rows_of(tmp_path / "out")["tape"]) == {"N0", "N1", "S0", "S1"}
    with pytest.raises(UsageError, match=r"--group-by site: needs a table with that column"):
        prepare_sea(group_by="site")
    with pytest.raises(UsageError, match=r"--group-by \^x: finds no group in the name '20240101_a'"):
        prepare_sea(group_by="^x")


def test_windows_without_number_are_refused_before_anything_is_written(prepare_sea, tmp_path, monkeypatch):
    monkeypatch.setattr(annotated, "MOST_ROWS", 10)
    with pytest.raises(UsageError, match=r"--overlap 0\.9: would be [\d,]+ windows, more than 10; take longer windows"):
        prepare_sea(windows={"overlap": 0.9})
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_silence_is_background_only_where_somebody_listened(prepare_sea, tmp_path):
    summary = prepare_sea(reviewed="spans").summary
    assert summary["background_class"] is None
    assert set(rows_of(tmp_path / "out")["species"]) == {"Orca", "Walrus"}
    assert summary["annotations"]["unreviewed_windows"] == 6 * 26
    spans = tmp_path / "listened.csv"
    spans.write_text("file,start_s,end_s\n" + "".join(f"{name}.wav,5,8\n" for name in SEA))
    summary = prepare_sea(reviewed=str(spans), windows={"background_ratio": 9.0}).summary
    rows = rows_of(tmp_path / "out")
    quiet = rows.loc[rows["species"] == "background", "start_s"]
    assert (quiet.min(), quiet.max(), len(quiet)) == (5.0, 7.0, 6 * 5)
    assert summary["background_class"] == "background"


def test_background_is_at_most_as_much_as_was_asked_for(prepare_sea, tmp_path):
    prepare_sea(windows={"background_ratio": 0.5})
    counts = rows_of(tmp_path / "out")["species"].value_counts()
    assert counts["background"] == (counts["Orca"] + counts["Walrus"]) // 2


def test_each_channel_has_the_calls_that_are_annotated_in_it(tmp_path, prepare_sea):
    rows = []
    for number in range(4):
        samples = np.random.default_rng(number).integers(-9_000, 9_000, (20 * RATE, 2), dtype="int16")
        (tmp_path / "sea" / "audio").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "sea" / "audio" / f"r{number}.wav", samples, RATE)
        rows += [f"r{number}.wav,2,4,Orca,1", f"r{number}.wav,2,4,Walrus,2", f"r{number}.wav,8,9,Walrus,"]
    (tmp_path / "sea" / "calls.csv").write_text("file,start_s,end_s,species,channel\n" + "\n".join(rows))
    prepare_sea(tmp_path / "sea", windows={"each_channel": True})
    found = rows_of(tmp_path / "out")
    at = found[(found["recording"] == "r0.wav") & (found["start_s"].isin([2.5, 8.0]))].set_index("path")["species"]
    assert at.to_dict() == {
        "r0.wav#t=2.500,3.501&channel=1": "Orca",
        "r0.wav#t=2.500,3.501&channel=2": "Walrus",
        "r0.wav#t=8.000,9.001&channel=1": "Walrus",
        "r0.wav#t=8.000,9.001&channel=2": "Walrus",
    }
    prepare_sea(tmp_path / "sea")  # mixed, both are heard at once
    assert "several species: Orca, Walrus" in set(table(tmp_path / "out", "rejected")["reason"])


def test_another_frontend_hears_the_windows_and_notices_a_changed_recording(prepare_sea, tmp_path):
    folder = write_sea(tmp_path / "sea")
    prepare_sea(folder)
    data, settings = read_prepared(tmp_path / "out"), FrontendSettings.at(RATE, 0.31, n_mels=8)
    own = with_own_input(data, settings, lambda: Frontend(settings))
    row = own.sides["val"].iloc[0]
    assert row["windows"] == 4  # of 0.3 s in one of 1 s
    whole = Rows(data).read(row["path"], Frontend(settings), 16)
    found = torch.load(tmp_path / "out" / row["spectrogram"], weights_only=True)
    assert torch.equal(found, Frontend(settings)(whole.waveform, RATE))
    assert own.sides["val"]["spectrogram"].nunique() == len(own.sides["val"])  # each window has its own
    shutil.rmtree(data.folder.frontends)
    path = data.recording(row["path"])
    soundfile.write(path, np.random.default_rng(9).integers(-9_000, 9_000, 20 * RATE, dtype="int16"), RATE)
    with pytest.raises(UserError, match="has changed since it was prepared"):
        with_own_input(data, settings, lambda: Frontend(settings))


def test_an_export_has_a_folder_for_each_species(prepare_sea, tmp_path):
    prepare_sea()
    data = read_prepared(tmp_path / "out")
    assert export_spectrograms(data, tmp_path / "sides") == len(rows_of(tmp_path / "out"))
    assert {place.name for place in (tmp_path / "sides" / "train").iterdir()} == {"Orca", "Walrus", "background"}


@pytest.mark.parametrize("samples", [1, 1_500, 2_001, 2_002, 3_002, 10_001, 10_002, 40_000])
def test_windows_of_any_recording_have_different_names(samples):
    nothing = pd.DataFrame({"recording": [], "start_s": [], "end_s": [], "channel": [], "species": []})
    all_of_it = pd.DataFrame({"recording": ["a.wav"], "start_s": [0.0], "end_s": [samples / RATE], "channel": [0]})
    annotations = Annotations(nothing, nothing, all_of_it, nothing, frozenset(["a.wav"]), 1, "")
    found = windows_of(LongRecording("a.wav", "a", samples, RATE, 1, 0, 0), annotations, FRONTEND.seconds, WindowRule())
    assert len(found.rows) > 0
    assert not found.rows["path"].duplicated().any()


# ---------------------------------------------------------------- again


def test_what_is_there_is_not_read_again(prepare_sea, tmp_path):
    first = prepare_sea()
    before = stamps(tmp_path / "out")
    again = prepare_sea()
    assert (first.computed, again.computed) == (len(rows_of(tmp_path / "out")), 0)
    assert again.summary == first.summary
    assert stamps(tmp_path / "out") == before


def test_a_changed_table_changes_labels_and_digest_but_no_spectrogram_that_stays(prepare_sea, sea, tmp_path):
    folder = write_sea(tmp_path / "sea")
    first = prepare_sea(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.pt")}
    calls = (folder / "calls.csv").read_text()
    (folder / "calls.csv").write_text(calls.replace("20240102_a.wav,2.0,4.0,Orca", "20240102_a.wav,2.0,4.0,Walrus"))
    second = prepare_sea(folder)
    assert second.computed == 0
    assert second.summary["data_digest"] != first.summary["data_digest"]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.pt")}
    assert before == after
    (folder / "calls.csv").write_text(calls + "20240102_a.wav,18,18.5,Orca\n")
    assert 0 < prepare_sea(folder).computed <= 6


def test_a_killed_preparation_goes_on(prepare_sea, tmp_path):
    prepare_sea()
    complete = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.pt")}
    journal = tmp_path / "out" / "annotations" / ".windows.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]) + lines[-2][:40])  # torn within a line
    (tmp_path / "out" / "dataset.json").unlink()
    assert 0 < prepare_sea().computed < len(complete)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.pt")} == complete


def test_a_changed_recording_is_read_again(prepare_sea, tmp_path):
    folder = write_sea(tmp_path / "sea")
    digest = prepare_sea(folder).summary["data_digest"]
    path = folder / "audio" / "20240102" / "20240102_a.wav"
    soundfile.write(path, np.random.default_rng(9).integers(-9_000, 9_000, 20 * RATE, dtype="int16"), RATE)
    again = prepare_sea(folder)
    of_it = (rows_of(tmp_path / "out")["recording"] == "20240102/20240102_a.wav").sum()
    assert again.computed == of_it
    assert again.summary["data_digest"] != digest


@pytest.mark.slow
def test_two_workers_make_the_same_files_as_one(prepare_sea, tmp_path, monkeypatch):
    monkeypatch.setattr("watkins_ml.dataset.window_files.WORTH_A_WORKER", 10)
    alone, together = prepare_sea(out="one"), prepare_sea(out="two", workers=2)
    assert alone.summary["data_digest"] == together.summary["data_digest"]
    one, two = (spectrograms(tmp_path / out) for out in ("one", "two"))
    assert {name: path.read_bytes() for name, path in one.items()} == {n: path.read_bytes() for n, path in two.items()}


# ---------------------------------------------------------------- what is refused or left out


def test_recordings_that_cannot_be_used_are_listed(prepare_sea, tmp_path):
    folder = write_sea(tmp_path / "sea")
    audio = folder / "audio"
    (audio / "copy.wav").write_bytes((audio / "20240105" / "20240105_a.wav").read_bytes())
    soundfile.write(audio / "untold.wav", np.ones(4_000), RATE)
    (audio / "broken.wav").write_bytes(b"RIFF")
    (audio / "empty.wav").write_bytes(b"")
    with open(folder / "calls.csv", "a") as file:
        file.write("copy.wav,2,4,Orca\nbroken.wav,2,4,Orca\n20240101_a.wav,30,31,Orca\n")
    prepare_sea(folder)
    reasons = table(tmp_path / "out", "rejected").set_index("path")["reason"]
    assert reasons["untold.wav"] == "no annotations: no table is about it"
    assert reasons["broken.wav"].startswith("unreadable") and reasons["empty.wav"]
    assert reasons["calls.csv row 26"] == "unknown recording: broken.wav"
    assert reasons["calls.csv row 27"] == "beyond the end: the recording lasts 20.00 s"
    assert reasons["copy.wav"] == "duplicate of 20240105/20240105_a.wav"


def test_silent_windows_and_small_classes_are_listed(prepare_sea, tmp_path):
    folder = write_sea(tmp_path / "sea")
    path = folder / "audio" / "20240102" / "20240102_a.wav"
    samples, _ = soundfile.read(path, dtype="int16")
    samples[4 * RATE : 8 * RATE] = 0
    soundfile.write(path, samples, RATE)
    with open(folder / "calls.csv", "a") as file:
        file.write("20240103_a.wav,18,18.5,Seal\n")
    summary = prepare_sea(folder, min_clips=4, windows={"background_ratio": 99.0}).summary
    assert summary["rejected_for"]["silent"] == 6
    assert summary["species_left_out"] == {"Seal": 2}
    assert "Seal" not in json.loads((tmp_path / "out" / "annotations" / "classes.json").read_text()).values()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"windows": {"overlap": 0.999}}, "--overlap 0.999: windows would begin less than 0.002 s apart"),
        ({"reviewed": "sometimes"}, "--reviewed sometimes: neither all, spans or none"),
        ({"group_by": "("}, r"--group-by '\(' is not a regular expression"),
        ({"min_clips": 1000}, "no usable recording is left"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(prepare_sea, options, told):
    with pytest.raises(UserError, match=told) as error:
        prepare_sea(**options)
    assert "\n" not in str(error.value)


def test_a_window_cannot_lead_out_of_the_recordings(prepare_sea, tmp_path):
    prepare_sea()
    for name in ("audio_annotations", *SIDES):
        file = tmp_path / "out" / "annotations" / f"{name}.csv"
        file.write_text(file.read_text().replace("20240102/20240102_a.wav#t", "20240102/..#t"))
    with pytest.raises(UserError, match="leads out of the folder; nothing outside is read"):
        read_prepared(tmp_path / "out")


# ---------------------------------------------------------------- a day of recordings


def day_of(folder: Path, hours: float, calls: int) -> Path:
    """Eight recordings that last so long together, with calls of two species, written second by second."""
    rng, rows, seconds = np.random.default_rng(0), [], round(hours * 450)
    (folder / "audio").mkdir(parents=True)
    for number in range(8):
        name = f"r{number}.wav"
        with soundfile.SoundFile(folder / "audio" / name, "w", RATE, 1, "PCM_16") as file:
            for _ in range(seconds):
                file.write(rng.integers(-9_000, 9_000, RATE, dtype="int16"))
        begins = rng.uniform(0, seconds - 1, calls // 8)
        rows += [f"{name},{begin:.3f},{begin + 0.5:.3f},{'OW'[n % 2]}" for n, begin in enumerate(begins)]
    (folder / "calls.csv").write_text("file,start_s,end_s,species\n" + "\n".join(rows))
    return folder


def peak_of(work: Callable[[], Prepared]) -> tuple[Prepared, int]:
    """What `work` did, and the most bytes that it had in Python objects and arrays at once."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_recording(prepare_sea, tmp_path):
    short, long = day_of(tmp_path / "short", 0.1, 80), day_of(tmp_path / "long", 0.5, 80)
    windows = {"overlap": 0.0}
    peak_of(lambda: prepare_sea(short, "first", windows))  # imports
    _, least = peak_of(lambda: prepare_sea(short, "short", windows))
    done, peak = peak_of(lambda: prepare_sea(long, "long", windows))
    assert done.summary["annotations"]["calls"] == 80
    one_recording = 225 * RATE * 4  # bytes, as float32
    assert peak < least + one_recording / 2


@pytest.mark.system
@pytest.mark.slow
def test_a_day_with_ten_thousand_calls_is_prepared_in_bounded_memory(prepare_sea, tmp_path):
    day = day_of(tmp_path / "day", 24, 10_000)
    done, peak = peak_of(lambda: prepare_sea(day, windows={"overlap": 0.0, "background_ratio": 0.1}))
    assert done.summary["annotations"]["calls"] > 9_900
    assert peak < 3 * 3600 * RATE * 4  # one of the eight recordings as float32: 86 MB
