"""Infers the items of clients from what the server sees."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("attack")
