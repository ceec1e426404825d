r"""Infers the items of clients from what the server sees, and prints how well it works.

    python experiments/attack.py --dataset=ml-1m --data_dir=DIR --victims=100 \
        --vary='full=trained embedding=none' --vary='embedding=lora(rank=4)'

Every setting of `run.py` applies to all rows, and each --vary is one row, which changes
some settings; without --vary the settings are the only row. Every row is trained once,
and the updates of its victims are observed by running the real round with them. The
figures are the AUC, and the precision at the number of positives, averaged over the
victims. `attack.json` in the folder --out (runs/attack by default) holds all of them,
also by the clients' activity.
"""

import contextlib
import json
import pathlib
import tempfile
from typing import Any

from absl import flags
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import Callback, ConsoleReporter, RunConfig, cli, prepare
from fedpeft_jax.experiment.attack_study import ATTACKS, Plan, check_plan, study
from fedpeft_jax.experiment.kept_pretraining import keep
from fedpeft_jax.grids.addresses import apply
from fedpeft_jax.grids.axes import read_row
from fedpeft_jax.grids.command import lock

KNOWLEDGE = (
    "The attacker is the server. It follows the protocol, and sees the released sums "
    "over the observed clients, its own variables (tables, hash buckets, codes) and "
    "all settings. known: it also knows which items the clients trained on, as sparse "
    "uploads or a side channel reveal, and separates positives from negatives. all: "
    "it does not, and every item is a candidate. Only the popularity attacker knows "
    "the items' popularity among the other clients. Chance has an AUC of 0.5, and as "
    "precision (at the number of positives) the share of positives. Means over the "
    "victims ± standard errors."
)


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_flags(leave_out=("resume",))
    cli.define_vary()
    flags.DEFINE_integer("victims", 100, "clients that are attacked")
    flags.DEFINE_list(
        "observed_rounds", ["1", "10"], "numbers of rounds in which a victim is seen"
    )
    flags.DEFINE_list(
        "secure_sums", ["1", "10", "100"], "numbers of clients in a sum; 1 is no sum"
    )
    flags.DEFINE_integer(
        "attack_round", None, "rounds of training before the attack; default --rounds"
    )
    flags.DEFINE_list("attacks", list(ATTACKS), f"among {', '.join(ATTACKS)}")


def plan_from_flags() -> Plan:
    """Returns what is observed.

    Raises:
      InputError: for words that are no whole numbers, or no attacks.
    """
    values = flags.FLAGS

    def numbers(name: str) -> tuple[int, ...]:
        words: list[str] = values[name].value or []
        try:
            return tuple(dict.fromkeys(int(word) for word in words))
        except ValueError:
            raise InputError(f"--{name}={','.join(words)}: write 1,10") from None

    for word in values.attacks:
        if word not in ATTACKS:
            raise InputError(f"--attacks: {word!r} is not among {', '.join(ATTACKS)}")
    return Plan(
        victims=values.victims,
        observed_rounds=numbers("observed_rounds"),
        secure_sums=numbers("secure_sums"),
        attack_round=values.attack_round,
        attacks=tuple(values.attacks),
    )


def attack_row(
    config: RunConfig, plan: Plan, callback: Callback, kept: pathlib.Path
) -> list[dict[str, Any]]:
    """Trains and attacks one row.

    Args:
      config: the configuration of the row.
      plan: what is observed.
      callback: receives notes and progress.
      kept: a folder that hands the pretraining of one row to the next ones.
    """
    prepared = prepare(config, callback, kept=kept)
    if prepared.learned is not None:
        keep(kept, prepared.learned, callback.note)
    return study(config, prepared, plan, callback)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints one table per row of settings, one line per attack and situation.

    Args:
      rows: the rows of `attack.json`.
    """
    console = Console(highlight=False)
    console.width = max(console.width, 92)  # the table needs them
    for number, row in enumerate(rows):
        console.print(f"\nrow {number}: {row['row']}", markup=False, soft_wrap=True)
        table = Table(
            box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True
        )
        for head in ("seen", "attack"):
            table.add_column(f"\n{head}", no_wrap=True)
        for known in ("known", "all"):
            for name in ("AUC", "precision", "chance"):
                table.add_column(f"{known}\n{name}", justify="right", no_wrap=True)
        pairs: dict[tuple[str, str], dict[bool, Any]] = {}
        for entry in row["attacks"]:
            key = (_situation(entry), entry["attack"])
            pairs.setdefault(key, {})[entry["knows_rows"]] = entry
        for words, entries in pairs.items():
            cells = [cell for who in (True, False) for cell in _cells(entries[who])]
            table.add_row(*words, *cells)
        console.print(table)
    console.print("\n" + KNOWLEDGE, markup=False)


def _situation(entry: dict[str, Any]) -> str:
    """Returns whose items are wanted, and in what they are seen, in words."""
    m, t = entry["clients"], entry["rounds"]
    if m == 1:
        return f"{t} round{'s' if t > 1 else ''}"
    return f"1 of {m}" if entry["target"] == "member" else f"sum of {m}"


def _cells(entry: dict[str, Any]) -> list[str]:
    """Returns the printed figures of one entry."""
    cells = []
    for name in ("auc", "precision", "chance"):
        mean, error = entry[name]["mean"], entry[name]["error"]
        text = "-" if mean is None else f"{mean:.3f}"
        if name != "chance" and error is not None:
            text += f"±{f'{error:.3f}'.lstrip('0')}"
        cells.append(text)
    return cells


def main(argv: list[str]) -> int:
    """Attacks the rows and returns the exit code."""

    def work() -> None:
        settings = cli.settings_from_flags()
        out = pathlib.Path(settings.pop("out") or "runs/attack")
        plan = plan_from_flags()
        texts = flags.FLAGS.vary or [""]
        configs = [cli.configure_row(apply(settings, read_row(text))) for text in texts]
        for config in configs:  # a bad row raises here
            check_plan(plan, config)
        held = lock(out)
        rows = []
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.closing(ConsoleReporter()) as callback,
        ):
            kept = pathlib.Path(folder) / "pretraining"
            for number, (text, config) in enumerate(zip(texts, configs, strict=True)):
                callback.note(f"row {number}: {text or 'the settings'}")
                found = attack_row(config, plan, callback, kept)
                rows.append(
                    {
                        "row": text or "the settings",
                        "config": config.flat(),
                        "plan": plan._asdict(),
                        "attacks": found,
                    }
                )
                # After every row, so that an interruption loses only one.
                content = {"format": 1, "knowledge": KNOWLEDGE, "rows": rows}
                (out / "attack.json").write_text(json.dumps(content, indent=2))
        held.release()
        print_table(rows)
        print(f"results: {out / 'attack.json'}")

    return cli.exit_code(work, argv)
