"""What masking is worth: both ways are scored on the windows of which something is known, and on no other."""

from __future__ import annotations

import masked
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score


def test_only_known_windows_count_and_the_gain_is_of_the_same_draws():
    rng = np.random.default_rng(0)
    true = rng.random(120) < 0.5
    paths = [f"{number}.wav" for number in range(120)]
    tapes = [f"recording {number // 20}" for number in range(120)]

    def table(noise: float, targets: list[str]) -> pd.DataFrame:
        scores = true + noise * rng.standard_normal(120)
        columns = {"path": paths, "tape": tapes, "targets": targets, "answers": (scores > 0.5).astype(int).astype(str)}
        return pd.DataFrame(columns | {"p_Humpback": scores}).set_index("path")

    known = [("-" if number % 3 == 0 else str(int(each))) for number, each in enumerate(true)]
    tables = masked.on_known({"masked": table(0.3, known), "unmarked is noise": table(2.0, ["0"] * 120)})
    for each in tables.values():
        assert len(each) == 80 and set(each["targets"]) == {"0", "1"}
    found, gain = masked.average_precision_of(tables)
    right = tables["masked"]["targets"] == "1"
    for way, each in tables.items():
        assert found[way].value == pytest.approx(average_precision_score(right, each["p_Humpback"]))
    assert gain.value == pytest.approx(found["masked"].value - found["unmarked is noise"].value)
    assert 0 < gain.low < gain.value < gain.high
