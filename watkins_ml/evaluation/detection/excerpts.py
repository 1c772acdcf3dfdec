"""Single errors of a detector to look at and to listen to: the recording around a missed call or a false alarm."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.excerpt import mp3
from watkins_ml.audio.stretches import read_stretches
from watkins_ml.evaluation.page.pictures import data_uri

EACH = 6
"""So many false alarms and so many misses of a species, at most."""
MOST = 150
"""Of all species."""
MOST_BYTES = 9_000_000
"""Of pictures and sounds as data URIs; what is above has no sound, then no picture."""
SIZE = (400, 128)
"""Pixels."""
LONGEST_S = 15.0
CALL, DETECTION = "#00e5c3", "#ff9d3c"
"""The frames of calls and of detections."""


class Excerpt(NamedTuple):
    species: str
    verdict: str
    where: str
    """Recording and times, in words."""
    score: str
    picture: str  # data URI; empty where there is none
    sound: str  # data URI; empty where there is none
    silent: str  # why there is none


def chosen_errors(verdicts: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The rows of `verdict_rows` that are shown: the surest false alarms and some misses of each species, by species.

    Misses are drawn, since none is worse than another. With many species each has fewer.
    """
    wrong = verdicts[verdicts["verdict"].isin(["false alarm", "miss"])]
    each = max(1, min(EACH, MOST // max(2 * wrong["species"].nunique(), 1)))
    false = wrong[wrong["verdict"] == "false alarm"].sort_values("score", ascending=False, kind="stable")
    missed = wrong[wrong["verdict"] == "miss"].sample(frac=1, random_state=seed)
    shown = [false.groupby("species").head(each), missed.groupby("species").head(each).sort_index()]
    table = pd.concat(shown).sort_values(["species", "verdict"], kind="stable", ignore_index=True)
    return table.head(MOST)


def excerpts(
    shown: pd.DataFrame, verdicts: pd.DataFrame, root: Path, window_s: float, highest_hz: float
) -> list[Excerpt]:
    """Picture and sound of each row of `chosen_errors`.

    Args:
        window_s: what the model hears at once, in seconds; so much is shown before and after.
        highest_hz: the top of the spectrogram, where the recording reaches so high.
    """
    made, left = [], MOST_BYTES
    for row in shown.itertuples():
        picture = sound = silent = ""
        try:
            content, heard = _excerpt(row, verdicts, root, window_s, highest_hz)
            picture, sound = data_uri(content, "image/jpeg"), data_uri(heard, "audio/mpeg")
        except AudioError as error:
            silent = str(error)
        if len(picture) + len(sound) > left:
            sound, silent = "", "left out to keep this page small"
            picture = picture if len(picture) <= left else ""
        left -= len(picture) + len(sound)
        channel = f", channel {row.channel}" if row.channel else ""
        where = f"{row.recording}, {row.start_s:,.2f}–{row.end_s:,.2f} s{channel}"
        score = "" if np.isnan(row.score) else f"{row.score:.2f}"
        made.append(Excerpt(row.species, row.verdict, where, score, picture, sound, silent))
    return made


def _excerpt(row: Any, verdicts: pd.DataFrame, root: Path, window_s: float, highest_hz: float) -> tuple[bytes, bytes]:
    import soundfile

    from watkins_ml.audio.opening import open_audio

    around = max(window_s, 0.5 * (row.end_s - row.start_s))
    length = min(row.end_s - row.start_s + 2 * around, max(LONGEST_S, window_s))
    begin = max(0.0, (row.start_s + row.end_s) / 2 - length / 2)
    try:
        with open_audio(root / row.recording) as audio:
            rate, frames = audio.samplerate, audio.frames
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"unreadable: {error}") from None
    start = min(round(begin * rate), max(frames - 1, 0))
    (stretch,) = read_stretches(root / row.recording, [start], min(round(length * rate), frames - start), row.channel)
    if stretch.problem:
        raise AudioError(stretch.problem)
    seconds = len(stretch.waveform) / rate
    same = verdicts[
        (verdicts["recording"] == row.recording)
        & (verdicts["channel"] == row.channel)
        & (verdicts["species"] == row.species)
    ]
    boxes = _boxes(same, start / rate, start / rate + seconds)
    return _picture(stretch.waveform, rate, boxes, highest_hz), mp3(stretch.waveform, rate)


def _boxes(verdicts: pd.DataFrame, begin: float, end: float) -> list[tuple[float, float, str]]:
    """Shares of the picture's width from and to, and colour, of the calls and the detections between two times."""
    is_call = verdicts["verdict"] == "miss"
    found_calls = verdicts[["call_start_s", "call_end_s"]].dropna().set_axis(["start_s", "end_s"], axis=1)
    calls = pd.concat([verdicts.loc[is_call, ["start_s", "end_s"]], found_calls])
    found = []
    for table, colour in ((calls, CALL), (verdicts.loc[~is_call, ["start_s", "end_s"]], DETECTION)):
        near = table[(table["end_s"] > begin) & (table["start_s"] < end)]
        shares = (near.to_numpy(float) - begin) / (end - begin)
        found += [(low, high, colour) for low, high in shares.tolist()]
    return found


def _picture(waveform: np.ndarray, rate: int, boxes: list[tuple[float, float, str]], highest_hz: float) -> bytes:
    """A spectrogram as JPEG, low frequencies at the bottom; calls are framed, and detections underlined."""
    levels = _levels(waveform, rate, highest_hz)
    low, high = np.percentile(levels, [5, 99.7])
    shade = np.clip((levels - low) / max(high - low, 1e-9), 0, 1)
    pixels = matplotlib.colormaps["magma"](shade[::-1], bytes=True)[..., :3]
    image = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for left, right, colour in boxes:
        first = round(max(left, -0.1) * SIZE[0])
        last = max(first + 2, round(min(right, 1.1) * SIZE[0]) - 1)
        if colour == CALL:
            is_middle = left < 0.5 < right  # the one that the picture is about, but at the ends of a recording
            draw.rectangle([first, 2, last, SIZE[1] - 9], outline=colour, width=3 if is_middle else 1)
        else:
            draw.rectangle([first, SIZE[1] - 6, last, SIZE[1] - 1], fill=colour)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75, subsampling=0)
    return file.getvalue()


def _levels(waveform: np.ndarray, rate: int, highest_hz: float) -> np.ndarray:
    """Decibels, (bins, frames), up to `highest_hz`, of a short-time Fourier transform about as wide as the picture."""
    size = int(2 ** np.clip(np.round(np.log2(len(waveform) / 100)), 6, 11))
    step = max(1, len(waveform) // SIZE[0], size // 8)
    padded = np.pad(waveform - waveform.mean(), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)).T ** 2
    bins = max(2, min(len(power), round(highest_hz / rate * size) + 1))
    return 10 * np.log10(power[:bins] + 1e-12 * power.max() + 1e-20)
