"""Writes `tests/fixtures/psds.json`: random recordings and their PSDS by the public package `sed-scores-eval` (0.0.4).

The package is no part of the development tools: it works neither with pandas 3 nor with today's setuptools, and brings
a `pathlib` for Python 2. To make the file again, install it with `setuptools<81` and `pandas<3` elsewhere and run this.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

RULES = [
    {"dtc": 0.7, "gtc": 0.7, "cttc": None, "alpha_ct": 0.0, "alpha_st": 1.0, "most_fp": 3000.0},
    {"dtc": 0.5, "gtc": 0.5, "cttc": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0, "most_fp": 2000.0},
    {"dtc": 0.4, "gtc": 0.3, "cttc": 0.2, "alpha_ct": 1.0, "alpha_st": 0.0, "most_fp": 600.0},
    {"dtc": 0.7, "gtc": 0.7, "cttc": None, "alpha_ct": 0.0, "alpha_st": 0.3, "most_fp": 1000.0},
]


def random_case(seed: int) -> dict:
    """Recordings of equal windows that touch, with scores that know something of the calls."""
    rng = np.random.default_rng(seed)
    species, recordings, length = "abc"[: 2 + seed % 2], [], 0.5
    for _ in range(3):
        count = int(rng.integers(20, 40))
        calls = {name: [] for name in species}
        scores = rng.random((count, len(species)))
        for at, name in enumerate(species):
            begin = float(rng.uniform(0, 3))
            while begin + 0.3 < count * length:
                end = min(begin + float(rng.uniform(0.3, 3)), count * length)
                calls[name].append([round(begin, 3), round(end, 3)])
                middles = (np.arange(count) + 0.5) * length
                scores[(middles > begin) & (middles < end), at] += 0.4 * rng.random()
                begin = end + float(rng.uniform(0.5, 9))
        recordings.append({"scores": scores.round(2).tolist(), "calls": calls})
    return {"species": species, "length": length, "recordings": recordings}


def oracle(case: dict, rule: dict) -> float:
    from sed_scores_eval import intersection_based
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    scores, truth, durations = {}, {}, {}
    for number, each in enumerate(case["recordings"]):
        values = np.array(each["scores"])
        stamps = np.arange(len(values) + 1) * case["length"]
        frame = create_score_dataframe(values, stamps, list(case["species"]))
        assert isinstance(frame, pd.DataFrame)
        scores[f"r{number}"], durations[f"r{number}"] = frame, stamps[-1]
        truth[f"r{number}"] = [(*span, name) for name, spans in each["calls"].items() for span in spans]
    value, *_ = intersection_based.psds(
        scores, truth, durations, dtc_threshold=rule["dtc"], gtc_threshold=rule["gtc"], cttc_threshold=rule["cttc"],
        alpha_ct=rule["alpha_ct"], alpha_st=rule["alpha_st"], max_efpr=rule["most_fp"],
    )  # fmt: skip
    return float(value)


if __name__ == "__main__":
    cases = [random_case(seed) for seed in range(6)]
    for case in cases:
        case["psds"] = [oracle(case, rule) for rule in RULES]
        print(case["psds"])
    path = Path(__file__).parents[1] / "fixtures" / "psds.json"
    path.write_text(json.dumps({"rules": RULES, "cases": cases}, separators=(",", ":")) + "\n")
