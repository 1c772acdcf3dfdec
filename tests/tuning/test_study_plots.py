"""The pictures and the table of real studies kept in memory: what they show, and what they put up with."""

from __future__ import annotations

import math
import warnings
from datetime import datetime, timedelta
from itertools import pairwise

import matplotlib
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from matplotlib import pyplot
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from PIL import Image

from tests.support.pictures import drawing
from watkins_ml.tuning import plots
from watkins_ml.tuning.importance import PlottedTrials, importances
from watkins_ml.tuning.plots import write_study_plots
from watkins_ml.tuning.scale import Scale
from watkins_ml.tuning.table import trials_table

SPACE = {
    "optim.lr": FloatDistribution(3e-5, 0.01, log=True),
    "model.freeze_depth": IntDistribution(0, 9),
    "augment.time_roll": CategoricalDistribution([True, False]),
    "data.batch_size": CategoricalDistribution([8, 16, 32, 64]),
    "optim.weight_decay": FloatDistribution(1e-4, 0.1, log=True),
    "model.dropout": FloatDistribution(0, 0.6, step=0.1),
}
ALL = ["history", "importance", "slice"]


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures():
    """Real pictures, but small."""
    with drawing(dpi=40):
        yield


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def trial(
    state: TrialState,
    values: list[float] = (),
    point: dict | None = None,
    value: float | None = None,
    **attributes: object,
) -> FrozenTrial:
    """A trial that reported `values` from epoch 1 on; a complete one has the highest of them, or else `value`."""
    if state is TrialState.COMPLETE and value is None:
        value = max(values)
    point = {"optim.lr": 0.001, "model.freeze_depth": 4} if point is None else point
    return optuna.create_trial(
        state=state,
        value=value,
        params=point,
        distributions={key: SPACE[key] for key in point},
        intermediate_values=dict(enumerate(values, 1)),
        user_attrs=attributes,
    )


def study_of(*trials: FrozenTrial) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def complete(*values: float, **options: object) -> FrozenTrial:
    return trial(TrialState.COMPLETE, list(values), **options)


def pruned(*values: float, **options: object) -> FrozenTrial:
    return trial(TrialState.PRUNED, list(values), value=values[-1] if values else None, **options)


def failed(*values: float, **options: object) -> FrozenTrial:
    return trial(TrialState.FAIL, list(values), **options)


def searched(trials: int, keys: int = 6, epochs: int = 6) -> optuna.Study:
    """A study as TPE and the median rule leave it: the learning rate decides, the freeze depth helps a little."""
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(5, 2),
    )
    rng = np.random.default_rng(0)
    for _ in range(trials):
        asked = study.ask(dict(list(SPACE.items())[:keys]))
        distance = abs(math.log10(asked.params["optim.lr"] / 0.001))
        top = 0.95 - 0.3 * distance - 0.002 * abs(asked.params.get("model.freeze_depth", 4) - 4)
        for epoch in range(1, epochs + 1):
            asked.report(top * (1 - math.exp(-epoch)) + rng.normal(0, 0.01), epoch)
            if asked.should_prune():
                study.tell(asked, state=TrialState.PRUNED)
                break
        else:
            study.tell(asked, top)
    return study


@pytest.fixture(scope="module")
def forty() -> optuna.Study:
    return searched(40)


def drawn_files(study: optuna.Study, folder) -> list[str]:
    write_study_plots(study, folder)
    return sorted(path.stem for path in folder.glob("*")) if folder.exists() else []


def inside(figure) -> bool:
    """Whether all that the figure holds, text included, lies on the canvas."""
    figure.draw_without_rendering()  # settles the layout
    box, canvas = figure.get_tightbbox(), figure.bbox_inches
    return min(box.x0, box.y0, canvas.x1 - box.x1, canvas.y1 - box.y1) > -0.02


def test_three_pictures_large_enough_to_read_and_pyplot_untouched(forty, tmp_path, real_pictures):
    before, figures = dict(matplotlib.rcParams), pyplot.get_fignums()  # other libraries leave some open
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn_files(forty, tmp_path / "plots") == ALL
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == figures
    for path in (tmp_path / "plots").glob("*.png"):
        width, height = Image.open(path).size
        assert 900 <= width <= 1900 and 600 <= height <= 1000, path


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("keys", [2, 6])
def test_nothing_is_cut_off_and_ticks_do_not_overlap(name, keys, forty):
    figure = plots.PLOTS[name](PlottedTrials.of(forty if keys == 6 else searched(9, keys)))
    assert inside(figure)
    for axes in figure.axes:
        labels = [each.get_window_extent() for each in axes.get_xticklabels() if each.get_visible() and each.get_text()]
        labels.sort(key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in pairwise(labels)), axes.get_xlabel()


def test_history_shows_complete_and_pruned_trials_and_the_best_so_far():
    study = study_of(complete(0.5), complete(0.8), pruned(0.3), complete(0.6), failed(0.9), pruned(0.2, 0.4))
    axes = plots.history(PlottedTrials.of(study)).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "best so far": [[0, 0.5], [1, 0.8], [3, 0.8], [5, 0.8]],
        "complete (3)": [[0, 0.5], [1, 0.8], [3, 0.6]],
        "best: 80.0% (trial 1)": [[1, 0.8]],
        "pruned, at its last epoch (2)": [[2, 0.3], [5, 0.4]],
    }


def drawn_at_random(count: int) -> list[FrozenTrial]:
    """Up to 0.0005 the learning rate decides; above, nine tenths of its range, only the freeze depth matters."""
    rng = np.random.default_rng(1)
    points = zip(10 ** rng.uniform(-4.5, -2, count), rng.integers(0, 10, count), strict=True)
    return [
        complete(
            0.9 - 0.3 * max(0.0, -3.3 - math.log10(lr)) - 0.02 * abs(int(depth) - 4),
            point={"optim.lr": float(lr), "model.freeze_depth": int(depth), "augment.time_roll": False},
        )
        for lr, depth in points
    ]


def test_importance_gives_percentages_of_all_parameters_and_says_what_it_rests_on():
    drawn = PlottedTrials.of(study_of(*drawn_at_random(12), pruned(0.1), failed(0.2)))
    figure = plots.importance(drawn)
    shares = importances(drawn)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == ["optim.lr", "model.freeze_depth", "augment.time_roll"]
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(shares)[::-1]
    assert [text.get_text() for text in axes.texts] == [f"{share:.0%}" for share in shares.values()][::-1]
    assert figure.get_suptitle().endswith("from 12 complete trials; 1 pruned not counted")


def test_importance_weighs_every_decade_of_a_logarithmic_range_alike():
    study = study_of(*drawn_at_random(60))
    fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)
    plain = optuna.importance.get_param_importances(study, evaluator=fanova)["optim.lr"]
    even = importances(PlottedTrials.of(study))["optim.lr"]
    assert plain < 0.75 < 0.9 < even


@pytest.mark.parametrize(("count", "few"), [(2, True), (3, True), (4, False)])
def test_importance_from_less_than_four_trials_says_that_they_are_too_few(count, few):
    lrs = [0.0001, 0.001, 0.01, 0.002][:count]
    trials = [complete(0.5 + lr, point={"optim.lr": lr, "model.freeze_depth": 3}) for lr in lrs]
    figure = plots.importance(PlottedTrials.of(study_of(*trials)))
    assert ("too few trials" in figure.get_suptitle()) is few
    assert inside(figure)


def test_repeated_points_count_once_in_the_pictures():
    study = study_of(complete(0.5), complete(0.7), complete(0.7, duplicate_of=1), pruned(duplicate_of=0))
    drawn = PlottedTrials.of(study)
    assert [each.number for each in drawn.complete] == [0, 1]
    assert drawn.pruned == []


def test_slices_have_a_panel_a_parameter_and_a_colour_bar(forty):
    *panels, bar = [axes for axes in plots.slices(PlottedTrials.of(forty)).axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in panels] == sorted(SPACE)
    assert bar.get_ylabel() == "trial"
    drawn = PlottedTrials.of(forty)
    assert all(len(axes.collections[0].get_offsets()) == len(drawn.complete) for axes in panels)


WAITING = trial(TrialState.WAITING, point={})
RUNNING = trial(TrialState.RUNNING, [0.4])
NAN = complete(0.5, value=math.inf)


@pytest.mark.parametrize(
    ("trials", "pictures"),
    [
        ([], []),
        ([WAITING], []),
        ([RUNNING], []),
        ([failed(), failed(0.3)], []),
        ([pruned()], []),
        ([pruned(math.nan)], []),
        ([pruned(0.3), pruned(0.2, 0.4)], ["history"]),
        ([complete(0.5)], ["history", "slice"]),
        ([complete(value=0.5)], ["history", "slice"]),
        ([complete(0.5), complete(0.5)], ["history", "slice"]),
        ([complete(0.0), complete(0.0, point={"optim.lr": 0.01, "model.freeze_depth": 9})],
         ["history", "slice"]),
        ([complete(0.5, point={"optim.lr": 0.01}), complete(0.6, point={"optim.lr": 0.001})],
         ["history", "slice"]),
        ([complete(0.5, point={}), complete(0.6, point={})], ["history"]),
        ([complete(0.5, point={"optim.lr": 0.01}), complete(0.6, point={"model.freeze_depth": 1})],
         ["history", "slice"]),
        ([NAN, complete(0.5), RUNNING, WAITING, failed(0.2), pruned()],
         ["history", "slice"]),
        ([complete(math.nan, value=0.5)], ["history", "slice"]),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_drawn_are_left_out(trials, pictures, tmp_path, capfd):
    assert drawn_files(study_of(*trials), tmp_path / "plots") == pictures
    assert capfd.readouterr() == ("", "")


@some.composite
def any_trial(draw) -> FrozenTrial:
    share = some.floats(0, 1) | some.just(math.nan)
    point = {
        "optim.lr": draw(some.floats(3e-5, 0.01)),
        "model.freeze_depth": draw(some.integers(0, 9)),
        "augment.time_roll": draw(some.booleans()),
    }
    keys = draw(some.sampled_from([[], list(point), list(point), list(point)[:2]]))
    state = draw(
        some.sampled_from([TrialState.COMPLETE] * 3 + [TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING])
    )
    return trial(
        state,
        draw(some.lists(share, max_size=4)),
        {key: point[key] for key in keys},
        draw(some.floats(0, 1)) if state is TrialState.COMPLETE else None,
        **draw(some.sampled_from([{}, {}, {"duplicate_of": 0}, {"continues": 0}])),
    )


@given(some.lists(any_trial(), max_size=6))
@settings(max_examples=8, deadline=None)
def test_no_study_is_so_odd_that_a_picture_or_the_table_fails(trials):
    study = study_of(*trials)
    for draw in plots.PLOTS.values():
        figure = draw(PlottedTrials.of(study))
        assert figure is None or inside(figure)
    assert len(trials_table(study)) == len(trials)


@pytest.mark.parametrize(
    ("distribution", "labels"),
    [
        (FloatDistribution(3e-5, 0.01, log=True), ["0.0001", "0.001", "0.01"]),
        (FloatDistribution(0.001, 0.01, log=True), ["0.001", "0.002", "0.005", "0.01"]),
        (FloatDistribution(0.0003, 0.0004, log=True), ["0.0003", "0.000325", "0.00035", "0.000375", "0.0004"]),
        (FloatDistribution(1e-7, 1e-5, log=True), ["1e-7", "1e-6", "1e-5"]),
        (FloatDistribution(0, 0.5, step=0.1), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        (IntDistribution(0, 9), [*"0123456789"]),
        (IntDistribution(1, 40), ["8", "16", "24", "32", "40"]),
        (IntDistribution(3, 3), ["3"]),
        (CategoricalDistribution([True, None, "imagenet", 8]), ["true", "null", "imagenet", "8"]),
        (CategoricalDistribution(["$x$ and a long name"]), [r"\$x\$ and a lon…"]),
    ],
)
def test_a_scale_spans_the_range_with_round_values(distribution, labels):
    places, written = Scale.of(distribution).ticks
    assert written == labels
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places) and places == sorted(places)


def test_the_table_tells_what_became_of_each_trial():
    study = study_of(
        complete(0.4, 0.6, run="trial-000", host="orca"),
        pruned(0.3, run="trial-001", ended="pruned at epoch 1"),
        failed(0.2, run="trial-002", host="orca"),
        failed(ended="UserError: no such weights"),
        failed(0.1, ended="interrupted"),
        complete(0.2, 0.5, run="trial-002", continues=2, deaths=1),
        complete(value=0.6, duplicate_of=0),
        failed(0.2, continues=4, deaths=1),
        RUNNING,
        trial(TrialState.WAITING, point={"model.freeze_depth": 7}),
    )
    table = trials_table(study)
    assert table.trial.tolist() == list(range(10))
    assert table.state.tolist() == [
        "complete", "pruned", "continued as trial 5", "failed", "continued as trial 7", "complete", "complete",
        "interrupted", "running", "waiting",
    ]  # fmt: skip
    assert table.epochs.tolist() == [2, 1, 1, 0, 1, 2, 0, 1, 1, 0]
    assert table.val_macro_f1[[0, 1, 5, 6]].tolist() == [0.6, 0.3, 0.5, 0.6]
    assert table.val_macro_f1.isna().tolist() == [False, False, True, True, True, False, False, True, True, True]
    assert table.problem.dropna().to_dict() == {3: "UserError: no such weights"}
    assert table.continues.dropna().to_dict() == {5: 2, 7: 4}
    assert table.duplicate_of.dropna().to_dict() == {6: 0}
    assert table.run.dropna().to_dict() == {0: "trial-000", 1: "trial-001", 2: "trial-002", 5: "trial-002"}
    assert table["model.freeze_depth"].tolist() == [4] * 9 + [7]
    assert "7,,,," in table.to_csv().splitlines()[-1] and "7.0" not in table.to_csv()


def test_the_table_measures_seconds_and_an_empty_study_has_its_columns():
    ended = complete(0.5)
    ended.datetime_start = datetime(2024, 5, 1, 12)
    ended.datetime_complete = ended.datetime_start + timedelta(minutes=2)
    assert trials_table(study_of(ended)).seconds.tolist() == [120]
    empty = trials_table(study_of())
    assert empty.empty and list(empty)[:5] == ["trial", "state", "val_macro_f1", "epochs", "seconds"]
