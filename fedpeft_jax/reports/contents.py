"""Puts a report together: what it says about some rows, in which order."""

from collections.abc import Iterable, Mapping

from fedpeft_jax.experiment.pareto import ParetoRow
from fedpeft_jax.experiment.privacy_report import privacy_lines
from fedpeft_jax.experiment.seeds import row_warnings
from fedpeft_jax.reports import commands, figures, tables
from fedpeft_jax.reports.collect import Collected
from fedpeft_jax.reports.differences import HOW_DIFFERENCES, differences
from fedpeft_jax.reports.elements import Commands, Report, Section, Table


def make_report(collected: Collected, title: str = "") -> Report:
    """Returns the report of some runs.

    Args:
      collected: the runs.
      title: its title; by default the name of the data set.
    """
    compared = collected.compared
    data = compared.dataset
    several = len(compared.rows) > 1
    sections = [
        Section("Warnings", tuple(_warnings(collected)), warns=True),
        Section("Accuracy", (_reading(collected),), (tables.accuracy(collected),)),
        Section(
            f"Differences to {collected.reference.label}",
            (HOW_DIFFERENCES,) * several,
            (differences(collected),) * several,
        ),
        Section("Learning curves", (), figures.learning_curves(collected)),
        Section("Accuracy against bytes", (), figures.pareto(collected)),
        Section("Settings", (), figures.sweeps(collected)),
        Section(
            "Who is served well",
            (tables.HOW_SLICES,),
            (*figures.activity(collected), *tables.slices(collected)),
        ),
        Section("What was released", tuple(_released(collected))),
        Section("Time and memory", (tables.HOW_COSTS,), (tables.costs(collected),)),
        Section("Commands", (_HOW_COMMANDS,), (_commands(collected),)),
        Section("Versions", (), tuple(_versions(collected))),
    ]
    return Report(
        title=title or f"{data['name']}: {_count(len(compared.rows), 'configuration')}",
        summary=_summary(collected),
        sections=tuple(s for s in sections if s.text or s.parts),
    )


_HOW_COMMANDS = (
    "Each command makes the runs of a row again. Settings that are left out have their "
    "defaults, and files are named as they were when the run was made."
)


def _summary(collected: Collected) -> str:
    data, rows = collected.compared.dataset, collected.compared.rows
    seeds = sorted({len(row.seeds) for row in rows})
    many = " to ".join(str(count) for count in {seeds[0]: 0, seeds[-1]: 0})
    parts = [f"{data['name']}"]
    if "users" in data and "items" in data:
        parts.append(f"{data['users']:,} users, {data['items']:,} items")
    if "split" in data:
        parts.append(f"split by {data['split']}")
    noun = "seed" if many == "1" else "seeds"
    each = " each" if len(rows) > 1 else ""
    count = _count(len(rows), "configuration")
    return f"{', '.join(parts)}. {count}, {many} {noun}{each}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _reading(collected: Collected) -> str:
    best = max(
        collected.compared.rows, key=lambda row: row.figures["sampled", "ndcg@10"].mean
    )
    figure = best.figures["sampled", "ndcg@10"]
    return (
        "Metrics of the test items, as mean ± standard deviation over the seeds. "
        "Each test item is ranked against drawn candidates, and in the columns 'all' "
        "against every item that the user has not interacted with. "
        f"{best.label} has the highest NDCG@10 (sampled), {figure.mean:.3f}. Rows in "
        "bold are on the Pareto front of bytes and NDCG@10: no other row is as "
        "accurate with fewer bytes."
    )


def _warnings(collected: Collected) -> Iterable[str]:
    """Yields what a reader has to know before the figures."""
    rows = collected.compared.rows
    for folder, reason in collected.missing:
        yield f"{folder} {reason} and is left out."
    for row in rows:
        yield from _row_warnings(row)
    single = [row.label for row in rows if len(row.seeds) == 1]
    if single:
        which = "every row" if len(single) == len(rows) else ", ".join(single)
        yield f"One seed only, so that the spread over seeds is unknown: {which}."
    for note in collected.compared.notes:
        yield f"{note[0].upper()}{note[1:]}."


def _row_warnings(row: ParetoRow) -> Iterable[str]:
    """Yields each kind of warning once, and which seeds stopped early."""
    for line in row_warnings([run.summary for run in row.runs]):
        yield f"{row.label}: {line}."
    for run in row.runs:
        config, rounds = run.summary["config"], run.summary.get("rounds", {})
        if rounds.get("run", config["rounds"]) < config["rounds"]:
            yield (
                f"{row.label}, seed {config['seed']}: stopped early, after "
                f"{rounds['run']} of {config['rounds']} rounds."
            )


def _released(collected: Collected) -> Iterable[str]:
    """Yields the guarantee of every row, and what its upload reveals."""
    plain = []
    for row in collected.compared.rows:
        summary = row.runs[0].summary
        lines = [line.strip() for line in privacy_lines(summary.get("privacy"))]
        reveals = summary["communication"].get("reveals") or ()
        if not lines:
            plain.append(row.label)
        lines += [f"the upload reveals {text}" for text in reveals]
        if lines:
            yield f"{row.label}: {'; '.join(lines)}."
    if plain:
        which = ", ".join(plain)
        yield (
            "Without a guarantee, because the server sees the update of every client: "
            f"{which}."
        )


def _commands(collected: Collected) -> Commands:
    return Commands(
        tuple(
            (row.label, commands.command(row.runs[0].summary["config"], row.seeds))
            for row in collected.compared.rows
        )
    )


def _versions(collected: Collected) -> Iterable[Table]:
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for row in collected.compared.rows:
        for run in row.runs:
            versions: Mapping[str, str] = run.summary.get("versions", {})
            key = tuple(versions.items())
            found[key] = found.get(key, 0) + 1
    for versions_, count in found.items():
        if versions_:
            names, values = zip(*versions_, strict=True)
            yield Table(("runs", *names), ((str(count), *values),))
