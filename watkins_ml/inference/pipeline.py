"""`watkins predict` over time, from top to bottom.

find (`recordings`) → decode and cut into windows (`windows`) → frontend, network, calibration (`scores`), through the
cache (`cache`) → merge into detections (`detections`) → write (`formats`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from watkins_ml.inference.cache import ScoreCache
from watkins_ml.inference.detections import DetectionOptions, RecordingDetections, all_rows, detect
from watkins_ml.inference.formats import Output, write_outputs
from watkins_ml.inference.scores import score_with_progress
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import Classifier


@dataclass(frozen=True)
class PipelineResult:
    """The detections in some recordings, and where they were written."""

    recordings: list[RecordingDetections]
    """In the order in which they were given."""
    written: list[Path] = field(default_factory=list)
    earlier: int = 0
    """How many recordings of earlier commands are in the folder, and so in its tables, too."""

    @property
    def rows(self) -> pd.DataFrame:
        """The detections in all recordings as one table."""
        return all_rows(self.recordings)


def predict_recordings(
    classifier: Classifier,
    files: list[Path],
    options: DetectionOptions,
    window_options: WindowOptions,
    cache: ScoreCache | None = None,
    formats: tuple[str, ...] = (),
) -> PipelineResult:
    """Detect species in recordings and, with a cache, write tables of detections in `formats` to its folder.

    These are of all recordings in the cache. Only the detections of recordings that are done stay in memory, not the
    scores of their windows.

    Raises:
        UserError: the disk does not take the files.
    """
    compute = partial(score_with_progress, classifier, options=window_options)
    scores = compute(files) if cache is None else cache.get_or_compute(files, compute)
    found = {each.path: detect(each, classifier.classes, options, classifier.temperature) for each in scores}
    recordings = [found[path] for path in files]
    if cache is None:
        return PipelineResult(recordings)
    outputs = [Output(cache.name(each.path), each.path.absolute(), each) for each in recordings if each.readable]
    with cache.writing_tables(options) as same:
        earlier = [
            Output(name, location, detect(scores, classifier.classes, options, classifier.temperature))
            for name, location, scores in cache.others({each.name for each in outputs})
        ]
        unchanged = {each.name for each in earlier} if same else set()
        frontend = classifier.frontend.settings
        written = write_outputs(cache.folder, formats, outputs + earlier, unchanged, (frontend.f_min, frontend.highest))
    return PipelineResult(recordings, written, len(earlier))
