"""Long recordings in which two species call alone and together, with their table: the task `labels` in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from watkins_ml.audio.settings import FrontendSettings

RATE = 2_000
PITCH = {"Orca": 250, "Walrus": 700}
"""Hz of each species' tone."""
FRONTEND = FrontendSettings.at(RATE, 1.01, n_mels=32)
"""Windows of one second and a sample."""
SECONDS = 20


def write_duets(folder: Path, recordings: int = 9) -> Path:
    """`audio/` and `calls.csv`: in each recording Orca, Walrus, both at once, and silence, at times of its own."""
    rows = []
    (folder / "audio").mkdir(parents=True)
    for number in range(recordings):
        rng = np.random.default_rng(number)
        sound = 0.02 * rng.standard_normal(SECONDS * RATE)
        time = np.arange(len(sound)) / RATE
        shift = float(rng.uniform(0, 1.5))
        calls = [("Orca", 1, 3), ("Walrus", 5, 7), ("Orca", 9.5, 12), ("Walrus", 10, 12.5), ("Orca", 15, 16)]
        for species, start, end in calls:
            span = (time >= start + shift) & (time < end + shift)
            sound[span] += 0.2 * np.sin(2 * np.pi * PITCH[species] * time[span])
            rows.append((f"duet{number}.wav", start + shift, end + shift, species))
        soundfile.write(folder / "audio" / f"duet{number}.wav", sound, RATE, subtype="PCM_16")
    pd.DataFrame(rows, columns=["file", "start_s", "end_s", "species"]).to_csv(folder / "calls.csv", index=False)
    return folder
