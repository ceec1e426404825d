"""Sweeps among the rows of a report: which rows belong together, and their names."""

import json
import shutil

import pytest

from fedpeft_jax.reports import figures
from fedpeft_jax.reports.collect import collect
from fedpeft_jax.reports.sweeps import find_sweeps, sweep_labels
from tests.small_runs import finished, small_runs

pytest.importorskip("matplotlib", reason="plots need the extra plot")


def test_sweeps_agree_in_everything_else():
    rows = [
        {"rounds": r, "embedding": "hash", "seed": s} for r in (1, 2, 3) for s in "ab"
    ]
    ((name, found),) = find_sweeps(rows).items()
    assert name == "rounds"
    assert [one.rows for one in found] == [{1: 0, 2: 2, 3: 4}, {1: 1, 2: 3, 3: 5}]
    assert sweep_labels(found, ["Hash", "Hash"]) == ["Hash, seed=a", "Hash, seed=b"]
    assert find_sweeps(rows[:4]) == {}


def test_a_product_of_sweeps_has_two_plots_whose_lines_have_names(tmp_path):
    """Rates of clients change the private optimizer, too, which follows them."""
    with small_runs():
        run = finished().path
    for scale in (1, 2, 3):
        for rate in (0.1, 0.2, 0.4):
            folder = tmp_path / f"{scale}-{rate}"
            shutil.copytree(run, folder)
            path = folder / "summary.json"
            changed = json.loads(path.read_text())
            optimizer = f"adam(learning_rate={rate})"
            changed["config"] |= {
                "latent_scale": scale,
                "client_optimizer": optimizer,
                "private_optimizer": optimizer,
            }
            path.write_text(json.dumps(changed))
    collected = collect([tmp_path])
    labels = [row.label for row in collected.compared.rows]
    assert len(set(labels)) == 9 and "private" not in "".join(labels)
    scale, rate = figures.sweeps(collected)
    assert scale.title == "NDCG@10 over latent_scale"
    assert "LoRA, client_optimizer.learning_rate=0.4: " in scale.description
    assert rate.title == "NDCG@10 over client_optimizer.learning_rate"
    assert "LoRA, latent_scale=3: " in rate.description
    assert "= 0.1, 0.2, 0.4. " in rate.description
