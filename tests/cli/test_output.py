"""What is printed, in real processes: other encodings, names that act, closed pipes and streams, a full disk."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support import forked

PYTHON = [sys.executable, "-m", "watkins_ml"]
ODD = (b"a\x1b[31m\x9b\nb.wav", b"for\xeat.wav", "鲸.wav".encode(), b"=1+1.wav", "\u202egpj.wav".encode(), b"-x.wav")
ENCODINGS = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "utf-8"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C"},
]


@pytest.fixture
def said_in(monkeypatch):
    """A function that runs a command in this process with a standard output of its own; status and what it got."""
    from watkins_ml.cli import main

    def run(stream: io.TextIOWrapper, *arguments: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["watkins", *map(str, arguments)])
            patch.setattr(sys, "stdout", stream)
            with pytest.raises(SystemExit) as end:
                main()
        return end.value.code or 0

    return run


@pytest.fixture(scope="module")
def odd(archive, tmp_path_factory) -> Path:
    """Real recordings with names from everywhere."""
    folder = tmp_path_factory.mktemp("odd") / "new"
    folder.mkdir()
    for name, cut in zip(ODD, sorted(archive.rglob("*.wav")), strict=False):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(cut.read_bytes())
    return folder


def assert_harmless(output: bytes) -> None:
    assert b"\x1b" not in output and b"\x9b" not in output.replace("鲸".encode(), b"") and b"\xe2\x80\xae" not in output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_loses_an_answer(said_in, finished, odd, encoding):
    content = io.BytesIO()
    asked = ("predict", finished.run_dir, odd, "--max-novelty", "inf", "--by", "file", "--format", "csv")
    assert said_in(io.TextIOWrapper(content, encoding), *asked) == 0
    table = pd.read_csv(io.StringIO(content.getvalue().decode(encoding)))
    assert len(table) == len(ODD) and table["probability"].notna().all()
    assert not table["path"].map(lambda path: path.startswith(tuple("=+-@"))).any()
    assert_harmless(content.getvalue())


def test_a_file_in_another_encoding_takes_every_answer(finished, odd):
    """A real process, as on Windows and with old locales."""
    command = [*PYTHON, "predict", str(finished.run_dir), str(odd), "--by", "file", "--format", "csv"]
    said = forked.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"})
    assert said.returncode == 0 and said.stderr == b""
    assert len(said.stdout.decode("cp1252").splitlines()) == 1 + len(ODD) and b"\\u9cb8.wav" in said.stdout


def test_every_command_that_prints_names_prints_them(said_in, finished, prepared, odd, tmp_path):
    odd_data, named = tmp_path / "data-鲸", tmp_path / "run-鲸"
    named.symlink_to(finished.run_dir)
    odd_data.symlink_to(prepared)
    cut = Path(os.fsdecode(os.fsencode(odd) + b"/" + ODD[0]))
    for asked in (
        ("--help",),
        ("predict", "--help"),
        ("predict", named, odd),
        ("predict", named, odd, "--by", "file"),
        ("predict", named, odd, "--out", "found-鲸"),
        ("report", named, "--out", "page-鲸.html"),
        ("evaluate", named, "--data", odd_data, "--out", "report-鲸"),
        ("explain", named, cut, "--out", "picture-鲸.png"),
    ):
        content = io.BytesIO()
        assert said_in(io.TextIOWrapper(content, "ascii"), *asked) == 0, asked
        assert content.getvalue()
        content.getvalue().decode("ascii")
        assert_harmless(content.getvalue())


def test_names_act_on_no_terminal(finished, odd, tmp_path):
    """On a real pseudo-terminal, where colours and progress bars use escape sequences of their own."""
    for asked in (
        ("predict", finished.run_dir, odd, "--min-confidence", "0", "--max-novelty", "inf"),
        ("evaluate", "--\x1b]0;title\x07"),
    ):
        leader, follower = pty.openpty()
        wide = os.environ | {"COLUMNS": "400"}  # so that no line breaks within an escape
        process = forked.Popen([*PYTHON, *map(str, asked)], stdout=follower, stderr=follower, stdin=follower, env=wide)
        os.close(follower)
        said = b""
        try:
            while part := os.read(leader, 65536):
                said += part
        except OSError:  # the other end is closed
            pass
        process.wait()
        os.close(leader)
        assert b"\x1b[31m\x9b" not in said and b"\x1b]0;" not in said and b"\xe2\x80\xae" not in said, asked
        assert b"\\x1b" in said, (asked, said)


def test_a_reader_that_has_seen_enough_ends_it_quietly(finished, odd):
    command = [*PYTHON, "predict", str(finished.run_dir), str(odd), "--by", "file", "--format", "csv"]
    process = forked.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.communicate()[1] == b"" and process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize("asked", [("--by", "file", "--format", "csv"), ("--by", "file")])
def test_results_that_the_disk_does_not_take_are_a_failure(said_in, finished, odd, asked, capsys):
    assert said_in(open("/dev/full", "w"), "predict", finished.run_dir, odd, *asked) == 1
    assert capsys.readouterr().err == (
        "watkins: cannot write to standard output: No space left on device; the results were not shown whole\n"
    )


def test_the_interpreter_does_not_fail_on_them_once_more():
    with open("/dev/full", "wb") as full:
        said = subprocess.run([*PYTHON, "--help"], stdout=full, stderr=subprocess.PIPE)
    assert said.returncode == 1 and said.stderr.startswith(b"watkins: ") and said.stderr.count(b"\n") == 1


@pytest.mark.system
def test_closed_streams_are_told_and_damage_no_file(finished, odd, tmp_path):
    asked = f"predict {finished.run_dir} '{odd}' --out {tmp_path}/found"
    command = f"{sys.executable} -m watkins_ml {asked}"
    said = subprocess.run(["sh", "-c", f"{command} >&-"], capture_output=True)
    assert said.returncode == 1
    assert said.stderr == (b"watkins: standard output is closed, so the results cannot be shown; send them to a file\n")
    assert len(pd.read_csv(tmp_path / "found" / "detections.csv").columns) > 5
    said = subprocess.run(["sh", "-c", f"{command} 2>&- <&-"], capture_output=True)
    assert said.returncode == 0 and b"Written:" in said.stdout
    assert not said.stderr


def test_remarks_that_nobody_reads_stop_nothing(finished, odd, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [*PYTHON, "predict", str(finished.run_dir), str(odd), "--format", "csv"]
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but not really")
    said = forked.run([*command, str(tmp_path / "broken.wav")], stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    assert said.returncode == 0 and said.stdout.startswith(b"path,")


def test_misuse_is_one_line(watkins):
    said = watkins("predict", "--loudness")
    assert said.status == 2
    assert said.err == "watkins: No such option: --loudness; watkins predict --help shows what there is\n"
