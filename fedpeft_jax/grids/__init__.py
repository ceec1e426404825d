"""Grids: cells that differ in some settings, run together, and one table of them."""

from fedpeft_jax.grids.shared_program import run_together
from fedpeft_jax.grids.table import load_grid

__all__ = ["load_grid", "run_together"]
