"""The benchmark measures what it says, on tiny generated data; no time is judged."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT

FOLDER = ROOT / "experiments"
TINY = ["--users=40", "--items=60", "--mean_length=8", "--cohort_size=5"]
TINY += ["--rounds=5", "--chunk_rounds=2", "--max_buckets=1", "--features=4"]


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location(
            "benchmark", FOLDER / "benchmark.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    sys.modules.pop("benchmark_case", None)


def run(benchmark, *arguments):
    return benchmark.main(["benchmark.py", *TINY, *arguments])


@pytest.mark.parametrize(
    ("setting", "aggregator"), [("full", "row_mean"), ("lora", "mean")]
)
def test_writes_every_field(benchmark, tmp_path, capsys, setting, aggregator):
    path = tmp_path / "result.json"
    arguments = [f"--settings={setting}", f"--aggregator={aggregator}"]
    assert run(benchmark, *arguments, f"--json={path}") == 0
    report = json.loads(path.read_text())
    assert set(report["machine"]) == {"cpu", "cores", "load_average", "python", "jax"}
    assert report["scaling"] == {}
    (result,) = report["results"]
    assert (result["users"], result["items"], result["cohort_size"]) == (40, 60, 5)
    assert (result["setting"], result["aggregator"]) == (setting, aggregator)
    times = result["ms_per_round"]
    assert len(times["samples"]) == 3  # 5 rounds in whole chunks of 2
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert result["rounds_per_s"] == pytest.approx(1e3 / times["median"])
    assert result["clients_per_s"] == pytest.approx(5e3 / times["median"])
    prepare = result["prepare_s"]
    stages = {"data", "split", "store", "plan", "init"}
    assert set(prepare) == {*stages, "total"}
    assert prepare["total"] == pytest.approx(sum(prepare[s] for s in stages))
    assert result["compile_s"] > 0
    assert (result["merge_ms"] is None) == (setting == "full")
    assert result["peak_rss_bytes"] > 10**7
    assert {"dataset", "train_pairs", "tiles", "device"} <= set(result)
    printed = capsys.readouterr().out
    assert setting in printed
    assert "ms per round" in printed


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--settings=lora,fast", "unknown setting 'fast'"),
        ("--cohort_size=41", "a cohort of 41"),
        ("--items=2", "at least 4 items"),
        ("--rounds=0", "rounds"),
        ("--rounds=many", "rounds"),
        ("--no_such_flag=1", "no_such_flag"),
        ("stray", "unexpected argument 'stray'"),
        ("--aggregator=best", "unknown aggregator 'best'"),
        ("--server_optimizer=sgd", "needs 'learning_rate'"),
        ("--scaling_items=1,x", "--scaling_items='1,x'"),
        ("--data_dir=/nowhere", "/nowhere"),
        ("--json=/no/such/folder/x.json", "no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(benchmark, capsys, argument, says):
    extra = () if argument.startswith("--settings") else ("--settings=frozen",)
    if argument.startswith("--scaling"):
        extra += ("--scaling",)
    assert run(benchmark, argument, *extra) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_scaling_needs_generated_data(benchmark, capsys):
    assert run(benchmark, "--scaling", "--data_dir=folder") == 2
    assert "drop --data_dir" in capsys.readouterr().err


def test_scaling_divides_neighbours_in_time(benchmark):
    def result(items, *times):
        return {"setting": "s", "items": items, "ms_per_round": {"samples": times}}

    results = [result(10, 1.0, 10.0, 2.0), result(20, 1.5, 15.0, 4.0)]
    assert benchmark.scaling_ratios(results) == {"s": {"10": 1.0, "20": 1.5}}


@pytest.mark.slow
def test_workers_take_turns(benchmark, tmp_path):
    path = tmp_path / "result.json"
    script = [sys.executable, str(FOLDER / "benchmark.py"), *TINY]
    script += ["--scaling", "--scaling_items=60,90", f"--json={path}"]
    subprocess.run(script, check=True)
    report = json.loads(path.read_text())
    assert [r["items"] for r in report["results"]] == [60, 90]
    assert set(report["scaling"]["lora"]) == {"60", "90"}


@pytest.mark.slow
def test_stages_are_compared(tmp_path):
    path = tmp_path / "result.json"
    script = [sys.executable, str(FOLDER / "benchmark.py"), *TINY, f"--json={path}"]
    script += ["--settings=lora", "--both_ways=identity;bfloat16"]
    shown = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    results = json.loads(path.read_text())["results"]
    assert [r["upload"] for r in results] == ["identity", "bfloat16"]
    assert [r["download"] for r in results] == ["identity", "bfloat16"]
    assert "bfloat16" in shown
