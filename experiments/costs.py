"""Measures what item embeddings cost and can represent, and trains nothing."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("costs")
