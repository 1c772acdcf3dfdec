"""Synthetic calls of eight marine mammals, drawn after their published descriptions.

Every call function has the signature ``call(rng, rate, seconds)``: it returns `seconds` of audio sampled at
`rate` hertz, float64 with a peak of about one, holding at least one whole call. Where no animal is calling
the samples are exactly zero, so the extent of the calls can be read off the result. Frequencies are in hertz
and times in seconds throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from watkins_ml.demo.synthesis import Rng, envelope, harmonics, onset_times, place, positions


def fin_whale(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """20-Hz pulses of the fin whale: Watkins, Tyack, Moore & Bird (1987), J. Acoust. Soc. Am. 82:1901-1912.

    Each pulse sweeps down from about 23 to 18 Hz in about 1 s. In nature pulses recur every 10-20 s or so;
    to fit several into a cut the repetition is compressed tenfold, to 1.2-2 s from onset to onset, while
    pitch and duration of the pulse itself are kept.
    """
    length = min(rng.uniform(0.8, 1.1), 0.9 * seconds)
    u = positions(length, rate)
    frequency = rng.uniform(22, 24) + (rng.uniform(17, 19) - 23) * u
    pulse = harmonics(frequency, rate, [1.0]) * envelope(u, 0.25, 0.35)
    onsets = onset_times(rng, seconds, rng.uniform(1.2, 2.0), length, 0.03)
    return place(seconds, rate, [(t, pulse * rng.uniform(0.8, 1)) for t in onsets])


def bowhead_whale(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Moans of the bowhead whale: Clark & Johnson (1984), Can. J. Zool. 62:1436-1441.

    Simple frequency-modulated moans, most of them below 400 Hz and about 1 s long: rising, falling, level or
    inflected. Here the fundamental stays within about 60-350 Hz for 0.5-1.4 s (less in a shorter cut), with
    two weaker harmonics.
    """
    length = min(rng.uniform(0.5, 1.4), 0.9 * seconds)
    u = positions(length, rate)
    slope = rng.choice([-0.7, -0.3, 0.0, 0.3, 0.7]) * rng.uniform(0.7, 1.1)
    bend = rng.choice([-0.4, 0.0, 0.4])
    frequency = rng.uniform(110, 200) * 2 ** (slope * (u - 0.5) + bend * np.sin(np.pi * u))
    weights = [1.0, rng.uniform(0.1, 0.4), rng.uniform(0.02, 0.15)]
    moan = harmonics(frequency, rate, weights) * envelope(u, 0.2, 0.4)
    onsets = onset_times(rng, seconds, length + rng.uniform(0.4, 1.5), length, 0.05)
    return place(seconds, rate, [(t, moan * rng.uniform(0.6, 1)) for t in onsets])


def humpback_whale(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Song units of the humpback whale: Payne & McVay (1971), Science 173:585-597.

    Harmonic, frequency-modulated units between about 100 and 4000 Hz, here 0.15-0.9 s long and 0.1-0.35 s
    apart; two or three kinds of unit follow each other in a phrase, and the phrase is repeated.
    """
    longest = min(0.9, 0.6 * seconds)
    phrase = [_humpback_unit(rng, rate, rng.uniform(0.15, longest)) for _ in range(rng.integers(2, 4))]
    gap = rng.uniform(0.1, 0.35)
    onset = rng.uniform(0, 0.3 * seconds)
    events: list[tuple[float, np.ndarray]] = []
    for unit in phrase * 20:
        end = onset + len(unit) / rate
        if events and end > seconds:
            break
        events.append((onset, unit * rng.uniform(0.7, 1)))
        onset = end + gap * rng.uniform(0.9, 1.1)
    return place(seconds, rate, events)


def _humpback_unit(rng: Rng, rate: int, length: float) -> np.ndarray:
    """One unit: a gliding fundamental of 140-900 Hz, slightly wavering, with the harmonics up to 3800 Hz."""
    u = positions(length, rate)
    glide = rng.uniform(-1.0, 1.0)
    waver = rng.uniform(0, 0.06) * np.sin(2 * np.pi * rng.uniform(2, 6) * u)
    frequency = 140 * (900 / 140) ** rng.uniform() * 2 ** (glide * (u - 0.5) + waver)
    partials = int(min(8, 3800 / frequency.max()))
    unit = harmonics(frequency, rate, rng.uniform(0.5, 0.75) ** np.arange(partials))
    return unit / np.abs(unit).max() * envelope(u, 0.15, 0.3)


def sperm_whale(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Clicks of the sperm whale: mostly regular trains (`sperm_clicks`), one time in five a `sperm_creak`."""
    return (sperm_creak if rng.uniform() < 0.2 else sperm_clicks)(rng, rate, seconds)


def sperm_clicks(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Usual clicks: Goold & Jones (1995), J. Acoust. Soc. Am. 98:1279-1291.

    A regular train with 0.5-2 s between clicks. Each click is broadband, here strongest at 1.5-3.5 kHz and
    reaching from some 200 Hz to 9 kHz, and made of three to five pulses 3-7 ms apart, each weaker than the
    last.
    """
    click = _sperm_click(rng, rate)
    interval = min(0.54 * 3.4 ** rng.uniform(), 0.9 * seconds)
    onsets = onset_times(rng, seconds, interval, len(click) / rate, 0.06)
    return place(seconds, rate, [(t, click * rng.uniform(0.7, 1)) for t in onsets])


def sperm_creak(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Creaks before a capture: Miller, Johnson & Tyack (2004), Proc. R. Soc. Lond. B 271:2239-2247.

    Trains of ever faster clicks like those of `sperm_clicks`, but fainter in their later pulses: the interval
    shrinks steadily from 100-180 ms to 20-40 ms over the 0.6-2.5 s of the creak.
    """
    click = _sperm_click(rng, rate, decay=0.3)
    length = min(rng.uniform(0.6, 2.5), 0.9 * seconds)
    slow, fast = rng.uniform(0.10, 0.18), rng.uniform(0.02, 0.04)
    onset = start = rng.uniform(0, seconds - length)
    events = []
    while onset < start + length - len(click) / rate:
        events.append((onset, click * rng.uniform(0.7, 1)))
        onset += slow * (fast / slow) ** ((onset - start) / length)
    return place(seconds, rate, events)


def _sperm_click(rng: Rng, rate: int, decay: float = 0.5) -> np.ndarray:
    """One multi-pulse click of about 30 ms; each pulse has `decay` times the amplitude of the one before."""
    gap, pulses, low = rng.uniform(0.003, 0.007), rng.integers(3, 6), rng.uniform(1500, 3500)
    high = low * rng.uniform(1.5, 2.2)
    t = np.arange(round((gap * pulses + 0.002) * rate)) / rate
    click = np.zeros_like(t)
    for k in range(pulses):
        since = t - 0.001 - k * gap
        click += decay**k * np.exp(-((since / 0.0003) ** 2)) * np.cos(2 * np.pi * low * since)
        click += decay**k * 0.8 * np.exp(-((since / 0.00018) ** 2)) * np.cos(2 * np.pi * high * since)
    return click / np.abs(click).max()


def killer_whale(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Pulsed calls of the killer whale: Ford (1989), Can. J. Zool. 67:727-745; (1991), 69:1454-1483.

    Bursts of pulses whose repetition rate, here 250-1600 Hz, glides and jumps through two to four parts of a
    call of 0.25-1.5 s. The repetition rate sets the spacing of the sidebands, which fill 500 Hz-8 kHz and are
    strongest at 1.5-4 kHz. The same call is repeated every 0.3-1 s.
    """
    length = min(rng.uniform(0.4, 1.5), 0.8 * seconds)
    u = positions(length, rate)
    parts = rng.integers(2, 5)
    part = np.minimum((u * parts).astype(int), parts - 1)
    jumps, slopes = rng.uniform(-0.7, 0.7, parts), rng.uniform(-0.5, 0.5, parts)
    repetition = rng.uniform(450, 750) * 2 ** (jumps[part] + slopes[part] * (u * parts - part))
    call = _sidebands(repetition, rate, centre=rng.uniform(1500, 4000), width=rng.uniform(0.5, 0.9))
    call *= envelope(u, 0.08, 0.15) / np.abs(call).max()
    onsets = onset_times(rng, seconds, length + rng.uniform(0.3, 1.0), length, 0.05)
    return place(seconds, rate, [(t, call * rng.uniform(0.7, 1)) for t in onsets])


def _sidebands(repetition: np.ndarray, rate: int, centre: float, width: float) -> np.ndarray:
    """A pulse train with the given repetition rate: every multiple of it from 500 to 7800 Hz.

    Their amplitudes follow a bell over log frequency, `width` octaves wide (standard deviation) at `centre`.
    """
    phase = 2 * np.pi * np.cumsum(repetition) / rate
    octaves = np.log2(repetition / centre)
    out = np.zeros_like(phase)
    for k in range(1, int(7800 / repetition.min()) + 1):
        heard = (k * repetition > 500) & (k * repetition < 7800)
        out[heard] += np.exp(-0.5 * ((octaves[heard] + np.log2(k)) / width) ** 2) * np.cos(k * phase[heard])
    return out


def bottlenose_dolphin(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Signature whistles: Caldwell, Caldwell & Tyack (1990), in The Bottlenose Dolphin, Academic Press.

    Narrow-band whistles of 4-20 kHz, here 0.2-1 s long: one to four loops of a rising and falling contour
    around a carrier of 7-13 kHz, with a faint second harmonic where it stays below 20 kHz. The whistle is
    repeated with its contour every 0.2-0.8 s after the last.
    """
    length = min(rng.uniform(0.25, 1.0), 0.8 * seconds)
    u = positions(length, rate)
    loops, shift = rng.integers(1, 5) * rng.uniform(0.7, 1.0), rng.uniform(0, 2 * np.pi)
    contour = rng.uniform(0.15, 0.5) * np.sin(2 * np.pi * loops * u + shift)
    frequency = rng.uniform(7000, 13000) * 2 ** (contour + rng.uniform(-0.3, 0.3) * (u - 0.5))
    overtone = 0.2 if 2 * frequency.max() < 20000 else 0.0
    whistle = harmonics(frequency, rate, [1.0, overtone]) * envelope(u, 0.15, 0.15)
    onsets = onset_times(rng, seconds, length + rng.uniform(0.2, 0.8), length, 0.05)
    return place(seconds, rate, [(t, whistle * rng.uniform(0.6, 1)) for t in onsets])


def walrus(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Knocks and bell tones of the walrus: Schevill, Watkins & Ray (1966), Zoologica 51:103-106.

    Short knocks, here 30 ms bursts ringing at 400-1200 Hz with energy from some 200 Hz to 4 kHz, repeated
    steadily two to eight times a second; in two cuts of five the last is followed by a bell tone of
    400-1200 Hz that rings for 0.6-1.5 s, if the cut leaves it room.
    """
    knock = _knock(rng, rate)
    length = rng.uniform(0.6, 1.5) if rng.uniform() < 0.4 else 0.0
    room = seconds - length if length < 0.6 * seconds else seconds
    interval = 0.125 * 4 ** rng.uniform()
    onsets = onset_times(rng, room, min(interval, 0.9 * room), len(knock) / rate, 0.08)
    events = [(t, knock * rng.uniform(0.6, 1)) for t in onsets]
    if 0 < length < 0.6 * seconds:
        u = positions(length, rate)
        ring = harmonics(np.full(len(u), rng.uniform(400, 1200)), rate, [0.6, 0.15])
        events.append((onsets[-1], ring * np.exp(-3 * u) * envelope(u, 0.02, 0.2)))
    return place(seconds, rate, events)


def _knock(rng: Rng, rate: int) -> np.ndarray:
    """One knock of 30 ms: two damped resonances, struck within half a millisecond."""
    t = np.arange(round(0.03 * rate)) / rate
    low, high = rng.uniform(400, 1200), rng.uniform(1400, 2600)
    knock = np.exp(-t / 0.007) * np.sin(2 * np.pi * low * t)
    knock += 0.8 * np.exp(-t / 0.003) * np.sin(2 * np.pi * high * t)
    return knock / np.abs(knock).max() * envelope(t / 0.03, 0.02, 0.3)


def bearded_seal(rng: Rng, rate: int, seconds: float) -> np.ndarray:
    """Trills of the bearded seal: Cleator, Stirling & Smith (1989), Can. J. Zool. 67:1900-1910.

    A long trill that falls from several kilohertz to a few hundred hertz with a rapid warble. Natural trills
    last up to a minute and more; here the fall, from 2-5 kHz to 300-900 Hz, is compressed into 55-95 % of the
    cut, and the carrier warbles 6-14 times a second by 3-8 %.
    """
    length = seconds * rng.uniform(0.55, 0.95)
    u = positions(length, rate)
    high, low = rng.uniform(2000, 5000), rng.uniform(300, 900)
    warble = rng.uniform(0.03, 0.08) * np.sin(2 * np.pi * rng.uniform(6, 14) * length * u)
    frequency = high * (low / high) ** (u ** rng.uniform(0.7, 1.4)) * (1 + warble)
    trill = harmonics(frequency, rate, [1.0]) * envelope(u, 0.1, 0.2)
    return place(seconds, rate, [(rng.uniform(0, seconds - length), trill)])


@dataclass(frozen=True)
class Species:
    """A species of the ocean: its call, the call's band in hertz, and how it was recorded.

    `rates` are the native sample rates of its tapes in hertz, all of which leave the band room below Nyquist;
    `seconds` is the range of its cuts' durations; `share` is its clips among 360, spread over `tapes` tapes.
    """

    name: str
    call: Callable[[Rng, int, float], np.ndarray]
    band: tuple[float, float]
    rates: tuple[int, ...]
    seconds: tuple[float, float]
    share: int
    tapes: int


# The most common species comes first: it takes up the rounding when there are more or fewer clips than 360.
SPECIES = (
    Species("SpermWhale", sperm_whale, (200, 9000), (22050, 44100, 96000), (1.0, 4.0), 140, 9),
    Species("HumpbackWhale", humpback_whale, (90, 4000), (10000, 16000, 22050, 44100), (0.8, 5.0), 50, 8),
    Species("KillerWhale", killer_whale, (500, 8000), (22050, 44100, 96000), (0.5, 3.0), 40, 7),
    Species("BottlenoseDolphin", bottlenose_dolphin, (4000, 20000), (44100, 96000), (0.3, 2.5), 32, 7),
    Species("BowheadWhale", bowhead_whale, (50, 1000), (10000, 16000, 22050, 44100), (0.7, 4.0), 26, 6),
    Species("FinWhale", fin_whale, (15, 28), (10000, 16000, 22050), (1.3, 5.0), 24, 6),
    Species("BeardedSeal", bearded_seal, (250, 6000), (16000, 22050, 44100), (2.0, 5.0), 24, 6),
    Species("Walrus", walrus, (200, 4000), (10000, 16000, 22050, 44100), (0.4, 4.0), 24, 6),
)
