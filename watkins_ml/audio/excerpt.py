"""The sound behind a spectrogram as a small file that every browser plays."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr

from watkins_ml.audio.decode import Recording
from watkins_ml.audio.frontend import Frontend

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
PEAK = 0.9
COMPRESSION = 0.6
"""libsndfile's scale of 0 to 1 for variable bit rates: four seconds at 16 kHz take about 15 kB."""


def mp3_excerpt(recording: Recording, frontend: Frontend) -> bytes:
    """The seconds of a recording that its spectrogram shows, at equal loudness whatever the recording's own level.

    The same recording gives the same bytes (an Ogg file would carry a random serial number).

    Args:
        recording: as `frontend.read` gives it.
    """
    level = recording.waveform - recording.waveform.mean()  # an offset would ring at both ends, louder than the call
    return mp3(frontend.sound(level, recording.sample_rate).numpy(), frontend.settings.sample_rate)


def mp3(audio: np.ndarray, rate: int) -> bytes:
    """Mono float32 samples at a rate in Hz, as loud as they can be."""
    playable = next((known for known in MP3_RATES if known >= rate), MP3_RATES[-1])
    if playable != rate:
        audio = soxr.resample(audio, rate, playable)
    audio = audio * (PEAK / max(float(np.abs(audio).max()), 1e-9))
    file = io.BytesIO()
    soundfile.write(
        file, audio, playable, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE",
        compression_level=COMPRESSION,
    )  # fmt: skip
    return file.getvalue()
