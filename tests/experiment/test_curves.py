"""Learning curves of folders: means over seeds, baselines, and a plot that follows."""

import io
import json

import numpy as np
import pytest

import fedpeft_jax
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.curves import make_curves


def write(folder, seed, values, embedding="lora(rank=4)", finished=True, **more):
    """A run folder whose validation NDCG@10 is `values`, every second round."""
    folder.mkdir(parents=True)
    config = {"dataset": "toy", "full": "frozen", "embedding": embedding, "seed": seed}
    (folder / "config.json").write_text(json.dumps({**config, "out": str(folder)}))
    lines = [
        {
            "round": 2 * number + 2,
            "loss": 1 / (number + 1),
            "metrics": {"valid": {"sampled": {"ndcg@10": value}}},
            "bytes": 1000 * (number + 1),
            "seconds": 0.5 * number,
            **more,
        }
        for number, value in enumerate(values)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"round": 99, "lo')  # still written
    levels = {"most_popular": 0.19, "log_odds": 0.191, "random": 0.05}
    summary = {
        "baselines": {
            name: {"valid": {"sampled": {"ndcg@10": level}}}
            for name, level in levels.items()
        }
    }
    if finished:
        (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def grid(tmp_path):
    """Two rows: one with three seeds, of which one goes on, and one with one seed."""
    path = tmp_path / "grid"
    write(path / "row0-seed0", 0, [0.1, 0.2, 0.3])
    write(path / "row0-seed1", 1, [0.3, 0.2, 0.6])
    write(path / "row0-seed2", 2, [0.2, 0.5], finished=False)
    write(path / "row1-seed0", 0, [0.15, 0.25, 0.35], embedding="hash(num_buckets=8)")
    (path / "notes").mkdir()
    return path


def test_curves_are_means_over_seeds_where_all_have_measured(grid):
    lora, hash_ = make_curves(grid, "ndcg@10")
    assert (lora.label, lora.num_runs) == ("LoRA 4", 3)
    np.testing.assert_array_equal(lora.x, [2, 4])
    np.testing.assert_allclose(lora.mean, [0.2, 0.3])
    np.testing.assert_allclose(lora.spread, [0.1, np.sqrt(0.03)])  # n - 1
    assert (hash_.label, hash_.num_runs) == ("Hash 8", 1)
    np.testing.assert_allclose(hash_.mean, [0.15, 0.25, 0.35])
    np.testing.assert_array_equal(hash_.spread, [0, 0, 0])


@pytest.mark.parametrize(
    ("x", "places"), [("bytes", [1000, 2000, 3000]), ("seconds", [0, 0.5, 1])]
)
def test_other_axes(x, places, grid):
    _, curve = make_curves(grid, "loss", x)
    np.testing.assert_allclose(curve.x, places)
    np.testing.assert_allclose(curve.mean, [1, 1 / 2, 1 / 3])


def test_labels_and_several_folders(grid, tmp_path):
    write(tmp_path / "single", 0, [0.4], figures={"clipped": 0.75})
    named = make_curves({"a": grid / "row1-seed0", "b": [tmp_path / "single"]}, "loss")
    assert [curve.label for curve in named] == ["a", "b"]
    (curve,) = make_curves(tmp_path / "single", "clipped")
    assert curve.mean.tolist() == [0.75]
    (curve,) = make_curves([grid / "row0-seed0", tmp_path / "single"], "ndcg@10")
    assert curve.num_runs == 2


def test_the_plot(grid):
    figure = fedpeft_jax.plot_curves(grid)
    (axes,) = figure.axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["LoRA 4 (3 seeds)", "Hash 8"]
    curves = axes.lines[:2]
    # A curve is told by its colour and by its line.
    assert len({line.get_color() for line in curves}) == 2
    assert len({line.get_linestyle() for line in curves}) == 2
    np.testing.assert_allclose(curves[0].get_ydata(), [0.2, 0.3])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.2 - 0.1)
    assert heights.max() == pytest.approx(0.3 + np.sqrt(0.03))
    levels = sorted(line.get_ydata()[0] for line in axes.lines[2:])
    assert levels == [0.05, 0.19, 0.191]
    texts = {text.get_text() for text in axes.texts}
    assert texts == {"random", "most popular, log odds"}  # too close for two texts
    assert axes.get_ylabel() == "validation NDCG@10" and axes.get_xlabel() == "round"
    assert axes.get_title(loc="left") == "toy"


def test_long_labels_are_below_the_plot(tmp_path):
    for rank in (10, 9):
        for step in ("0.01", "0.003"):
            name = f"rank={rank},step={step}"
            spec = f"adam(learning_rate={step})"
            write(tmp_path / name, 0, [0.1], embedding=f"lora(rank={rank})")
            path = tmp_path / name / "config.json"
            more = {"client_optimizer": spec, "private_optimizer": spec}
            path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    figure = fedpeft_jax.plot_curves(tmp_path)
    assert figure.axes[0].get_legend() is None
    (legend,) = figure.legends
    # The private optimizer follows the other one, and says nothing; 9 is before 10.
    assert [text.get_text() for text in legend.get_texts()] == [
        f"LoRA {rank}, client_optimizer=adam(learning_rate={step})"
        for rank in (9, 10)
        for step in ("0.003", "0.01")
    ]
    figure.savefig(io.BytesIO(), format="png")
    width, height = figure.canvas.get_width_height()
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0
    assert box.y1 < figure.axes[0].get_tightbbox().y0
    assert figure.axes[0].get_window_extent().width > width / 2


def test_baselines_may_be_chosen(grid):
    (axes,) = fedpeft_jax.plot_curves(grid, baselines=["random"], x="bytes").axes
    assert [text.get_text() for text in axes.texts] == ["random"]
    (axes,) = fedpeft_jax.plot_curves(grid, "loss", baselines=False).axes
    assert not axes.texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "ndgc@10"}, "has no 'ndgc@10'.*its figures are ndcg@10, loss"),
        ({"x": "epoch"}, "x='epoch' is no axis: use one of round, bytes, seconds"),
    ],
)
def test_a_wrong_name_is_one_error(arguments, message, grid):
    with pytest.raises(InputError, match=message):
        fedpeft_jax.plot_curves(grid, **arguments)


def test_folders_without_runs_are_one_error(grid, tmp_path):
    for path in (tmp_path / "nowhere", grid / "notes"):
        with pytest.raises(InputError, match="holds no run"):
            fedpeft_jax.plot_curves(path)
    write(tmp_path / "new", 0, [])
    with pytest.raises(InputError, match="measured nothing yet"):
        fedpeft_jax.plot_curves(tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        fedpeft_jax.plot_curves(tmp_path / "new")


class Display:
    """Stands for a notebook: keeps what is shown, and how often."""

    def __init__(self):
        self.shown, self.updates = [], []

    def __call__(self, figure, display_id):
        assert display_id
        self.shown.append(figure)
        return self

    def update(self, figure):
        self.updates.append(figure)


def test_the_live_plot_redraws_in_place(monkeypatch):
    notebook, now = Display(), [0.0]
    monkeypatch.setattr("IPython.display.display", notebook)
    plot = fedpeft_jax.LivePlot(seconds=10, clock=lambda: now[0])
    config = fedpeft_jax.configure(rounds=40)

    def entry(round_):
        metrics = {"valid": {"sampled": {"ndcg@10": round_ / 100}}}
        return {"round": round_, "loss": 1 / round_, "metrics": metrics}

    plot.begin(config)
    plot.resume(10, [entry(10)])
    plot.progress("pretraining", 1, 2, loss=9.0)
    for done, seconds in ((20, 1), (30, 2), (35, 3), (40, 4)):
        now[0] += seconds
        plot.validation(entry(done))
        plot.progress("rounds", done, 40, loss=1 / done)
    # Round 20 is the first drawing, the next ones come too soon, the last one counts.
    assert len(notebook.shown) == len(notebook.updates) == 1
    loss, metric = notebook.updates[0].axes
    np.testing.assert_allclose(loss.lines[0].get_xdata(), [10, 20, 30, 35, 40])
    np.testing.assert_allclose(loss.lines[0].get_ydata()[-1], 1 / 40)
    np.testing.assert_allclose(metric.lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.35, 0.4])
    plot.close()
    assert notebook.updates[-1] is plot.figure
    plot.begin(config)  # another run is another plot
    plot.progress("rounds", 1, 40, loss=0.5)
    assert len(notebook.shown) == 2
