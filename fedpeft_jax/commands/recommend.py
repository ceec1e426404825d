"""Prints what a run recommends: to a user, or beside an item.

    fedpeft-jax recommend --run=runs/a --user=17
    fedpeft-jax recommend --run=runs/a --item=2571 --k=5

The run need not have finished.
"""

from absl import flags
from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli
from fedpeft_jax.serving import TrainedModel, load

_SHOWN = 10  # the last items of a history


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string("run", None, "folder of the run")
    flags.DEFINE_string("user", None, "original id of a user")
    flags.DEFINE_string("item", None, "original id of an item")
    flags.DEFINE_integer("k", 10, "number of items to print")


def user_tables(model: TrainedModel, user: str, k: int) -> Group:
    """Returns what a user interacted with, and the items recommended to the user."""
    history = model.history(user)
    best = model.recommend(user, k)
    number = min(_SHOWN, history.height)
    title = f"user {user}: the last {number} of {history.height} items"
    past = _table(title, "item", "title", "part")
    for item, name, part in history.tail(_SHOWN).iter_rows():
        past.add_row(str(item), name or "", part.replace("_", " "))
    return Group(past, Text(), _ranked(f"recommended to user {user}", best.rows()))


def item_table(model: TrainedModel, item: str, k: int) -> Table:
    """Returns the items whose embeddings are nearest to an item's."""
    near = model.similar_items(item, k)
    title = dict(zip(map(str, model.item_ids.tolist()), model.titles, strict=True))
    name = f"item {item} ({title[item]})" if title.get(item) else f"item {item}"
    return _ranked(f"nearest to {name}", [(None, *row) for row in near.rows()])


def _ranked(title: str, rows: list[tuple[object, ...]]) -> Table:
    table = _table(title, "rank", "item", "title", "score")
    for _, rank, item, name, score in rows:
        table.add_row(str(rank), str(item), str(name or ""), f"{score:.3f}")
    return table


def _table(title: str, *columns: str) -> Table:
    # As text, because a title in brackets is no markup.
    table = Table(
        title=Text(title), title_justify="left", box=SIMPLE, show_edge=False,
        pad_edge=False,
    )  # fmt: skip
    for column in columns:
        right = column in ("rank", "score")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def main(argv: list[str]) -> int:
    """Prints the tables and returns the exit code."""

    def work() -> None:
        given = flags.FLAGS
        if given.run is None:
            raise InputError("no run is given: set --run=DIR")
        if (given.user is None) == (given.item is None):
            raise InputError("set either --user=ID or --item=ID")
        model = load(given.run)
        if given.user is not None:
            printed = user_tables(model, given.user, given.k)
        else:
            printed = item_table(model, given.item, given.k)  # type: ignore[assignment]
        Console(highlight=False, markup=False).print(printed)

    return cli.exit_code(work, argv)
