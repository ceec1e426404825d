"""Prints what a run recommends: `--run=DIR --user=ID`, or `--item=ID`."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("recommend")
