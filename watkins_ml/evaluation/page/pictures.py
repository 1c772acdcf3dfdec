"""Pictures inside a page: data URIs that fit its size."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from watkins_ml.evaluation import plots
from watkins_ml.evaluation.runs import ComparedRun, damage

# Figures are drawn at plots.DPI for print; on a page they are shown smaller, and sharp on dense screens.
PIXELS_PER_CSS_PIXEL = 1.7
MOST_PIXELS = 60_000_000
"""Of a picture of a run; the largest that are drawn have half as many."""
FIGURES = {
    "stripplot": ("Confidence by species", "Confidence of each test cut by true species, right or wrong"),
    "precision_recall": ("Precision and recall", "Precision against recall of each species, at every threshold"),
    "reliability": ("Calibration", "Accuracy by confidence, with the number of cuts at each confidence"),
    "risk_coverage": ("Risk and coverage", "Share of wrong answers, when only the surest cuts are answered"),
}


class Picture(NamedTuple):
    run: str
    caption: str
    alt: str
    source: str  # data URI
    width: int  # CSS pixels


class Figure(NamedTuple):
    title: str
    pictures: list[Picture]


def figures(runs: list[ComparedRun], budget: int) -> list[Figure]:
    """Each kind of figure with a picture of every run that has one."""
    drawn = []
    for name, (title, caption) in FIGURES.items():
        files = [(run, run.run_dir / "plots" / f"test_{name}.png") for run in runs]
        pictures = [picture_file(path, run.title, caption, budget) for run, path in files if path.is_file()]
        if pictures:
            drawn.append(Figure(title, pictures))
    return drawn


def learning_curves(runs: list[ComparedRun], budget: int) -> Picture:
    """The learning curves of all runs in one figure, but for ensembles, which have none."""
    runs = [run for run in runs if not run.info.get("members")] or runs
    best = {run.title: run.best_epoch for run in runs}
    drawn = plots.draw(plots.learning_curves({run.title: run.history for run in runs}, best))
    names = ", ".join(run.title for run in runs)
    caption = "Loss, accuracy and macro F1 by epoch: validation solid, training dashed, best epoch starred"
    return picture(drawn, names, caption, budget)


def picture_file(path: Path, run: str, caption: str, budget: int, jpeg: bool = False) -> Picture:
    with damage(path), Image.open(path, formats=["PNG"]) as image:
        if image.width * image.height > MOST_PIXELS:  # a small file can hold gigabytes
            raise ValueError(f"{image.width} by {image.height} pixels")
        return picture(image, run, caption, budget, jpeg)


def picture(image: Image.Image, run: str, caption: str, budget: int, jpeg: bool = False) -> Picture:
    """Encode `image` as a data URI of at most `budget` bytes before base64, smaller where it must be."""
    image = image.convert("RGB")
    width = round(image.width / PIXELS_PER_CSS_PIXEL)
    while len(encoded := _encode(image, jpeg)) > budget:
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
    return Picture(run, caption, f"{caption}: {run}", data_uri(encoded, "image/jpeg" if jpeg else "image/png"), width)


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _encode(image: Image.Image, jpeg: bool) -> bytes:
    buffer = io.BytesIO()
    if jpeg:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    else:
        # Plots hold few colours: a palette makes them three times smaller.
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
