"""The registered model on real audio: in this process, and over HTTP from a real `mlflow models serve`."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import signal
import sys
import time
from functools import partial

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.models.utils import load_serving_example

from tests.support import forked
from tests.support.servers import free_port
from watkins_ml.audio.settings import MOST_WINDOWS as MOST_WINDOWS_A_ROW
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import cut_windows, load_side
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.resolve import load_classifier
from watkins_ml.inference.scores import score_recordings
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import load_bundle
from watkins_ml.serving.audio_table import COLUMNS, MOST_MIB
from watkins_ml.serving.request_limits import FORMATS, MOST_ROWS, MOST_SECONDS, MOST_WINDOWS
from watkins_ml.tracking.server import client

MODEL = "models:/watkins-baseline@champion"
EQUAL = {"rtol": 0, "atol": 1e-7}
RATE = 8_000


def sound(seconds: float = 0.4, channels: int = 1) -> np.ndarray:
    """A noisy tone that rises, another one in each channel; float32 (samples, channels)."""
    time = np.arange(round(seconds * RATE))[:, None] / RATE
    pitch = 500.0 * np.arange(1, channels + 1) + 50 * time
    noise = np.random.default_rng(0).standard_normal((len(time), channels))
    return (0.3 * np.sin(2 * np.pi * pitch * time) + 0.05 * noise).astype("float32")


def encoded(samples: np.ndarray, container: str = "WAV", rate: int = RATE, **options: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, **options)
    return file.getvalue()


def text(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def unpacking_to_months() -> bytes:
    """A small FLAC file whose header announces three months of sound."""
    audio = bytearray(encoded(np.zeros(RATE, "float32"), "FLAC"))
    assert audio[:4] == b"fLaC"
    audio[21] |= 0x0F  # the upper four of 36 bits: how many samples follow
    return bytes(audio)


SOUNDS = {
    "wav": encoded(sound()),
    "flac": encoded(sound(), "FLAC"),
    "mp3": encoded(sound(1.0), "MP3"),
    "short": encoded(sound(0.01)),
    "long": encoded(sound(19.0)),
    "stereo": encoded(sound(5.0, channels=2)),
    "another rate": encoded(sound(), rate=44_100),
}

WRONG = {
    "garbage": ({"audio": text(b"no recording at all, but long enough to be one" * 99)}, "not audio but text"),
    "truncated": ({"audio": text(SOUNDS["wav"][:-999])}, "no usable audio (truncated:"),
    "silent": ({"audio": text(encoded(np.zeros(900, "float32")))}, "no usable audio (silent:"),
    "no bytes": ({"audio": ""}, "no usable audio (empty: no bytes)"),
    "no samples": ({"waveform": [], "sample_rate": RATE}, "no usable audio (empty: no samples)"),
    "not base64": ({"audio": "<wav>"}, "not base64"),
    "half a base64": ({"audio": text(SOUNDS["wav"])[:-3]}, "not base64"),
    "no text": ({"audio": 7}, "audio is of type int; give the bytes of one audio file a row"),
    "too many bytes": ({"audio": "A" * (4 * (MOST_MIB + 1) * 2**20 // 3)}, f"65.0 MiB, more than {MOST_MIB}; cut"),
    "too many samples": ({"audio": text(unpacking_to_months())}, "unpacks to over 268,435,456 samples; cut"),
    "no rate": ({"waveform": [0.1, 0.2]}, "needs a sample_rate in Hz, a whole number from 1"),
    "a wrong rate": ({"waveform": [0.1, 0.2], "sample_rate": "8 kHz"}, "needs a sample_rate in Hz"),
    "a rate of nought": ({"waveform": [0.1, 0.2], "sample_rate": 0}, "needs a sample_rate in Hz"),
    "words for samples": ({"waveform": ["a", "b"], "sample_rate": RATE}, "waveform is not a list of numbers"),
    "one number": ({"waveform": 0.5, "sample_rate": RATE}, "waveform is not a list of numbers"),
    "channels first": ({"waveform": [[0.1] * 99, [0.2] * 99], "sample_rate": RATE}, "has 99 channels; its shape is"),
    "ragged": ({"waveform": [[0.1], [0.2, 0.3]], "sample_rate": RATE}, "waveform is not a list of numbers"),
    "no numbers": ({"waveform": [float("nan"), 0.1], "sample_rate": RATE}, "samples that are not numbers"),
    "too large numbers": ({"waveform": [1e300, 0.1], "sample_rate": RATE}, "infinite samples, which are not numbers"),
    "two recordings": ({"audio": text(SOUNDS["wav"]), "path": "a.wav"}, "has audio and path; give exactly one of"),
    "empty cells": ({"audio": None, "path": None}, "has no recording; give exactly one of audio, path and waveform"),
}


@pytest.fixture(scope="module")
def classifier(finished):
    return load_bundle(finished.run_dir / "model")


@pytest.fixture(scope="module")
def store_uri(finished) -> str:
    return f"sqlite:///{finished.folder}/mlflow/mlflow.db"


@pytest.fixture
def model(store_uri, monkeypatch):
    """The champion as anybody loads it who knows only MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    client()
    return mlflow.pyfunc.load_model(MODEL)


@pytest.fixture(scope="module")
def address(store_uri, tmp_path_factory) -> str:
    """Where a real `mlflow models serve` answers for the champion."""
    folder, port = tmp_path_factory.mktemp("serving"), free_port()
    stores = {"MLFLOW_TRACKING_URI": store_uri, "MLFLOW_REGISTRY_URI": store_uri}
    environment = os.environ | stores | {"PATH": f"{forked.programs()}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", MODEL, "--env-manager", "local"]
    log = folder / "log"
    with open(log, "w") as output:
        process = forked.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=folder, env=environment, fresh=True,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/ping"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"mlflow models serve did not start: {log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def post(address: str, *rows: dict) -> requests.Response:
    body = json.dumps({"dataframe_records": rows})  # unlike requests, with NaN as MLflow reads it
    return requests.post(address, data=body, headers={"Content-Type": "application/json"}, timeout=60)


def probabilities(answer: list[dict]) -> np.ndarray:
    return np.array([list(row["probabilities"].values()) for row in answer])


def predicted(model, *rows: dict) -> np.ndarray:
    return probabilities(model.predict(pd.DataFrame(rows)).to_dict("records"))


def sentence(answer: requests.Response) -> str:
    """What a refusal says, which is one line without anything of this machine in it."""
    said = answer.json()
    assert answer.status_code == 400, said
    assert "stack_trace" not in said and "\n" not in said["message"] and ".py" not in said["message"]
    return said["message"]


@pytest.mark.slow
def test_evaluation_prediction_pyfunc_and_http_give_the_same_probabilities(finished, prepared, model, address):
    data = read_prepared(prepared)
    split = load_side(data, "test")
    files = [data.audio_dir / path for path in split.frame["path"]]
    registered = load_classifier(MODEL)
    expected = registered.probabilities(cut_windows(data, split))  # as training and `watkins evaluate` do

    reported = pd.read_csv(finished.run_dir / "preds" / "test.csv")[[f"p_{name}" for name in registered.classes]]
    np.testing.assert_allclose(reported.to_numpy(), expected, rtol=1e-5)  # six digits are written
    np.testing.assert_allclose(registered.classify(files), expected, **EQUAL)
    np.testing.assert_allclose(
        predict_files(registered, files, max_novelty=math.inf)["probability"], expected.max(axis=1)
    )
    over_time = [recording.probabilities for recording in score_recordings(registered, files, WindowOptions())]
    np.testing.assert_allclose(np.concatenate(over_time), expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(predicted(model, *({"path": str(file)} for file in files)), expected, **EQUAL)
    answer = post(address, *({"audio": text(file.read_bytes())} for file in files)).json()["predictions"]
    np.testing.assert_allclose(probabilities(answer), expected, **EQUAL)
    named = [registered.classes[label] for label in expected.argmax(axis=1)]
    novelty = registered.predict(map(registered.frontend.file_windows, files)).novelty
    assert [row["novelty"] for row in answer] == pytest.approx(novelty.tolist(), rel=1e-3)
    assert "unknown" not in named and (novelty <= 1).any()
    told = ["unknown" if new > 1 else name for name, new in zip(named, novelty, strict=True)]
    assert [row["species"] for row in answer] == told
    assert [row["probability"] for row in answer] == pytest.approx(expected.max(axis=1))
    assert list(answer[0]["probabilities"]) == registered.classes


@pytest.mark.slow
def test_noise_is_unknown_with_what_it_resembles_beside_it(classifier, address):
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE)
    (row,) = post(address, {"audio": text(encoded(noise))}).json()["predictions"]
    assert row["species"] == "unknown" and row["novelty"] > 1
    assert row["probability"] == max(row["probabilities"].values()) and list(row["probabilities"]) == classifier.classes


def as_predict(classifier, sources) -> np.ndarray:
    """Probabilities by the windows that are known, of each recording where any is."""
    return classifier.predict(map(classifier.frontend.file_windows, sources), max_novelty=1.0).probabilities


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOUNDS)
def test_every_kind_of_audio_gives_the_same_in_every_form(classifier, model, address, tmp_path, kind):
    (file := tmp_path / "sound").write_bytes(SOUNDS[kind])
    waveform, rate = soundfile.read(file, dtype="float32")
    expected = as_predict(classifier, [file])
    for row in ({"audio": SOUNDS[kind]}, {"path": str(file)}, {"waveform": waveform, "sample_rate": rate}):
        np.testing.assert_allclose(predicted(model, row), expected, **EQUAL)
    for row in ({"audio": text(SOUNDS[kind])}, {"waveform": waveform.tolist(), "sample_rate": rate}):
        np.testing.assert_allclose(probabilities(post(address, row).json()["predictions"]), expected, **EQUAL)


@pytest.mark.slow
def test_rows_of_different_forms_go_together_and_keep_their_order(classifier, model, address, tmp_path):
    names = ["wav", "long", "stereo"]
    expected = as_predict(classifier, map(io.BytesIO, (SOUNDS[name] for name in names)))
    (file := tmp_path / "long.wav").write_bytes(SOUNDS["long"])
    waveform, rate = soundfile.read(io.BytesIO(SOUNDS["stereo"]))
    last = {"waveform": waveform.tolist(), "sample_rate": rate}
    mixed = predicted(model, {"audio": SOUNDS["wav"]}, {"path": file}, last)
    np.testing.assert_allclose(mixed, expected, **EQUAL)
    answer = post(address, {"audio": text(SOUNDS["wav"])}, {"audio": text(SOUNDS["long"])}, last)
    np.testing.assert_allclose(probabilities(answer.json()["predictions"]), expected, **EQUAL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["audio"], "data": [[text(SOUNDS["wav"])]]}},
        {"inputs": [{"audio": text(SOUNDS["wav"])}]},
        {"instances": [{"audio": text(SOUNDS["wav"])}]},
        {"inputs": [{"audio": base64.encodebytes(SOUNDS["wav"]).decode()}]},  # as MLflow itself breaks the lines
    ],
    ids=["dataframe_split", "inputs", "instances", "lines"],
)
def test_mlflows_other_ways_to_write_a_table_work_too(classifier, address, body):
    answer = requests.post(address, json=body, timeout=60).json()["predictions"]
    expected = classifier.classify([io.BytesIO(SOUNDS["wav"])])
    np.testing.assert_allclose(probabilities(answer), expected, **EQUAL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_judged_is_refused_with_a_sentence(model, address, kind):
    row, said = WRONG[kind]
    with pytest.raises(MlflowException) as refusal:
        model.predict(pd.DataFrame([row]))
    message = sentence(post(address, row))
    assert message == str(refusal.value)
    assert message.startswith("row 0") and said in message


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[{"adio": "QUJD"}], [{"sample_rate": 8000}], [1, 2], [None], [[[]]]])
def test_a_table_without_a_column_of_recordings_is_refused(address, rows):
    assert "none of the columns audio, path and waveform" in sentence(post(address, *rows))


def test_a_table_without_rows_is_refused(model):
    with pytest.raises(MlflowException, match="the table has no rows"):
        model.predict(pd.DataFrame({"audio": []}))


def nested(depth: int, inside: bytes = b"") -> bytes:
    return b"[" * depth + inside + b"]" * depth


def records(cells: bytes) -> bytes:
    return b'{"dataframe_records": [{' + cells + b"}]}"


TABLES = {
    "nothing": b"",
    "half": b"{",
    "no table": b'{"audio": "QUJD"}',
    "a list": b"[1]",
    "a number": b"5",
    "half a word": b"nul",
    "not UTF-8": b"\xff",
    "UTF-16 without end": b"\xff\xfe{",
    "two tables": b'{"inputs": [], "instances": []}',
    "of a language model": b'{"messages": [{"role": "user", "content": "?"}]}',
    "no rows": b'{"dataframe_records": []}',
    "no columns": b'{"inputs": {}}',
    "a number for a table": b'{"inputs": 5}',
    "an object for a table": b'{"dataframe_records": {"audio": "QUJD"}}',
    "nested far": nested(100_000),
    "objects nested far": b'{"a":' * 100_000,
    "nested in a table": b'{"dataframe_records": ' + nested(900) + b"}",
    "nested in a cell": records(b'"sample_rate": 8000, "waveform": ' + nested(500, b"1")),
    "a number of 5,000 digits": records(b'"waveform": [0.1], "sample_rate": ' + b"9" * 5_000),
    "a number of 4,000 digits": records(b'"waveform": [0.1], "sample_rate": ' + b"9" * 4_000),
    "samples of 4,000 digits": records(b'"sample_rate": 8000, "waveform": [' + b"9" * 4_000 + b"]"),
    "an infinite rate": records(b'"waveform": [0.1], "sample_rate": 1e999'),
    "no rate": records(b'"waveform": [0.1], "sample_rate": NaN'),
    "yes for a rate": records(b'"waveform": [0.1, 0.2], "sample_rate": true'),
    "yes and no": records(b'"sample_rate": 8000, "waveform": [true, false]'),
    "three dimensions": records(b'"sample_rate": 8000, "waveform": [[[0.1]]]'),
    "an object for samples": records(b'"sample_rate": 8000, "waveform": {"a": 1}'),
    "a list for bytes": records(b'"audio": ["QUJD"]'),
    "letters that base64 lacks": records('"audio": "ŸŸŸ"'.encode()),
    "cells without columns": b'{"dataframe_split": {"columns": ["audio"], "data": [[1, 2]]}}',
    "columns of lists": b'{"dataframe_split": {"columns": [["audio"]], "data": [[1]]}}',
    "columns twice": b'{"dataframe_split": {"columns": ["audio", "audio"], "data": [["QUJD", "QUJD"]]}}',
    "no data": b'{"dataframe_split": {}}',
    "unequal columns": b'{"inputs": {"audio": ["QUJD", "QUJD"], "path": ["a"]}}',
    "a cell beside a column": b'{"inputs": {"audio": ["QUJD"], "path": "a"}}',
    "100,000 columns": json.dumps(
        {"dataframe_split": {"columns": [f"c{n}" for n in range(100_000)], "data": [[0] * 100_000]}}
    ).encode(),
    "10,000 rows": json.dumps({"dataframe_records": [{"audio": "QUJD"}] * 10_000}).encode(),
}
CSV = {
    "nothing": b"",
    "no rows": b"audio\n",
    "other columns": b"a,b\n1,2\n",
    "not UTF-8": b"audio\n\xff\xfe\n",
    "a quote without end": b'audio\n"unclosed\n',
    "a zero byte": b"audio\n\0\n",
    "cells without columns": b"audio\nQUJD,QUJD\n",
    "samples": b'waveform,sample_rate\n"[1, 2]",8000\n',
    "a path": b"path\n/etc/passwd\n",
    "half a million columns": b"," * 500_000,
    "10,000 rows": b"audio\n" + b"QUJD\n" * 10_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_a_body_that_is_no_table_is_refused_with_a_sentence(address, kind):
    sentence(requests.post(address, data=TABLES[kind], headers={"Content-Type": "application/json"}, timeout=60))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CSV)
def test_csv_that_is_no_table_of_recordings_is_refused_with_a_sentence(address, kind):
    sentence(requests.post(address, data=CSV[kind], headers={"Content-Type": "text/csv"}, timeout=60))


@pytest.mark.slow
def test_recordings_in_csv_are_judged(classifier, address):
    body = f'audio,what\n{text(SOUNDS["wav"])},a\n"{text(SOUNDS["long"])}",b\n'
    answer = requests.post(address, data=body, headers={"Content-Type": "text/csv; charset=UTF-8"}, timeout=60)
    expected = as_predict(classifier, [io.BytesIO(SOUNDS["wav"]), io.BytesIO(SOUNDS["long"])])
    np.testing.assert_allclose(probabilities(answer.json()["predictions"]), expected, **EQUAL)


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([10**400, "QUJD"]),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from(["audio", "x"]), inside, max_size=3),
    max_leaves=9,
)
ROWS = st.lists(st.dictionaries(st.sampled_from([*COLUMNS, "x"]), CELLS, max_size=4) | CELLS, max_size=4)


@pytest.mark.slow
@given(form=st.sampled_from(FORMATS), table=ROWS | CELLS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_json_is_sent_the_answer_is_a_table_or_a_sentence(address, form, table):
    answer = requests.post(
        address, data=json.dumps({form: table}), headers={"Content-Type": "application/json"}, timeout=60
    )
    if answer.status_code != 200:
        sentence(answer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "", "application/vnd.apache.parquet", "text/csv; charset=latin-1", "x" * 999])
def test_other_kinds_of_content_are_refused_with_what_is_supported(address, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = requests.post(address, data=b"PAR1", headers=headers, timeout=60)
    said = "this server only supports application/json and text/csv, in UTF-8"
    assert (answer.status_code, answer.text) == (415, said)


def low(seconds: float) -> bytes:
    """A recording at 1 kHz, so that little is sent."""
    return encoded(np.random.default_rng(0).normal(0, 0.1, round(1_000 * seconds)), rate=1_000)


@pytest.mark.slow
def test_a_request_may_hold_so_many_rows_windows_and_seconds_and_no_more(address, classifier):
    brief = {"audio": text(low(0.1))}
    assert len(post(address, *[brief] * MOST_ROWS).json()["predictions"]) == MOST_ROWS
    assert sentence(post(address, *[brief] * (MOST_ROWS + 1))).startswith(f"the table has more than {MOST_ROWS} rows")
    long = {"audio": text(low(17 * classifier.frontend.settings.seconds))}
    fit = MOST_WINDOWS // MOST_WINDOWS_A_ROW
    assert len(post(address, *[long] * fit).json()["predictions"]) == fit
    assert f"row {fit}: the recordings so far fill over {MOST_WINDOWS} windows" in sentence(post(address, *[long] * 40))
    hours = bytearray(encoded(sound(), "FLAC", rate=1_000))
    hours[21:26] = bytes([hours[21] & 0xF0]) + (22_000_000).to_bytes(4)  # how many samples follow, says its header
    refused = sentence(post(address, brief, {"audio": text(bytes(hours))}))
    assert f"row 1: the recordings so far last over {MOST_SECONDS:,} s" in refused


def test_a_request_ends_when_its_client_has_been_told_that_it_would(store_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    client()
    from mlflow.pyfunc import scoring_server  # before the model is loaded, as in the server's own process

    model = mlflow.pyfunc.load_model(MODEL)
    body = json.dumps({"dataframe_records": [{"audio": text(SOUNDS["wav"])}]}).encode()
    ask = partial(scoring_server.invocations, body, "application/json", model, model.metadata.get_input_schema())
    assert ask().status == 200
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "0")
    with pytest.raises(MlflowException, match="the prediction took longer than 0 s; send fewer recordings at once"):
        ask()
    assert len(model.predict(pd.DataFrame({"audio": [SOUNDS["wav"]] * (MOST_ROWS + 1)}))) == MOST_ROWS + 1  # no request


GROWTH = """
import dataclasses, io, sys, threading
from pathlib import Path
import numpy, pandas, psutil, soundfile, torch
from watkins_ml.audio.frontend import Frontend
from watkins_ml.serving.table_model import TableModel
torch.set_num_threads(1)
model, file, me = TableModel(Path(sys.argv[1])), io.BytesIO(), psutil.Process()
model.classifier = dataclasses.replace(model.classifier, frontend=Frontend())  # of the usual four seconds
soundfile.write(file, numpy.random.default_rng(0).normal(0, 0.1, 4000), 8000, format="WAV")
def work(rows):
    thread = threading.Thread(target=model.predict, args=[pandas.DataFrame({"audio": [file.getvalue()] * rows})])
    thread.start()
    thread.join()
    return me.memory_info().rss
print((-work(50) + work(600)) >> 20)
"""


@pytest.mark.slow
@pytest.mark.system
def test_memory_does_not_grow_with_the_rows_of_a_table_in_a_thread(finished):
    said = forked.run([sys.executable, "-c", GROWTH, finished.run_dir / "model"], capture_output=True, check=True)
    assert int(said.stdout) < 40  # MiB; it was 0.1 to 0.4 a row


@pytest.mark.slow
def test_a_wav_file_that_is_not_in_a_table_is_refused(address):
    answer = requests.post(address, data=SOUNDS["wav"], headers={"Content-Type": "audio/wav"}, timeout=60)
    assert (answer.status_code, "only supports" in answer.text) == (415, True)


@pytest.mark.slow
def test_a_bad_row_among_good_ones_is_named(model, address, tmp_path):
    rows = [{"audio": text(SOUNDS["wav"])}, {"audio": text(SOUNDS["flac"])}, {"audio": text(b"RIFF, or not")}]
    assert sentence(post(address, *rows)).startswith("row 2 holds no usable audio (unreadable:")
    (good := tmp_path / "good.wav").write_bytes(SOUNDS["wav"])
    with pytest.raises(MlflowException, match=r"^row 1 holds no usable audio \(unreadable: No such file"):
        model.predict(pd.DataFrame({"path": [str(good), "nowhere.wav"]}))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/etc/passwd", "nowhere.wav", "http://127.0.0.1:1/a.wav", "/dev/zero"])
def test_over_http_no_path_is_read_not_even_to_say_whether_it_is_there(address, archive, path):
    refused = "row 0: a server reads no paths; send the bytes of the file as audio, in base64"
    assert sentence(post(address, {"path": path})) == refused
    assert sentence(post(address, {"path": str(next(archive.rglob("*.wav")))})) == refused
    inputs = requests.post(address, json={"inputs": [{"path": path}]}, timeout=60)
    assert sentence(inputs) == refused


def test_a_fault_of_the_model_itself_shows_the_client_nothing_of_this_machine(model):
    model.unwrap_python_model().model.classifier = None
    with pytest.raises(MlflowException, match="the model failed, not the recordings") as fault:
        model.predict(pd.DataFrame({"audio": [SOUNDS["wav"]]}))
    assert fault.value.get_http_status_code() == 500
    assert "Traceback" not in fault.value.serialize_as_json()


@pytest.mark.slow
def test_the_stored_example_is_a_body_that_http_takes(model, address):
    example = load_serving_example(MODEL)
    answer = requests.post(address, data=example, headers={"Content-Type": "application/json"}, timeout=60)
    expected = model.predict(model.input_example).to_dict("records")
    np.testing.assert_allclose(probabilities(answer.json()["predictions"]), probabilities(expected), **EQUAL)
