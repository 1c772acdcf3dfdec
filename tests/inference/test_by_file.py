import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from watkins_ml.core.errors import UserError
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.recordings import find_recordings


@pytest.fixture
def recordings(archive):
    return sorted(archive.rglob("*.wav"))[:5]


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF, but not really")
    return path


def test_each_file_gets_its_most_probable_species(classifier, recordings):
    table = predict_files(classifier, recordings)
    assert list(table.columns) == [
        "path", "rank", "species", "probability", "novelty", "temperature", "problem", "note",
    ]  # fmt: skip
    assert table["temperature"].tolist() == [classifier.temperature] * len(recordings)
    assert table["path"].tolist() == [str(path) for path in recordings]
    for row in table.itertuples():
        (probabilities,) = classifier.classify([Path(row.path)])
        assert row.species == classifier.classes[probabilities.argmax()]
        assert row.probability == pytest.approx(probabilities.max(), rel=1e-5)
    assert table["problem"].isna().all()


def test_top_ranks_species_from_most_to_least_probable(classifier, recordings):
    table = predict_files(classifier, recordings[:2], top=3)
    assert table["rank"].tolist() == [1, 2, 3, 1, 2, 3]
    for _, ranked in table.groupby("path"):
        assert ranked["probability"].is_monotonic_decreasing
        assert set(ranked["species"]) == set(classifier.classes)
        assert ranked["probability"].sum() == pytest.approx(1, rel=1e-5)


def test_more_ranks_than_species_gives_all_of_them(classifier, recordings):
    assert len(predict_files(classifier, recordings[:1], top=99)) == len(classifier.classes)


def test_an_unreadable_file_is_listed_with_its_reason_and_stops_nothing(classifier, recordings, broken):
    table = predict_files(classifier, [recordings[0], broken, recordings[1]])
    assert table["problem"].notna().tolist() == [False, True, False]
    assert "unreadable" in table["problem"][1]
    assert table["species"].isna().tolist() == [False, True, False]
    assert [str(rank) for rank in table["rank"]] == ["1", "<NA>", "1"]


def test_company_does_not_change_the_answers(classifier, recordings, broken):
    whole = predict_files(classifier, [*recordings, broken])
    singly = pd.concat([predict_files(classifier, [path]) for path in [*recordings, broken]], ignore_index=True)
    assert whole["species"].tolist()[:5] == singly["species"].tolist()[:5]
    assert whole["probability"].tolist()[:5] == pytest.approx(singly["probability"].tolist()[:5], rel=1e-5)


def test_a_long_recording_is_judged_by_all_of_it(classifier, recordings, tmp_path):
    """A call at both ends and noise between: the mean over windows, not the centre alone."""
    call, rate = soundfile.read(recordings[0], dtype="float32")
    call = np.tile(call, 9)[: 4 * rate]
    hum = np.random.default_rng(0).normal(0, 0.1, 4 * rate).astype("float32")
    soundfile.write(tmp_path / "long.wav", np.concatenate([call, hum, call]), rate, subtype="FLOAT")
    parts = [tmp_path / f"{number}.wav" for number in range(4)]
    starts = np.round(np.arange(4) * (12 - 63_841 / 16_000) / 3 * rate).astype(int)
    for path, start in zip(parts, starts, strict=True):
        soundfile.write(path, np.concatenate([call, hum, call])[start : start + round(rate * 63_841 / 16_000)], rate)
    (long,) = classifier.classify([tmp_path / "long.wav"])
    logits = np.log(classifier.classify(parts)).mean(axis=0)  # logits but for a constant
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(long, expected, atol=0.005)
    (middle,) = classifier.probabilities([classifier.frontend.file(tmp_path / "long.wav").unsqueeze(0)])
    assert np.abs(middle - long).max() > 0.005


def test_folders_are_searched_for_audio_of_any_kind(tmp_path, recordings):
    (tmp_path / "day" / "deep").mkdir(parents=True)
    samples, rate = soundfile.read(recordings[0])
    for name in ("b.flac", "a.WAV", "deep/c.ogg"):
        soundfile.write(tmp_path / "day" / name, samples, rate)
    (tmp_path / "day" / "notes.txt").write_text("calm sea")
    found = [str(path.relative_to(tmp_path)) for path in find_recordings([tmp_path / "day", recordings[0]])[:3]]
    assert found == ["day/a.WAV", "day/b.flac", "day/deep/c.ogg"]


def test_a_file_named_twice_is_one_file(recordings):
    path = recordings[0]
    assert find_recordings([path, path.parent / ".." / path.parent.name / path.name, path.parent])[0] == path
    assert len(find_recordings([path, path.parent])) == len(find_recordings([path.parent]))


def test_missing_files_and_folders_without_audio_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.wav: no such file"):
        find_recordings([tmp_path / "gone.wav"])
    with pytest.raises(UserError, match="no audio files there"):
        find_recordings([tmp_path])


def test_the_command_predicts_from_the_registry(watkins, finished, recordings, monkeypatch):
    monkeypatch.chdir(finished.folder)
    said = watkins("predict", "models:/watkins-baseline@champion", recordings[0])
    assert said.status == 0
    assert str(recordings[0]) in said.out
    assert "%" in said.out


def test_csv_is_for_programs(watkins, finished, recordings, broken):
    said = watkins("predict", finished.run_dir, recordings[0], broken, "--by", "file", "--format", "csv", "--top", 2)
    lines = said.out.splitlines()
    assert said.status == 0
    assert lines[0] == "path,rank,species,probability,novelty,temperature,problem,note"
    assert lines[1].startswith(f"{recordings[0]},1,") and lines[2].startswith(f"{recordings[0]},2,")
    assert lines[3].startswith(f"{broken},,,,")


def test_file_names_are_shown_as_they_are(watkins, finished, recordings, tmp_path):
    odd = tmp_path / "call [noisy] :whale: [b] x.wav"
    odd.write_bytes(recordings[0].read_bytes())
    said = watkins("predict", finished.run_dir, odd)
    assert (said.status, odd.name in said.out) == (0, True), said.err


def test_a_long_path_is_folded_not_cut(classifier, tmp_path, monkeypatch, capsys):
    from watkins_ml.cli.prediction_tables import print_predictions

    path = tmp_path / ("long" * 30) / "recording.wav"
    monkeypatch.setattr("watkins_ml.core.console.out._width", 80)
    print_predictions(predict_files(classifier, [path]), "table")
    first_column = "".join(line[1:].split("│")[0].strip() for line in capsys.readouterr().out.splitlines()[3:-1])
    assert first_column == str(path)


def test_when_nothing_can_be_read_the_command_fails_after_showing_why(watkins, finished, broken):
    said = watkins("predict", finished.run_dir, broken)
    assert said.status == 1
    assert "unreadable" in said.out
    assert said.err == "watkins: none of the files could be read; the reasons are listed above\n"


def test_the_facts_of_a_model_are_its_training_data(classifier, finished):
    facts = json.loads((finished.run_dir / "run.json").read_text())
    assert classifier.facts["data_digest"] == facts["data_digest"]


def test_silence_and_noise_are_unknown_not_a_species(watkins, finished, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(8_000), 8_000)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 40_000), 8_000)
    asked = ("predict", finished.run_dir, tmp_path / "silence.wav", tmp_path / "noise.wav", "--by", "file")
    said = watkins(*asked, "--top", 2, "--format", "csv")
    table = pd.read_csv(io.StringIO(said.out))
    assert said.status == 0 and table["species"].tolist() == ["unknown", "unknown"]
    assert table["probability"].isna().all() and table["problem"].isna().all()
    assert table["novelty"].isna().tolist() == [True, False] and table["novelty"][1] > 1
    assert watkins(*asked).out.count("unknown") == 2
    said = watkins(*asked, "--format", "csv", "--max-novelty", "inf")
    silence, noise = pd.read_csv(io.StringIO(said.out)).itertuples()
    assert silence.species == "unknown" != noise.species and noise.probability > 0


def test_prepare_and_predict_give_the_same_reasons_and_read_the_same_formats(classifier, recordings, tmp_path):
    from watkins_ml.dataset.layout import DataFolder
    from watkins_ml.dataset.scan import scan
    from watkins_ml.dataset.spectrograms import write_spectrograms

    folder = tmp_path / "rec" / "Orca"
    folder.mkdir(parents=True)
    (folder / "00000-page.mp3").write_text("<html><body>404 Not Found</body></html>")
    (folder / "00000-zip.wav").write_bytes(b"PK\x03\x04" + bytes(range(200)))
    (folder / "00000-none.wav").write_bytes(b"")
    samples, rate = soundfile.read(recordings[0])
    for suffix, kind in {"opus": "OGG", "w64": "W64", "au": "AU", "caf": "CAF"}.items():
        subtype = "OPUS" if suffix == "opus" else None
        soundfile.write(folder / f"00000-{suffix}.{suffix}", samples, rate, format=kind, subtype=subtype)
    os.mkfifo(folder / "00000-pipe.wav")
    candidates, others = scan(folder.parent, "^.{5}")
    data, settings = DataFolder(tmp_path / "out"), classifier.frontend.settings
    examined = write_spectrograms(candidates, folder.parent, data, settings, workers=1)
    reasons = {folder.parent / path: each.reason for path, each in examined.items()}
    reasons |= {folder.parent / each["path"]: each["reason"] for each in others}
    said = predict_files(classifier, find_recordings([folder])).set_index("path")["problem"]
    assert {Path(path): problem if isinstance(problem, str) else None for path, problem in said.items()} == reasons
    assert sum(reason is None for reason in reasons.values()) == 4


def test_a_folder_of_another_kind_of_audio_is_told_so(tmp_path):
    (tmp_path / "a.m4a").touch()
    with pytest.raises(UserError, match=r"no audio files there that can be read; .*a.m4a: .* convert it"):
        find_recordings([tmp_path])
