"""The loading benchmark measures what it says, on a small table; no time is judged."""

import importlib.util
import json
import sys

import polars as pl
import pytest

from tests.helpers import ROOT

FOLDER = ROOT / "experiments"
TINY = ["--interactions=400", "--users=40", "--items=30", "--repeats=1"]


@pytest.fixture(scope="module")
def benchmark():
    path = FOLDER / "benchmark_loading.py"
    spec = importlib.util.spec_from_file_location("benchmark_loading", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_loading"] = module  # where its processes look for it
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec.loader.exec_module(module)
        yield module
    sys.modules.pop("benchmark_loading")


def run(benchmark, *arguments):
    return benchmark.main(["benchmark_loading.py", *arguments])


def test_reads_what_it_wrote_without_and_with_the_cache(benchmark, tmp_path, capsys):
    path = tmp_path / "result.json"
    assert run(benchmark, *TINY, f"--json={path}") == 0
    report = json.loads(path.read_text())
    assert list(report) == ["csv", "csv, cached"]
    benchmark.write_table(tmp_path / "same.parquet", 400, 40, 30)
    pairs = pl.read_parquet(tmp_path / "same.parquet").select("user_id", "item_id")
    for result in report.values():
        assert result["users"] == pairs["user_id"].n_unique()
        assert result["items"] == pairs["item_id"].n_unique()
        assert result["interactions"] == pairs.n_unique()
        assert result["samples"] == [result["seconds"]]
        assert result["peak_rss_bytes"] > 10**7
    assert "peak memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "set --data_dir or --interactions"),
        (["--data_dir=/nowhere", "--repeats=1"], "/nowhere"),
        (["--interactions=many"], "interactions"),
        (["--interactions=9", "--format=xml"], "format"),
        ([*TINY, "--json=/no/such/folder/x.json"], "no such folder"),
        ([*TINY, "stray"], "unexpected argument 'stray'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(benchmark, capsys, arguments, says):
    assert run(benchmark, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err
