"""500 damaged recordings through everything that reads audio: none crashes it, none hangs it, each is accounted for."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tests.support import forked
from tests.support.mutants import mutant
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.opening import AudioError, open_audio
from watkins_ml.models.bundle import load_bundle
from watkins_ml.serving.audio_table import TableError, table_windows

pytestmark = pytest.mark.slow
MUTANTS = 500
SECONDS = 300
"""Many times what a command needs, so that only a hang takes longer."""
MEMORY = 3 << 30
"""Bytes that a command may ask for, used or not; it asks for 2.4 GiB, of which two are PyTorch's and MLflow's."""


@pytest.fixture(scope="module")
def field(tmp_path_factory) -> Path:
    """A folder with one species whose recordings are all damaged. Read only."""
    folder = tmp_path_factory.mktemp("damaged") / "field"
    (folder / "Narwhal").mkdir(parents=True)
    for number in range(MUTANTS):
        name, content = mutant(number)
        (folder / "Narwhal" / name).write_bytes(content)
    return folder


def watkins(*arguments: object) -> str:
    """What a command in a process of its own said (decoders write to the terminal too), which must have ended well."""
    command = [sys.executable, "-X", "faulthandler", "-m", "watkins_ml", *map(str, arguments)]
    with open("said.txt", "w+") as said:
        try:
            status = forked.run(
                command, stdout=said, stderr=subprocess.STDOUT, timeout=SECONDS,
                env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400"},
                limits={resource.RLIMIT_DATA: MEMORY},
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            done = sorted(path.name for path in Path().glob("found/windows/*"))
            pytest.fail(f"{' '.join(command)} hangs; the last recording judged is {done[-1:]}")
        said.seek(0)
        text = said.read()
    assert status == 0, text[-2_000:]
    for word in ("Traceback", "unexpected", "Warning:", "Note:", "mpg123", "cffi"):
        wrong = [line for line in text.splitlines() if word in line]
        assert not wrong, wrong
    return text


NOTE = re.compile("(was|were not) read$|turned round before they were mixed$")
"""What is told of a recording that can be used."""


def reasons(lines: Iterable[str]) -> dict[int, str]:
    """What is wrong with a recording by its number, from lines `PATH: REASON`."""
    matches = [re.match(r".*/(\d{5})-[^/]*?\.\w+: (.+)", line) for line in lines]
    return {int(match[1]): match[2] for match in matches if match and not NOTE.search(match[2])}


def numbers(paths: Iterable[str]) -> set[int]:
    return {int(Path(path).name[:5]) for path in paths}


def lasts(path: Path) -> float:
    """Seconds that can be decoded, the most over two ways of reading, since damage costs the block it is in."""
    most = 0
    for block in (1 << 18, 256):
        total = 0
        try:
            with open_audio(path) as audio:
                while samples := len(audio.read(block)):
                    total += samples
                    most = max(most, total / audio.samplerate)
                return most
        except (soundfile.LibsndfileError, AudioError):
            continue
    return most


def test_who_calls_when(field, finished):
    everything = ("--min-confidence", 0, "--max-novelty", "inf")
    said = watkins("predict", finished.run_dir, field, "--out", "found", *everything, "--format", "csv")
    found, problems = pd.read_csv("found/detections.csv"), reasons(said.splitlines())
    kept = {int(path.name[:5]): pd.read_parquet(path) for path in Path("found/windows").iterdir()}
    assert set(kept) | set(problems) == set(range(MUTANTS)) and not set(kept) & set(problems)
    assert min(len(windows) for windows in kept.values()) > 0
    assert len(kept) > 100 and len(problems) > 100 and len(numbers(found["path"]) & set(problems)) > 10, "a mixture"
    assert found["probability"].between(0, 1).all() and (found["start_s"] >= 0).all()
    for number, windows in kept.items():
        said_of = windows.filter(like="p_").to_numpy()
        heard = ~np.isnan(said_of).any(axis=1)
        assert ((said_of[heard] >= 0) & (said_of[heard] <= 1)).all(), number
        np.testing.assert_allclose(said_of[heard].sum(axis=1), 1, atol=1e-3)
        assert np.isnan(said_of[~heard]).all(), number
    ends = found["end_s"].groupby([int(Path(path).name[:5]) for path in found["path"]]).max().to_dict()
    ends |= {number: windows["end_s"].max() for number, windows in kept.items()}
    last = {number: lasts(path) for path in field.rglob("*-*") if (number := int(path.name[:5])) in ends}
    assert not {number: (end, last[number]) for number, end in ends.items() if end > last[number] + 1e-5}


def test_one_answer_a_file(field, finished):
    said = watkins("predict", finished.run_dir, field, "--by", "file", "--max-novelty", "inf", "--format", "csv")
    rows = [line for line in said.splitlines() if re.match(r"path,|.*/\d{5}-[^:]*,", line)]
    Path("answers.csv").write_text("\n".join(rows))
    answers = pd.read_csv("answers.csv")
    assert len(answers) == MUTANTS and numbers(answers["path"]) == set(range(MUTANTS))
    answered = answers["problem"].isna()
    assert 100 < answered.sum() < MUTANTS - 100
    silent = answers["species"] == "unknown"
    assert answers["probability"][answered & ~silent].between(0, 1).all()
    assert answers["probability"][silent].isna().all()
    assert answers["species"][~answered].isna().all()


def test_preparing_an_archive(field, archive):
    both = Path("archive")
    shutil.copytree(archive, both)
    shutil.copytree(field, both, dirs_exist_ok=True)
    watkins("prepare", both, "--out", "data", "--workers", 1)
    used, rejected = (pd.read_csv(f"data/annotations/{name}.csv") for name in ("audio_annotations", "rejected"))
    used, rejected = used[used["species"] == "Narwhal"], rejected[rejected["species"] == "Narwhal"]
    assert numbers(used["path"]) ^ numbers(rejected["path"]) == set(range(MUTANTS))
    assert len(used) > 100 and rejected["reason"].str.len().between(5, 200).all()
    for path in Path("data/spectrograms").rglob("Narwhal/*.pt"):
        assert torch.isfinite(torch.load(path)).all(), path


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_as_bytes_to_the_registered_model(field, finished):
    frontend: Frontend = load_bundle(finished.run_dir / "model").frontend
    answered = 0
    for path in sorted(field.rglob("*-*")):
        try:
            [windows] = table_windows(frontend, pd.DataFrame([{"audio": path.read_bytes()}]))
        except TableError as refusal:
            assert re.fullmatch(r"row 0[: ].{10,250}", str(refusal)), path
        else:
            assert torch.isfinite(windows).all(), path
            answered += 1
    assert answered > 100
