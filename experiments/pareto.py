"""Prints and draws the accuracy of finished grids against the bytes of their runs."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("pareto")
