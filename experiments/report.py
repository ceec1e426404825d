"""Prints the results of runs and grids, or writes them as a page."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("report")
