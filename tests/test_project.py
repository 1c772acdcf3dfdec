"""What a project promises beside its code: licence, citation, changelog, one version, hooks and the hosted CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import watkins_ml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )


def test_the_version_is_written_once():
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "watkins_ml.__version__"}
    assert version("watkins-ml") == watkins_ml.__version__


def test_changelog_and_citation_are_of_this_version():
    released = re.findall(r"^## \[(\d[^\]]*)\] – \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == watkins_ml.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == watkins_ml.__version__


def test_the_licence_is_apache_2_and_named_alike_everywhere():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/ci.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files_of_other_formats_fit_their_schema(schema: str, file: str):
    checked = run("check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_hosted_ci_runs_the_gate_on_every_supported_python():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"][0] == oldest == PROJECT["tool"]["mypy"]["python_version"]


def test_the_gate_runs_what_fails_fast_first():
    targets = re.findall(r"^make ([\w-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert targets == ["lint", "test", "test-system", "faults"]
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert [line.split()[0] for line in recipe.splitlines()] == ["$(BIN)/ruff", "$(BIN)/ruff", "$(BIN)/mypy"]


def test_development_tools_are_pinned():
    names = {re.match(r"[\w-]+", line)[0].lower() for line in PROJECT["project"]["optional-dependencies"]["dev"]}
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    assert names - {"watkins-ml"} <= pinned


@pytest.mark.slow
def test_hooks_run_the_tools_of_the_environment_and_mend_a_file(tmp_path):
    """The shipped hooks in a repository of their own, without a network."""
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    (tmp_path / "watkins_ml").mkdir()
    (tmp_path / "watkins_ml" / "__init__.py").touch()
    source = tmp_path / "watkins_ml" / "half.py"
    source.write_text("import os\ndef half( x:int )->int:\n    return x//2\nhalf('4')\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "watkins_ml", "pyproject.toml", ".pre-commit-config.yaml"], cwd=tmp_path, check=True)
    hooks = {"PRE_COMMIT_HOME": str(tmp_path / "cache"), "cwd": tmp_path}
    first = run("pre_commit", "run", "--all-files", **hooks)
    assert first.returncode == 1
    assert source.read_text() == 'def half(x: int) -> int:\n    return x // 2\n\n\nhalf("4")\n'
    assert 'Argument 1 to "half" has incompatible type "str"' in first.stdout

    source.write_text(source.read_text().replace('"4"', "4"))
    subprocess.run(["git", "add", "watkins_ml"], cwd=tmp_path, check=True)
    again = run("pre_commit", "run", "--all-files", **hooks)
    assert again.returncode == 0, again.stdout
