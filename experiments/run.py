"""Runs one experiment: `python experiments/run.py --help` lists every setting."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("run")
