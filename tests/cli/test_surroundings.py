"""Commands in surroundings that lack something: one sentence of ours, none of a library's."""

import os
import subprocess
import sys
import tempfile

import pytest

COMMANDS = [("models",), ("train", "r.yaml"), ("tune", "r.yaml"), ("crossval", "r.yaml"), ("sync",), ("server",),
            ("prepare", "recordings"), ("predict", "runs/a", "x.wav"), ("predict", "models:/a@champion", "x.wav"),
            ("evaluate", "runs/a"), ("compare",), ("report", "runs/a"), ("export", "runs/a"), ("demo",),
            ("explain", "runs/a", "x.wav"), ("promote", "a/1"), ("fetch", "archive", "--out", "w")]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_working_directory_that_was_deleted(watkins, tmp_path, monkeypatch, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    said = watkins(*command)
    assert said.status == 1 and said.err.count("\n") == 1, said.err
    assert said.err.startswith("watkins: the working directory is not there any more") and "(cd)" in said.err


def test_help_is_given_all_the_same(watkins, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert watkins("train", "--help").status == 0


def test_a_library_does_not_end_the_process_before_the_sentence(tmp_path):
    """oneMKL's fatal error, in a process that has not loaded it yet."""
    (tmp_path / "gone").mkdir()
    program = f"import os; os.chdir({str(tmp_path / 'gone')!r}); os.rmdir(os.getcwd()); " \
        "import sys; sys.argv = ['watkins', 'models']; from watkins_ml.cli import main; main()"  # fmt: skip
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.returncode == 1 and "FATAL" not in said.stderr
    assert said.stderr.startswith("watkins: the working directory is not there any more")


@pytest.mark.system
def test_a_home_folder_that_cannot_be_written_is_no_ones_business(finished, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    environment |= {"HOME": "/proc/nobody"}
    command = [sys.executable, "-m", "watkins_ml", "report", str(finished.run_dir), "--out", "page.html"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 0 and said.stderr == ""


@pytest.fixture
def no_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])


@pytest.mark.parametrize("command", [("server", "--port", 5987), ("export", "RUN"), ("predict", "models:/a@b", "RUN")])
def test_no_folder_for_temporary_files(watkins, finished, monkeypatch, no_temporary_files, command):
    monkeypatch.chdir(finished.folder)
    said = watkins(*(str(finished.run_dir / "model") if word == "RUN" else word for word in command))
    assert said.status == 1 and said.err.count("\n") == 1, said.err
    assert "folder for temporary files" in said.err and "TMPDIR" in said.err


def test_room_is_asked_for_where_it_is_what_lacks(tmp_path):
    from watkins_ml.core.errors import ResourceError
    from watkins_ml.core.files import disk_errors

    for number, then in ((28, "make room; go on"), (30, "correct that; go on")):
        with pytest.raises(ResourceError) as caught, disk_errors("cannot write", "make room; go on"):
            raise OSError(number, os.strerror(number))
        assert str(caught.value).endswith(then)
