"""The picture of an explanation: a spectrogram, and below it the same with what the network looked at."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from watkins_ml.audio.frontend import Frontend
from watkins_ml.evaluation.lettering import legible

LOWEST_TICK = 125
"""Hz; the ticks above it are its octaves."""
NEAREST_TICKS = 0.06
"""Share of the height by which two ticks are apart at least, so that both can be read."""
MOST_LINES = 100
"""Of a click that is repeated, no more lines than can be told apart."""
LOOKED_AT = LinearSegmentedColormap.from_list("looked at", [(0.90, 0.62, 0.0, 0.0), (0.84, 0.37, 0.0, 0.8)])
"""Orange to vermilion (Okabe and Ito 2008), transparent where nothing was found."""


def attribution_picture(
    frontend: Frontend,
    spectrogram: np.ndarray,
    attribution: np.ndarray,
    start_s: float,
    sound_s: float,
    title: str,
    below: str,
    method: str = "Grad-CAM",
) -> Figure:
    """A log-mel spectrogram, and the same in grey below what a network looked at, with a line at half of the strongest.

    Args:
        spectrogram: (n_mels, frames).
        attribution: of the same shape, 0 to 1.
        start_s: seconds of the recording at which the window begins.
        sound_s: seconds until the sound is repeated; dashed lines show where.
        title: bold, above all.
        below: a line under it.
        method: by which `attribution` was found.
    """
    settings = frontend.settings
    half_hop = settings.hop_length / settings.sample_rate / 2
    times = np.array([-half_hop, settings.seconds + half_hop]) + start_s  # a frame lies around its sample
    place = {"origin": "lower", "aspect": "auto", "extent": (*times, -0.5, settings.n_mels - 0.5)}
    low, high = np.percentile(spectrogram, [1, 99.7])
    fig = Figure(figsize=(7.5, 5.6), layout="constrained")
    FigureCanvasAgg(fig)
    fig.suptitle(legible(title, limit=70), fontsize=12, weight="bold")
    above, under = fig.subplots(2, 1, sharex=True, sharey=True)
    shown = {"vmin": low, "vmax": high, "interpolation": "nearest", **place}  # interpolated noise makes large files
    above.imshow(spectrogram, cmap="magma", **shown)
    above.set_title(legible(below, limit=110), fontsize=9)
    under.imshow(spectrogram, cmap="gray", **shown)
    under.imshow(attribution, cmap=LOOKED_AT, vmin=0, vmax=1, **place)
    if attribution.max() > 0.5:
        under.contour(attribution, levels=[0.5], colors="white", linewidths=1, origin="lower", extent=place["extent"])
    repeats = np.arange(start_s + sound_s, start_s + settings.seconds - half_hop, sound_s)
    dashed = "; dashed: the sound is repeated" if len(repeats) else ""
    under.set_title(f"orange: what speaks for it ({method}); line: half of the strongest{dashed}", fontsize=9)
    for axes in (above, under):
        for time in repeats[:MOST_LINES]:
            axes.axvline(time, color="white", ls="--", lw=0.9)
        axes.set_ylabel("frequency (Hz)")
    _octaves(under, frontend)
    under.set_xlim(*times)
    under.set_xlabel("time in the recording (s)")
    return fig


def _octaves(axes: Axes, frontend: Frontend) -> None:
    settings = frontend.settings
    hertz = [tick for octave in range(11) if settings.f_min <= (tick := LOWEST_TICK << octave) <= settings.highest]
    if len(hertz) < 2:
        hertz = [round(settings.f_min), round(settings.highest)]
    edges = -0.5, settings.n_mels - 0.5  # the highest frequency lies half a band above the picture, the lowest below
    bands = np.clip([frontend.band(each) for each in hertz], *edges)
    shown = [0]
    for tick in range(1, len(hertz)):  # on a mel scale low octaves are close together
        if bands[tick] - bands[shown[-1]] >= NEAREST_TICKS * settings.n_mels:
            shown.append(tick)
    axes.set_yticks(bands[shown], [f"{hertz[tick]:,}" for tick in shown])
