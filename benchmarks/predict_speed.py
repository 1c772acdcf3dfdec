"""Speed and memory of `watkins predict` on one long recording, beside librosa with plain PyTorch and opensoundscape.

Generates one recording at 48 kHz with calls of the demo's species in noise, and has it judged by the same network over
the same windows (half of each on the one before), each way in a process of its own, in turns. The times are without
the start (imports, loading the model). Seconds of processors, which other work on the machine hardly changes, and peak
memory are of the whole process; of several, memory is that of the largest.
`--hours 1 24` shows how memory grows. `--peers` names a Python with librosa and opensoundscape beside what watkins_ml
needs; which of them it lacks is said.

Example: python benchmarks/predict_speed.py runs/NAME --peers ~/peers/bin/python --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from bench import beside

ROOT = Path(__file__).resolve().parents[1]
RATE = 48_000
OVERLAP = 0.5


def generate(path: Path, minutes: int) -> None:
    import soundfile

    from watkins_ml.demo.calls import SPECIES
    from watkins_ml.demo.tape import Tape, record, unit_loudness

    rng = np.random.default_rng(0)
    tape = Tape("T0001", RATE, 1, tilt=5.0, corner=200.0, level=-35.0, hum=50.0, hum_level=-20.0)
    made = []
    for minute in range(min(minutes, 60)):  # an hour, and then that hour again
        species = SPECIES[minute % len(SPECIES)]
        clean, start = np.zeros(60 * RATE, np.float32), rng.uniform(1, 10)
        while start < 55:
            bout, first = species.call(rng, RATE, rng.uniform(1.5, 4)), round(start * RATE)
            clean[first : first + len(bout)] += bout
            start += rng.uniform(6, 20)
        call = unit_loudness(clean) * 10 ** (rng.uniform(8, 18) / 20)
        made.append((32_767 * np.clip(record(rng, call, species.band, tape)[:, 0], -1, 1)).astype(np.int16))
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="RF64") as file:  # WAV beyond 4 GiB
        for minute in range(minutes):
            file.write(made[minute % 60])


def ours(run: str, recording: Path) -> tuple[float, np.ndarray, list[str]]:
    """What `watkins predict RUN RECORDING --out FOLDER` does once it has the model."""
    from watkins_ml.core.memory import keep_freed_memory
    from watkins_ml.inference.cache import ScoreCache
    from watkins_ml.inference.detections import DetectionOptions
    from watkins_ml.inference.pipeline import predict_recordings
    from watkins_ml.inference.resolve import load_classifier
    from watkins_ml.inference.windows import WindowOptions

    keep_freed_memory()
    classifier, windows = load_classifier(run), WindowOptions(OVERLAP)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cache = ScoreCache(Path(folder), classifier, run, windows)
        predict_recordings(classifier, [recording], DetectionOptions(), windows, cache, formats=("csv",))
        seconds = time.perf_counter() - started
        probabilities = np.nan_to_num(cache.read(recording).probabilities)
    return seconds, probabilities, classifier.classes


def with_librosa(run: str, recording: Path) -> tuple[float, np.ndarray, list[str]]:
    """What one writes in an afternoon: load all of it, a mel spectrogram a window, batches of 32."""
    import librosa
    import torch

    from watkins_ml.inference.resolve import load_classifier

    classifier = load_classifier(run)
    s, network = classifier.frontend.settings, classifier.network.eval()
    librosa.feature.melspectrogram(y=np.zeros(s.samples, np.float32), sr=s.sample_rate)  # compiles on first use
    started = time.perf_counter()
    sound, _ = librosa.load(recording, sr=s.sample_rate)
    step = round((1 - OVERLAP) * s.samples)
    starts = range(0, max(1, len(sound) - s.samples + 1), step)
    logits, batch = [], []
    for number, start in enumerate(starts):
        mel = librosa.feature.melspectrogram(
            y=sound[start : start + s.samples], sr=s.sample_rate, n_fft=s.n_fft, win_length=s.win_length,
            hop_length=s.hop_length, n_mels=s.n_mels, htk=True, norm=None,
        )  # fmt: skip
        decibels = librosa.power_to_db(mel, top_db=s.top_db)
        batch.append((decibels - decibels.mean()) / decibels.std())
        if len(batch) == 32 or number == len(starts) - 1:
            with torch.inference_mode():
                logits.append(network(torch.from_numpy(np.stack(batch)).float().unsqueeze(1)))
            batch = []
    return time.perf_counter() - started, torch.cat(logits).softmax(dim=1).numpy(), classifier.classes


def with_opensoundscape(run: str, recording: Path, workers: int = 0) -> tuple[float, np.ndarray, list[str]]:
    """Its own preprocessor with the same mel bands, turned and standardised as the network expects.

    What stays different: it frames without padding, so 387 frames are stretched to 400.
    """
    from opensoundscape import CNN, Action, MelSpectrogram

    from watkins_ml.inference.resolve import load_classifier

    classifier = load_classifier(run)
    s = classifier.frontend.settings
    model = CNN(
        classifier.network, classifier.classes, sample_duration=s.seconds, sample_rate=s.sample_rate,
        height=s.n_mels, width=s.frames, channels=1, device="cpu",
    )  # fmt: skip
    steps = model.preprocessor.pipeline
    steps["to_spec"] = Action(
        MelSpectrogram.from_audio, window_samples=s.win_length, hop_samples=s.hop_length, fft_size=s.n_fft,
        n_mels=s.n_mels,
    )  # fmt: skip
    model.preprocessor.remove_action("bandpass")  # which mel spectrograms have none of
    steps["to_tensor"].params["range"] = (-100.0, 50.0)  # what lies outside would be cut off
    steps["rescale"] = Action(lambda picture: (picture.flip(1) - picture.mean()) / picture.std())
    started = time.perf_counter()
    table = model.predict(
        [str(recording)], batch_size=32, num_workers=workers, overlap_fraction=OVERLAP, progress_bar=False
    )
    return time.perf_counter() - started, table.to_numpy(), classifier.classes


WAYS = {
    "watkins": ours,
    "librosa": with_librosa,
    "opensoundscape": with_opensoundscape,
    "opensoundscape, 2 workers": partial(with_opensoundscape, workers=2),
}


def measure(way: str, python: str, run: str, recording: Path) -> dict[str, object]:
    """Seconds, peak MiB and the most probable species of each window, from a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [python, __file__, run, "--way", way, "--recording", str(recording), "--result", result.name]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        started = time.perf_counter()
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        if status:
            return {"way": way, "problem": (said.strip().splitlines() or ["killed"])[-1]}
        found = json.loads(Path(result.name).read_text())
    spent = {"whole_s": time.perf_counter() - started, "cpu_s": used.ru_utime + used.ru_stime}
    return {"way": way, **spent, **found}


def peak_mib() -> float:
    """The most memory that this process held, or one of its children if that is more."""
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux; and there the figure below is of bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    # not ru_maxrss, in which a process inherits what its parent held when it started it
    own = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def table(found: list[dict[str, object]], hours: float) -> pd.DataFrame:
    first = {each["round"]: each for each in found if each["way"] == "watkins"}
    rows = {}
    for way in WAYS:
        mine = [each for each in found if each["way"] == way]
        if not mine or "problem" in mine[0]:
            if mine:
                print(f"left out: {way} ({mine[0]['problem']})")
            continue
        ratios = [each["seconds"] / first[each["round"]]["seconds"] for each in mine]
        if way != "watkins":
            ours_mib = max(each["peak_mib"] for each in first.values())
            beside(f"predict, {hours:g} h", way, ratios, ours_mib)
        same = np.mean([np.equal(*zip(*zip(each["top"], first[each["round"]]["top"]))) for each in mine])  # noqa: B905
        rows[way] = {
            "times real time": 3600 * hours / np.median([each["seconds"] for each in mine]),
            "seconds, ratio to ours": f"{np.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            "with start, s": np.median([each["whole_s"] for each in mine]),
            "of processors, s": np.median([each["cpu_s"] for each in mine]),
            "peak MiB": max(each["peak_mib"] for each in mine),
            "same species as ours": f"{same:.1%}",
        }
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory or another MODEL")
    parser.add_argument("--peers", help="Python with librosa and opensoundscape; without, only watkins_ml is measured")
    parser.add_argument("--hours", type=float, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--way", "--recording", "--result"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        seconds, values, _ = WAYS[options.way](options.run, Path(options.recording))
        result = {"seconds": seconds, "peak_mib": peak_mib(), "top": values.argmax(axis=1).tolist()}
        Path(options.result).write_text(json.dumps(result))
        return
    if min(options.hours) < 1 / 60 or options.rounds < 1:
        parser.error("--hours must be a minute (0.017) or more, --rounds 1 or more")
    if options.peers and not shutil.which(options.peers):
        parser.error(f"--peers {options.peers}: not a Python that can be run")
    ways = {way: options.peers for way in WAYS if options.peers} | {"watkins": sys.executable}
    for hours in options.hours:
        found = []
        with tempfile.TemporaryDirectory() as folder:
            recording = Path(folder) / "recording.wav"
            generate(recording, round(60 * hours))
            for turn in range(options.rounds):
                for way in list(ways)[:: -1 if turn % 2 else 1]:
                    found.append(measure(way, ways[way], options.run, recording) | {"round": turn})
                    if way == "watkins" and "problem" in found[-1]:
                        sys.exit(f"watkins: {found[-1]['problem']}")
                    print({key: value for key, value in found[-1].items() if key != "top"}, file=sys.stderr)
        print(f"{hours:g} h at 48 kHz, {os.cpu_count()} cores, {options.rounds} rounds in turns, medians (range)")
        print(table(found, hours).to_string(float_format="{:.1f}".format), flush=True)


if __name__ == "__main__":
    main()
