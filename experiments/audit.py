"""Audits the privacy of a run: `--privacy=SPEC --canaries=500`."""

from fedpeft_jax.commands import start

if __name__ == "__main__":
    start("audit")
