"""The command-line tools: `fedpeft-jax run`, `grid`, `report` and so on.

Every command is a module with `define_flags()`, which defines its flags, and
`main(argv)`, which returns the exit code. The scripts in `experiments/` start the same
modules.
"""

import importlib
import sys

from absl import flags

from fedpeft_jax.experiment import cli

COMMANDS = {
    "run": "run one experiment",
    "grid": "run rows of settings with several seeds",
    "recommend": "print what a run recommends to a user, or beside an item",
    "costs": "measure what item embeddings cost, without training",
    "report": "print the table of runs that have finished",
    "attack": "infer the items of clients from what the server sees",
    "audit": "bound the epsilon of a run from below, by clients made for it",
    "pareto": "print and draw the accuracy of grids against their bytes",
}
"""The commands and what they do."""


def start(name: str) -> None:
    """Parses flags, runs a command and exits with its code.

    Args:
      name: a key of `COMMANDS`.
    """
    command = importlib.import_module(f"fedpeft_jax.commands.{name}")
    command.define_flags()
    main = sys.modules["__main__"]
    main.__doc__ = command.__doc__  # `--help` begins with it
    for module in (command, cli):
        for flag in flags.FLAGS.get_flags_for_module(module.__name__):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    cli.start(command.main)


def main() -> None:
    """Runs the console command: `fedpeft-jax NAME --flag=value ...`."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given in COMMANDS:
        sys.argv = [f"{sys.argv[0]} {given}", *sys.argv[2:]]
        start(given)
    lines = [f"  {name:10} {what}" for name, what in COMMANDS.items()]
    first = "usage: fedpeft-jax COMMAND [--flag=value ...]"
    last = "fedpeft-jax COMMAND --help lists the flags of a command."
    usage = "\n".join([first, *lines, last])
    if given in ("-h", "--help", "help"):
        print(usage)
        sys.exit(0)
    problem = f"unknown command {given!r}" if given else "no command"
    print(f"error: {problem}\n{usage}", file=sys.stderr)
    sys.exit(2)
