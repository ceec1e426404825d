"""What a run shows: plain lines where nobody watches, bars on a terminal, a table."""

import io
import re

import pytest
from rich.console import Console

from fedpeft_jax.experiment.reporting import (
    ConsoleReporter,
    format_bytes,
    note_figures,
    print_summary,
)


def console(terminal, width=80):
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, highlight=False
    )


def shown(of):
    """What a console shows, without colours and cursor moves."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", of.file.getvalue())


def metrics(first):
    """Four distinct figures."""
    rankings = {"sampled": first, "full": first / 10}
    return {
        name: {"hit_rate@10": value, "ndcg@10": value / 2}
        for name, value in rankings.items()
    }


def summary(full="frozen", embedding="lora(rank=4)", value=0.6, **more):
    return {
        "config": {
            "dataset": "toy",
            "rounds": 12,
            "seed": 5,
            "backbone": "fedmf",
            "full": full,
            "embedding": embedding,
            "num_candidates": 100,
            "candidates": "uniform",
        },
        "dataset": {"name": "toy", "evaluated_users": 58, "items": 40},
        "protocol": {"unsound": [], "log_odds_over_popularity": None},
        "metrics": {"test": metrics(value), "valid": metrics(0.9)},
        "rounds": {"run": 12, "evaluated": 12},
        "best_valid": {"round": 8, "metrics": metrics(0.7)},
        "baselines": {"most_popular": {"test": metrics(0.4), "valid": metrics(0.8)}},
        "communication": {
            "uplink_bytes_per_client_round": {"warm_up": 76_800, "peft": 10_112},
            "downlink_bytes_per_client_round": {"warm_up": 76_800, "peft": 10_112},
            "total_bytes": 2_370_000_000,
            "one_time_bytes": 76_800_000,
            "fraction_of_full": 0.154,
            "full_total_bytes": 15_400_000_000,
        },
        "time": {
            "pretrain_s": 1.0,
            "compile_s": 2.0,
            "rounds_s": 3.0,
            "rounds_per_s": 4.0,
            "evaluate_s": 5.0,
        },
        "memory": {"peak_rss_bytes": 123_000_000},
        **more,
    }


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1234, "1.23 KB"),
        (99_960, "100 KB"),
        (123_456_789, "123 MB"),
        (1.5e12, "1.5 TB"),
        (2e16, "20000 TB"),
    ],
)
def test_format_bytes(size, text):
    assert format_bytes(size) == text


def test_plain_lines_are_spaced_in_time_and_end_at_the_end():
    clock = iter([0.0, 1.0, 2.5, 3.0, 3.1])
    where = console(terminal=False)
    reporter = ConsoleReporter(where, clock=lambda: next(clock))
    for done in (1, 2, 3, 4):
        reporter.progress("rounds", done, 4, loss=0.25)
    reporter.progress("next task", 1, 9)
    reporter.close()
    assert shown(where).splitlines() == [
        "rounds 1/4  loss 0.25",  # 2/4 comes too soon
        "rounds 3/4  loss 0.25",
        "rounds 4/4  loss 0.25",  # the last one always comes
        "next task 1/9  ",
    ]


def test_plain_lines_are_never_wrapped():
    where = console(terminal=False, width=20)
    ConsoleReporter(where).note("a note [that] is longer than twenty characters")
    assert shown(where) == "a note [that] is longer than twenty characters\n"


def test_bars_on_a_terminal():
    where = console(terminal=True, width=100)
    reporter = ConsoleReporter(where)
    reporter.progress("pretraining", 5, 10, loss=0.5)
    reporter.progress("rounds", 1, 40, loss=0.125)
    reporter.note("a note between")
    reporter.progress("rounds", 40, 40, loss=0.0625)
    reporter.close()
    reporter.close()  # again is harmless
    last = shown(where).splitlines()[-2:]
    assert "pretraining" in last[0] and "5/10" in last[0] and "loss 0.5" in last[0]
    assert "rounds" in last[1] and "40/40" in last[1] and "loss 0.0625" in last[1]
    assert "a note between" in shown(where)


def test_a_reporter_draws_the_bars_of_another_run():
    where = console(terminal=True, width=100)
    reporter = ConsoleReporter(where)
    for total in (4, 7):
        reporter.progress("rounds", total, total, loss=0.5)
        reporter.close()
    text = shown(where)
    assert "4/4" in text and "7/7" in text


def test_figures_are_one_note():
    where = console(terminal=False)
    note_figures(ConsoleReporter(where), "rq", {"dead_codes": [0, 1], "spread": 0.25})
    note_figures(ConsoleReporter(where), "lora", {})
    assert shown(where) == "rq: dead codes 0 1, spread 0.25\n"


def test_a_long_name_is_folded_and_no_figure_is_lost():
    backbone, embedding = "fedpergnn(normalization='user')", "hash(pooling='senet')"
    where = console(terminal=False)
    one = summary(embedding=embedding)
    print_summary({**one, "config": {**one["config"], "backbone": backbone}}, (), where)
    text = shown(where)
    for figure in ("0.6000", "0.3000", "0.0600", "0.0300", "0.4000", "2.37 GB"):
        assert figure in text
    assert backbone in text
    assert embedding in text
    assert max(map(len, text.partition("sampled: ")[0].splitlines())) == 80


def test_the_table():
    where = console(terminal=False)
    print_summary(summary(), [summary("trained", "none", 0.8)], where)
    lines = shown(where).splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("sampled:"))
    assert all(len(line) <= 80 for line in lines[:end])
    assert lines[0].strip() == (
        "toy: the test items of 58 users, after 12 rounds, seed 5"
    )
    rows = {
        re.split(r"\s{2,}", line.strip())[0]: re.findall(r"\d\.\d{4}", line)
        for line in lines
    }
    assert rows["fedmf: frozen + lora(rank=4)"] == "0.6000 0.3000 0.0600 0.0300".split()
    assert rows["fedmf: trained + none"] == "0.8000 0.4000 0.0800 0.0400".split()
    assert rows["most popular"] == "0.4000 0.2000 0.0400 0.0200".split()
    text = shown(where)
    assert "best validation NDCG@10 0.3500, at round 8" in text
    assert "each way: warm-up 76.8 KB, peft 10.1 KB" in text
    assert "15.4 % of the full table's 15.4 GB" in text
    assert "pretraining 1.0 s, compilation 2.0 s, rounds 3.0 s (4.0 per second)" in text
    assert "peak memory 123 MB" in text


def test_warnings_are_below_the_table_with_settings_as_flags():
    remedies = ["aggregator=row_mean", "full=trained embedding=none"]
    warning = {"kind": "x", "message": "it is bad", "try": remedies}
    where = console(terminal=False)
    print_summary(summary(warnings=[warning]), (), where)
    assert [line for line in shown(where).splitlines() if "warning" in line] == [
        "warning: it is bad: try --aggregator=row_mean, or --full=trained "
        "--embedding=none"
    ]
    calm = console(terminal=False)
    print_summary(summary(warnings=[]), (), calm)
    assert "warning" not in shown(calm)
