"""The command that makes a run again, with only the settings that it needs."""

import shlex
from collections.abc import Mapping
from typing import Any

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.config import FIELDS, configure
from fedpeft_jax.experiment.identity import FREE


def needed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a run that its other settings do not imply.

    Args:
      config: the resolved settings of a run by name, as in `config.json`.

    Returns:
      The settings which, given to `configure`, have `config` as their result.

    Example:
      >>> config = configure(embedding="hash", rounds=50).flat()
      >>> needed_settings(config)
      {'embedding': 'hash', 'rounds': 50}
    """
    known = {name: config[name] for name in FIELDS if name in config}
    kept = {name: value for name, value in known.items() if name not in FREE}
    given = {
        name: value
        for name, value in kept.items()
        if FIELDS[name].default is not None and value != FIELDS[name].default
    }
    try:
        implied = configure(**given).flat()
        given |= {name: x for name, x in kept.items() if implied[name] != x}
        if {n: x for n, x in configure(**given).flat().items() if n in kept} == kept:
            return {name: given[name] for name in FIELDS if name in given}
    except InputError:
        pass  # e.g. settings that are only allowed together
    return {name: value for name, value in kept.items() if value is not None}


def command(config: Mapping[str, Any], seeds: tuple[int, ...]) -> str:
    """Returns the command line that runs a configuration with some seeds.

    Args:
      config: the resolved settings of one of the runs, as in `config.json`.
      seeds: the seeds.

    Example:
      >>> command(configure(rounds=50, embedding="lora(rank=2)").flat(), (0,))
      "python experiments/run.py --embedding='lora(rank=2)' --rounds=50"
      >>> command(configure(rounds=50).flat(), (0, 1)).splitlines()[0]
      'for seed in 0 1; do'
    """
    given = {k: v for k, v in needed_settings(config).items() if k != "seed"}
    flags = " ".join(_flag(name, value) for name, value in given.items())
    line = f"python experiments/run.py {flags}".rstrip()
    if seeds == (0,):
        return line
    if len(seeds) == 1:
        return f"{line} --seed={seeds[0]}"
    listed = " ".join(map(str, seeds))
    return f"for seed in {listed}; do\n  {line} --seed=$seed\ndone"


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if value is None:
        return f"--{name}="
    text = str(value)
    if "'" in text and not set(text) & set('"$`\\!'):
        return f'--{name}="{text}"'  # easier to read than shlex's quotes
    return f"--{name}={shlex.quote(text)}"
