"""Real recordings with the tables that people made of them."""

from __future__ import annotations

import pandas as pd
import pytest

from watkins_ml.annotations.collect import AnnotationOptions, collect
from watkins_ml.annotations.recordings import find_long_recordings

pytestmark = pytest.mark.real_data


def test_every_syllable_of_the_finch_is_a_call_of_its_recording(shared_folder):
    root, recordings, others = find_long_recordings(shared_folder / "data" / "bird0")
    found = collect(root / "annotations.csv", recordings, AnnotationOptions(reviewed="all"))
    assert (len(found.described), others, len(found.rejected), found.calls["species"].nunique()) == (48, [], 0, 9)
    theirs = pd.read_csv(root / "annotations.csv").sort_values(["file", "start_s", "end_s", "species"])
    columns = ["recording", "start_s", "end_s", "species"]
    assert (found.calls[columns].to_numpy() == theirs.to_numpy()).all()


def test_hydrophone_tables_of_calls_and_of_noise_with_doubtful_marks(shared_folder, tmp_path):
    tables = shared_folder / "data" / "samana" / "tables"
    index, labels = tmp_path / "index.csv", tmp_path / "labels.csv"
    kinds = {path.name: "noise" if "allnoise" in path.name else "call" for path in tables.iterdir()}
    index.write_text("table,label\n" + "".join(f"{name},{kind}\n" for name, kind in kinds.items()))
    labels.write_text("label,species\ncall,Humpback\nc,Humpback\nnoise,background\nn,background\nu,?\n")
    _, recordings, _ = find_long_recordings(shared_folder / "data" / "samana" / "audio")
    found = collect(
        tables, recordings, AnnotationOptions(label_column="Prediction/Comments", labels=labels, table_index=index)
    )
    assert len(found.described) == found.tables == 7
    # 601 selections, each once for the waveform and once for the spectrogram; a mark per view
    assert len(found.calls) + len(found.uncertain) + len(found.reviewed) + len(found.rejected) == 601
    assert (len(found.uncertain), len(found.calls)) == (9, 429)
    assert found.calls.groupby("recording").size().max() == 155  # wholly call: 600 s in windows of 3.88 s
