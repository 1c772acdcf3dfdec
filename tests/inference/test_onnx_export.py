"""A trained model as an ONNX file: the same answers from another program, and all that it has to know."""

import contextlib
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Said
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.cli import main
from watkins_ml.core.errors import UserError
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.export import NOVELTY_TOLERANCE, TOLERANCE, differences, metadata, to_onnx
from watkins_ml.models.bundle import Classifier, load_bundle
from watkins_ml.models.novelty import Novelty
from watkins_ml.models.registry import build_model
from watkins_ml.models.thresholds import Thresholds

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def classifier(finished) -> Classifier:
    classifier = load_bundle(finished.run_dir / "model")
    assert abs(classifier.temperature - 1) > 0.02, "else no test would notice that it is left out"
    return classifier


@pytest.fixture(scope="module")
def command(finished, tmp_path_factory) -> tuple[Said, Path]:
    """What `watkins export` says of the champion, and the file that it writes: tracing a network takes seconds."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "champion.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        return run_here(patch, "export", "models:/watkins-baseline@champion", "--to", "onnx", "--out", path), path


@pytest.fixture(scope="module")
def exported(command) -> bytes:
    return command[1].read_bytes()


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(exported)


def run_here(patch: pytest.MonkeyPatch, *words: object) -> Said:
    """As the fixture `watkins`, for a fixture of the whole file."""
    patch.setattr(sys, "argv", ["watkins", *map(str, words)])
    patch.setattr("watkins_ml.core.console.out._width", 300)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        with pytest.raises(SystemExit) as end:
            main()
    return Said(end.value.code or 0, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("rows", [1, 5])
def test_recordings_get_the_probabilities_of_the_classifier(classifier, session, archive, rows):
    files = sorted(archive.rglob("*.wav"))[::8][:5]
    recordings = [classifier.frontend.read(path) for path in files]
    waveforms = np.stack([classifier.frontend.sound(each.waveform, each.sample_rate) for each in recordings])
    parts = [session.run(None, {"waveform": waveforms[at : at + rows]}) for at in range(0, len(files), rows)]
    probabilities, logits, novelty = map(np.concatenate, zip(*parts, strict=True))
    np.testing.assert_allclose(probabilities, classifier.classify(files), atol=TOLERANCE)
    expected = classifier.predict(map(classifier.frontend.file_windows, files)).novelty
    np.testing.assert_allclose(novelty, expected, atol=NOVELTY_TOLERANCE)
    softened = np.exp(logits / classifier.temperature)
    np.testing.assert_allclose(softened / softened.sum(axis=1, keepdims=True), probabilities, atol=1e-6)


def test_the_answers_are_compared_for_silent_quiet_and_clipped_sounds_too(exported, classifier):
    assert max(differences(exported, classifier)) <= TOLERANCE


def test_a_file_with_other_answers_is_refused(exported, classifier):
    with pytest.raises(UserError, match=r"differs from PyTorch by 0\.\d+ in a probability, .* nothing was written"):
        differences(exported, replace(classifier, temperature=3 * classifier.temperature))
    with pytest.raises(UserError, match="differs from PyTorch"):
        differences(exported, replace(classifier, frontend=Frontend(FrontendSettings(frames=100, top_db=30))))


def test_a_file_with_another_novelty_is_refused(exported, classifier):
    known = classifier.novelty
    with pytest.raises(UserError, match=r"and [\d.e+-]+ in a novelty, so nothing was written"):
        differences(exported, replace(classifier, novelty=Novelty(known.known, known.noise, 1e6 * known.limit)))


def test_its_metadata_say_what_a_user_of_the_file_has_to_know(classifier, session):
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == classifier.classes
    assert json.loads(about["frontend"]) == classifier.frontend.settings.model_dump()
    assert json.loads(about["facts"]) == classifier.facts
    assert (about["model"], about["sample_rate"], about["samples"]) == ("models:/watkins-baseline/1", "16000", "15841")
    assert float(about["temperature"]) == classifier.temperature
    assert "exactly 15841 samples" in about["recipe"] and "resample before" in about["recipe"]
    (waveform,) = session.get_inputs()
    assert (waveform.name, waveform.shape) == ("waveform", ["batch", 15_841])


def test_thresholds_kept_with_a_model_are_in_its_metadata(classifier):
    kept = Thresholds({classifier.classes[0]: 0.7}, "at most 1 false alarms an hour", {"overlap": 0.5})
    about = metadata(replace(classifier, thresholds=kept), "runs/first")
    assert json.loads(about["thresholds"])["thresholds"] == kept.of
    assert "thresholds" not in metadata(classifier, "runs/first")


def test_no_trace_of_this_machine_is_in_the_file(exported):
    assert __file__.rpartition("/tests/")[0].encode() not in exported


@pytest.mark.slow
@pytest.mark.system
def test_efficientnet_with_frozen_stages_is_exported_too(recipe):
    network = build_model(recipe("efficientnet", "model.freeze_depth=6").model, species=3).eval()
    classifier = Classifier(network, Frontend(FrontendSettings(frames=100)), ["a", "b", "c"], {}, 1.3)
    assert max(differences(to_onnx(classifier, "runs/first"), classifier)) <= TOLERANCE


def test_the_command_writes_a_file_and_an_example_that_runs(command, classifier, archive, tmp_path):
    said, path = command
    assert (said.status, said.err) == (0, "")
    assert f"{path}: {path.stat().st_size / 1e6:.1f} MB; differs from PyTorch by at most" in said.out
    assert list(path.parent.iterdir()) == [path]
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert about["model"] == "models:/watkins-baseline/1"

    cut = sorted(archive.rglob("*.wav"))[20]
    soundfile.write("recording.wav", classifier.frontend.sound(*soundfile.read(cut, dtype="float32")), 16_000, "FLOAT")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(said.out[said.out.index("import json") :], {})
    (expected,) = classifier.classify([cut])
    assert classifier.classes[expected.argmax()] in printed.getvalue()
    numbers = [float(number) for number in re.findall(r"float32\(([\d.]+)", printed.getvalue())]
    assert max(numbers) == pytest.approx(expected.max(), abs=1e-4)


def test_without_its_packages_export_says_what_to_install(watkins, finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    said = watkins("export", finished.run_dir, "--out", tmp_path / "model.onnx")
    assert said.status == 1
    assert said.err == "watkins: onnxruntime is missing, which export needs; pip install 'watkins-ml[onnx]'\n"
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_misuse_and_a_model_that_is_not_there_is_named(watkins, tmp_path):
    said = watkins("export", "runs/gone", "--to", "tflite")
    assert said.status == 2 and "'--to': 'tflite' is not one of 'onnx'" in said.err
    said = watkins("export", "runs/gone")
    assert said.status == 1 and said.err.startswith("watkins: runs/gone: no such run directory")


def in_file(path, sound: np.ndarray, rate: int):
    soundfile.write(path, sound, rate, subtype="FLOAT")
    return path


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 15_000), st.integers(50, 15_841), st.integers(0, 99))
def test_a_row_gets_the_answer_of_predict_also_with_silent_ends(classifier, session, tmp_path, lead, length, seed):
    rate, samples = classifier.frontend.settings.sample_rate, classifier.frontend.settings.samples
    row = np.zeros(samples, np.float32)
    stop = min(samples, lead + length)
    time = np.arange(stop - lead) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    row[lead:stop] = 0.2 * np.sin(2 * np.pi * 900 * time) + 0.02 * noise
    probabilities, _, novelty = session.run(None, {"waveform": row[None]})
    file = in_file(tmp_path / "row.wav", row, rate)
    np.testing.assert_allclose(probabilities, classifier.classify([file]), atol=TOLERANCE)
    [told] = predict_files(classifier, [file]).to_dict("records")
    assert novelty[0] == pytest.approx(told["novelty"], abs=NOVELTY_TOLERANCE * max(1, told["novelty"]))
    if abs(novelty[0] - 1) > NOVELTY_TOLERANCE:
        assert (told["species"] == "unknown") == (novelty[0] > 1)


def test_what_predict_refuses_or_calls_silent_is_unknown(classifier, session, tmp_path):
    rate, samples = classifier.frontend.settings.sample_rate, classifier.frontend.settings.samples
    call = 0.2 * np.sin(np.arange(samples) / 3).astype(np.float32)
    rows = np.stack([call] * 7)
    rows[0, 99], rows[1, 99], rows[2, 99], rows[3] = np.nan, np.inf, 1e20, 0
    rows[4], rows[5] = 0.25, np.float32(9e-6) * np.sign(call)
    probabilities, logits, novelty = session.run(None, {"waveform": rows})
    assert np.isfinite(probabilities).all() and np.isfinite(logits).all()
    assert (novelty[:6] == np.inf).all() and np.isfinite(novelty[6])
    for number, row in enumerate(rows[:6]):
        [told] = predict_files(classifier, [in_file(tmp_path / f"{number}.wav", row, rate)]).to_dict("records")
        assert told["species"] == "unknown" or isinstance(told["problem"], str), number
    alone = session.run(None, {"waveform": rows[6:]})
    np.testing.assert_allclose(probabilities[6:], alone[0], atol=1e-6)
