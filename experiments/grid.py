"""Runs rows of settings with several seeds, and prints one table of the results."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("grid")
