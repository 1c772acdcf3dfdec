import io
import threading

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from watkins_ml.evaluation import calibration_plots, plots
from watkins_ml.evaluation.selective import risk_coverage


def history(epochs: int = 4) -> pd.DataFrame:
    values = np.linspace(1, 0.2, epochs)
    columns = ["train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_macro_f1", "learning_rate"]
    return pd.DataFrame({"epoch": range(1, epochs + 1), **dict.fromkeys(columns, values)})


def species(count: int) -> list[str]:
    return [f"Short_Finned(Pacific)Whale{i:03}" for i in range(count)]


def inside(fig) -> bool:
    """Whether all that the figure holds, text included, lies on the canvas."""
    fig.draw_without_rendering()  # settles the layout
    drawn, canvas = fig.get_tightbbox(), fig.bbox_inches
    return min(drawn.x0, drawn.y0, canvas.x1 - drawn.x1, canvas.y1 - drawn.y1) > -0.02


def test_learning_curves_hold_every_run_and_mark_the_best_epoch():
    fig = plots.learning_curves({"one": history(), "two": history(6)}, best={"one": 2, "two": 3})
    loss = fig.axes[0]
    assert [axes.get_title() for axes in fig.axes] == ["Loss", "Accuracy", "Macro F1"]
    assert [line.get_linestyle() for line in loss.lines[:2]] == ["-", "--"]
    stars = [line.get_xdata().tolist() for line in loss.lines if line.get_marker() == "*"]
    assert stars == [[2], [3]]
    assert len({line.get_color() for line in loss.lines}) == 2
    assert {"one", "two"} <= {text.get_text() for text in fig.legends[0].get_texts()}


def test_learning_curves_survive_one_epoch_and_a_diverged_run():
    lost = history(1).assign(val_loss=np.nan, train_loss=np.nan)
    assert inside(plots.learning_curves({"one": history(1), "lost": lost}, {"one": 1, "lost": 1}))


@pytest.mark.parametrize("count", [2, 10, 44])
def test_confusion_matrix_writes_counts_and_keeps_labels_on_the_canvas(count):
    labels = np.arange(count).repeat(2)[:-2]  # the last species is absent
    predicted = np.roll(labels, 1)
    fig = plots.confusion_matrix(labels, predicted, species(count))
    axes = fig.axes[0]
    assert len(axes.get_yticklabels()) == count
    assert sum(int(text.get_text()) for text in axes.texts) == len(labels)
    assert axes.get_yticklabels()[-1].get_text().endswith("(0)")
    assert inside(fig)


@pytest.mark.parametrize("count", [1, 44])
def test_stripplot_is_green_right_red_wrong_with_accuracy_and_cuts(count):
    correct = [True] * 3 * count + [False] * count
    frame = pd.DataFrame({"species": species(count) * 4, "confidence": 0.5, "correct": correct})
    fig = plots.stripplot(frame)
    axes = fig.axes[0]
    right, wrong = axes.collections
    assert to_hex(right.get_edgecolor()[0], keep_alpha=False).upper() == plots.RIGHT
    assert to_hex(wrong.get_edgecolor()[0], keep_alpha=False).upper() == plots.WRONG
    assert (len(right.get_offsets()), len(wrong.get_offsets())) == (3 * count, count)
    assert [text.get_text() for text in axes.texts] == ["75%", "of 4"] * count
    again = plots.stripplot(frame).axes[0].collections[0]
    assert np.array_equal(right.get_offsets(), again.get_offsets())
    assert inside(fig)


def test_reliability_shows_counts_and_ece():
    fig = calibration_plots.reliability(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]]))
    above, below = fig.axes
    assert "0.400" in above.get_title()
    assert sum(bar.get_height() for bar in below.patches) == 2
    assert inside(fig)


def test_reliability_stands_beside_the_one_before_calibration():
    sure, unsure = np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([[0.5001, 0.4999]] * 2)
    fig = calibration_plots.reliability(np.array([0, 1]), unsure, uncalibrated=sure)
    before, after, *_ = fig.axes
    assert before.get_title() == "uncalibrated: expected calibration error 0.400"
    assert after.get_title() == "calibrated: expected calibration error 0.000"
    assert [bar.get_height() for bar in before.patches if bar.get_height()] == [0.5]
    assert inside(fig)


def test_risk_coverage_marks_ninety_percent_and_the_threshold():
    confidence = np.linspace(0.99, 0.6, 20)
    labels = np.zeros(20, dtype=int)
    labels[[9, 12, 15]] = 1  # of the first 10, 9 are right
    curve = risk_coverage(labels, np.stack([confidence, 1 - confidence], axis=1))
    fig = calibration_plots.risk_coverage(curve, threshold=confidence[3])
    axes = fig.axes[0]
    marks = {line.get_marker(): tuple(np.ravel(line.get_xydata())) for line in axes.lines if line.get_ls() == "None"}
    assert marks == {"*": pytest.approx((0.6, 11 / 12)), "D": pytest.approx((0.2, 1.0))}
    assert axes.get_title() == "At 90 % precision it answers 60 % of the cuts."
    assert inside(fig)
    never = risk_coverage(np.ones(3, dtype=int), np.array([[0.9, 0.1]] * 3))
    title = calibration_plots.risk_coverage(never, threshold=0.95).axes[0].get_title()
    assert title == "At no threshold are 90 % of its answers right."


@pytest.mark.parametrize(("count", "shape"), [(7, (1, 128, 400)), (3, (128, 400)), (0, (128, 400))])
def test_gallery_names_truth_and_prediction_low_frequencies_below(count, shape):
    names = species(count + 1)
    said = [names[i + i % 2] for i in range(count)]
    mel = np.random.default_rng(0).normal(size=shape)
    fig = plots.gallery([mel] * count, names[:count], said, [0.5] * count, "title")
    shown = [axes for axes in fig.axes if axes.get_visible()]
    assert len(shown) == count
    for i, axes in enumerate(shown):
        assert axes.images[0].origin == "lower"
        assert axes.images[0].get_extent() == [0, 4.0, 0, 128]
        assert axes.title.get_color() == (plots.WRONG if i % 2 else plots.RIGHT)
        assert names[i] in axes.get_title() and (said[i] in axes.get_title())
    assert inside(fig)


def test_right_and_wrong_keep_their_colours_in_the_picture_of_a_gallery(tmp_path):
    """Among 25 pictures of noise, which ask for all 256 colours."""
    noise = np.random.default_rng(0).normal(size=(25, 128, 400))
    fig = plots.gallery(noise, ["Whale"] * 25, ["Whale", "Seal"] * 12 + ["Whale"], [0.5] * 25, "title")
    plots.save(fig, tmp_path / "gallery.png")
    drawn = np.asarray(Image.open(tmp_path / "gallery.png").convert("RGB")).reshape(-1, 3).astype(int)
    for wanted in (plots.RIGHT, plots.WRONG, "#FFFFFF"):
        colour = [int(wanted[at : at + 2], 16) for at in (1, 3, 5)]
        assert np.abs(drawn - colour).max(axis=1).min() <= 10


def test_names_cannot_break_a_picture(tmp_path):
    names = ["$\\frac{1$", "x" * 200, "Dall'sPorpoise, juvenile"]
    plots.save(plots.confusion_matrix(np.arange(3), np.arange(3), names), tmp_path / "m.png")


def test_save_is_atomic_and_needs_no_pyplot(tmp_path):
    path, before = tmp_path / "plots" / "curves.png", pyplot.get_fignums()  # other libraries leave some open

    def draw():
        plots.save(plots.learning_curves({"one": history()}, {"one": 4}), path)

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Image.open(path) as image:
        image.verify()
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]
    assert pyplot.get_fignums() == before


def test_what_is_drawn_is_what_savefig_writes():
    fig = plots.learning_curves({"one": history()}, {"one": 4})
    drawn, saved = np.asarray(plots.draw(fig)), io.BytesIO()
    plots.learning_curves({"one": history()}, {"one": 4}).savefig(saved, format="png", dpi=plots.DPI)
    np.testing.assert_array_equal(drawn, Image.open(saved).convert("RGB"))


def test_a_failed_save_leaves_the_old_file(tmp_path):
    class Broken(Figure):
        def draw(self, renderer):
            raise OSError("disk full")

    path = tmp_path / "p.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        plots.save(Broken(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
