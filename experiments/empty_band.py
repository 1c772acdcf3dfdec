"""How much a network leans on the band above what a recorder could hold: its answers with that band filled.

For the tested cuts of one species with one native sample rate: the mean probability of that species as they are, with
the empty bands filled by those just below, and with everything below a frequency flattened (where the call may be).

Example: python experiments/empty_band.py results/real/watkins10/runs/baseline/fold-1 ../shared/data/watkins10 \
  --species BowheadWhale --rate 10000 --below 800
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from watkins_ml.core.errors import UserError
from watkins_ml.models.bundle import Classifier, load_bundle

EDGE = 0.92
"""Share of half the native rate up to which a recorder's filter lets sound through."""


def probabilities(classifier: Classifier, path: Path, label: int, rate: int, below: float) -> np.ndarray | None:
    """Of the species, for the spectrogram as it is, filled above, flattened below; None for another native rate."""
    recording = classifier.frontend.read(path)
    if recording.sample_rate != rate:
        return None
    spectrogram = classifier.frontend.recording(recording)
    edge = int(classifier.frontend.band(EDGE * rate / 2))
    filled, flat = spectrogram.clone(), spectrogram.clone()
    missing = spectrogram.shape[1] - edge
    filled[0, edge:] = spectrogram[0, edge - missing : edge]
    low = int(classifier.frontend.band(below))
    flat[0, :low] = spectrogram[0, :low].median(dim=1, keepdim=True).values
    return classifier.probabilities(each.unsqueeze(0) for each in (spectrogram, filled, flat))[:, label]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a training or of a fold")
    parser.add_argument("recordings", type=Path, help="the folder that it was prepared from")
    parser.add_argument("--species", default="BowheadWhale")
    parser.add_argument("--rate", type=int, default=10_000, help="native sample rate in Hz")
    parser.add_argument("--below", type=float, default=800.0, help="Hz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        classifier = load_bundle(options.run / "model")
        label = classifier.label(options.species)
    except UserError as error:
        sys.exit(f"error: {error}")
    tested = pd.read_csv(options.run / "preds" / "test.csv", dtype=str, keep_default_na=False)
    paths = tested.loc[tested["species"] == options.species, "path"]
    every = [probabilities(classifier, options.recordings / path, label, options.rate, options.below) for path in paths]
    found = [each for each in every if each is not None]
    if not found:
        sys.exit(f"error: {options.run} has tested no {options.species} of {options.rate} Hz")
    as_is, filled, flat = np.mean(found, axis=0)
    print(f"{len(found)} tested cuts of {options.species} with {options.rate} Hz, mean probability of that species:")
    print(f"as they are {as_is:.0%}; empty band filled {filled:.0%}; below {options.below:g} Hz flattened {flat:.0%}")


if __name__ == "__main__":
    main()
