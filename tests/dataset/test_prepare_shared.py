"""One prepared folder and several processes: one prepares it at a time, and who reads it is not deceived."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.folders import OTHER_FRONTEND, start
from watkins_ml.core.errors import UserError
from watkins_ml.core.locks import only_writer, reading
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import cut_windows, load_side, open_side


def test_of_two_prepares_at_once_one_is_refused_and_the_folder_is_whole(ocean, run, tmp_path, content):
    both = [start(ocean, "--out", tmp_path / "data", "--workers", 1, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    for process, words in zip(both, said, strict=True):  # the second may also have come after the first
        assert process.returncode == 0 or ("watkins prepare (process" in words and "is writing there" in words)
    assert 0 in [process.returncode for process in both]
    run(ocean, tmp_path / "fresh")
    assert content(tmp_path / "data") == content(tmp_path / "fresh")


def test_a_folder_that_another_one_prepares_is_left_alone(ocean, run, tmp_path):
    with only_writer(tmp_path / "out", "watkins prepare"):
        with pytest.raises(UserError, match=r"watkins prepare \(process .* is writing there"):
            run(ocean)
    assert run(ocean).computed == 24


def test_what_is_being_read_is_not_changed(ocean, run, cut, tmp_path, content):
    run(ocean)
    before = content(tmp_path / "out")
    with reading(tmp_path / "out", "watkins train (runs/x)"):
        with pytest.raises(UserError, match=r"watkins train \(runs/x\) \(process .* is reading it"):
            run(ocean, frontend=OTHER_FRONTEND)
        run(ocean)  # nothing changed, so nobody is disturbed
        cut(ocean / "Orca" / "00001777.wav", 700)
        with pytest.raises(UserError, match="is reading it"):
            run(ocean)
        assert before.items() <= content(tmp_path / "out").items()
    assert run(ocean).computed == 0  # the new one has been read already
    assert content(tmp_path / "out") != before


@pytest.fixture
def begun(ocean, run, tmp_path):
    """Prepared data that were opened before somebody prepared them anew, perhaps on another machine."""
    run(ocean)
    data = read_prepared(tmp_path / "out")
    load_side(data, "val")
    return data


@pytest.mark.parametrize("read", [load_side, lambda data, side: open_side(data, side).spectrograms[0:2]])
def test_nothing_is_read_of_data_that_were_prepared_anew(begun, ocean, run, read):
    run(ocean, frontend=OTHER_FRONTEND)
    with pytest.raises(UserError, match="out: prepared anew since this command began to read it"):
        read(begun, "val")


def test_nothing_is_read_while_they_are_prepared_anew(begun):
    begun.folder.summary.unlink()
    with pytest.raises(UserError, match="prepared anew"):
        list(cut_windows(begun, open_side(begun, "test")))


def test_a_spectrogram_that_is_missing_for_that_reason_is_not_called_damaged(begun):
    begun.folder.summary.unlink()
    shutil.rmtree(begun.folder.spectrograms)
    with pytest.raises(UserError, match="prepared anew"):
        load_side(begun, "val")


def test_the_same_data_with_another_table_are_still_the_same(begun, ocean, run, tmp_path):
    table = tmp_path / "sites.csv"
    table.write_text("file,site\n" + "".join(f"{path.name},North\n" for path in ocean.rglob("*.wav")))
    run(ocean, metadata=table)
    assert len(load_side(begun, "val")) == len(begun.sides["val"])
