"""Scoring with every core, in batches of any size, on any device: always the same answers in the same order."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.scores import score_recordings
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.inference.worker_pool import WorkerPool


@pytest.fixture
def files(archive):
    return sorted(archive.rglob("*.wav"))[:11]


@pytest.fixture
def threads():
    """Sets how many threads torch has, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def probabilities(classifier, files):
    scores = list(score_recordings(classifier, files, WindowOptions()))
    assert [each.path for each in scores] == files
    return np.concatenate([each.probabilities for each in scores])


def test_the_number_of_threads_changes_no_answer(classifier, files, threads):
    found = {}
    for number in (1, 3):
        threads(number)
        assert WorkerPool(classifier.network).threads == number
        found[number] = probabilities(classifier, files), predict_files(classifier, files)
    np.testing.assert_array_equal(found[1][0], found[3][0])
    assert found[1][1].equals(found[3][1])


def test_the_size_of_batches_changes_no_answer_but_for_rounding(classifier, files):
    windows = [classifier.frontend.file_windows(path) for path in files]
    expected = classifier.predict(windows)
    for size in (1, 4, 7):
        answers = classifier.predict(windows, size)
        np.testing.assert_allclose(answers.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(answers.novelty, expected.novelty, atol=1e-4)


def test_results_come_in_order_though_later_ones_are_ready_first(threads):
    threads(3)
    pool = WorkerPool(torch.nn.Linear(1, 1))

    def slow(number: int) -> int:
        time.sleep(0.05 if number % 3 == 0 else 0)
        return -number

    assert list(pool.map(slow, range(12))) == [(number, -number) for number in range(12)]


def test_of_endless_items_only_a_few_are_read_ahead(threads):
    threads(2)
    read, held = [], threading.Event()
    items = (read.append(number) or number for number in itertools.count())
    found = WorkerPool(torch.nn.Linear(1, 1)).map(lambda number: held.wait(0.05), items)
    next(found)
    assert len(read) <= 4
    found.close()


def test_what_goes_wrong_in_a_thread_is_raised(classifier, files, monkeypatch):
    def fail(waveform, rate):
        raise MemoryError("of a spectrogram")

    monkeypatch.setattr("watkins_ml.audio.frontend.Frontend.__call__", lambda self, *given: fail(*given))
    with pytest.raises(MemoryError, match="of a spectrogram"):
        list(score_recordings(classifier, files, WindowOptions()))


@pytest.mark.parametrize("by", ["detection", "file"])
def test_a_device_that_is_not_there_is_refused_in_a_line(watkins, finished, files, by):
    gone = "mps" if torch.cuda.is_available() else "cuda"
    asked = ("predict", finished.run_dir, files[0], "--by", by, "--device")
    said = watkins(*asked, gone)
    assert (said.status, said.out) == (2, "")
    assert said.err == f"watkins: --device {gone}: this machine has none that torch can use; write auto or cpu\n"
    said = watkins(*asked, "tpu")
    assert said.status == 2 and "'--device': 'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'" in said.err
    assert watkins(*asked, "cpu").status == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
def test_a_gpu_gives_the_answers_of_the_cpu(classifier, files):
    expected = probabilities(classifier, files), predict_files(classifier, files)
    digest = classifier.digest()
    classifier.network.to("cuda")
    assert classifier.digest() == digest
    np.testing.assert_allclose(probabilities(classifier, files), expected[0], atol=5e-3)  # convolutions in TF32
    found = predict_files(classifier, files)
    np.testing.assert_allclose(found["probability"], expected[1]["probability"], atol=5e-3)
