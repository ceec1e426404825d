"""The bar of a grid, and the lines that replace it without a terminal."""

import io

from rich.console import Console

from fedpeft_jax.grids.axes import read_sweep
from fedpeft_jax.grids.cells import expand
from fedpeft_jax.grids.execution import Outcome
from fedpeft_jax.grids.progress import GridProgress

CELLS = expand({"rounds": 100, "eval_every": 10}, [read_sweep("embedding.rank=1:4")])


def made(done=None, **console):
    out, clock = io.StringIO(), [0.0]
    shown = Console(file=out, width=120, highlight=False, **console)
    return GridProgress(CELLS, done or {}, shown, lambda: clock[0]), out, clock


def test_lines_at_intervals_and_at_each_end():
    progress, out, clock = made()
    first, second, _ = CELLS
    progress.begin(first)
    clock[0] = 5.0  # pretraining and compilation
    progress.rounds(first, 20, None)  # says nothing of the speed
    clock[0] = 15.0
    progress.rounds(first, 40, 0.25)  # 20 rounds in 10 s, and 260 are left
    clock[0] = 20.0
    progress.rounds(first, 60, 0.2)  # no line: the last one is 5 s old
    progress.end(first, Outcome("finished"))
    progress.begin(second)
    progress.end(second, Outcome("failed", "no memory"))
    assert out.getvalue().splitlines() == [
        "cells 0/3  rounds 40/300  left 0:02:10  best 0.2500 embedding.rank=1",
        "finished: embedding.rank=1",
        "cells 1/3  rounds 100/300  left 0:00:38  best 0.2500 embedding.rank=1",
        "failed: embedding.rank=2: no memory",
        "cells 2/3  rounds 200/300  left 0:00:19  best 0.2500 embedding.rank=1",
    ]


def test_a_grid_that_continues_begins_with_what_is_done():
    progress, _, _ = made(done={CELLS[0].name: 0.5, CELLS[1].name: None})
    assert progress.line() == "cells 2/3  rounds 200/300  best 0.5000 embedding.rank=1"


def test_one_bar_on_a_terminal():
    progress, out, _ = made(force_terminal=True)
    progress.begin(CELLS[0])
    progress.rounds(CELLS[0], 50, 0.125)
    progress.end(CELLS[0], Outcome("finished"))
    progress.close()
    shown = out.getvalue()
    assert "cells 1/3" in shown and "best 0.1250 embedding.rank=1" in shown
    assert "finished:" not in shown  # the bar counts it
