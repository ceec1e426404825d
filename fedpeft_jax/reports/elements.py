"""The parts of a report, which the HTML page and the Markdown file are made from."""

from typing import NamedTuple


class Table(NamedTuple):
    """A table.

    Attributes:
      head: the titles of the columns. The first column holds text, the others numbers.
      rows: one text per column.
      strong: the numbers of the rows that stand out.
      note: what a reader of the table has to know; may be empty.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()
    note: str = ""


class Figure(NamedTuple):
    """A plot.

    Attributes:
      title: a short title.
      description: what the plot shows, for those who cannot see it.
      svg: the plot as an SVG element.
      note: what a reader of the plot has to know; may be empty.
    """

    title: str
    description: str
    svg: str
    note: str = ""


class Commands(NamedTuple):
    """Command lines that a reader may copy.

    Attributes:
      lines: pairs of a title and a command.
    """

    lines: tuple[tuple[str, str], ...]


class Section(NamedTuple):
    """A part of a report with a title.

    Attributes:
      title: the title.
      text: paragraphs of plain text.
      parts: tables, plots and commands, in order.
      warns: whether the section holds warnings.
    """

    title: str
    text: tuple[str, ...] = ()
    parts: tuple[Table | Figure | Commands, ...] = ()
    warns: bool = False


class Report(NamedTuple):
    """A whole report.

    Attributes:
      title: its title.
      summary: what the runs have in common, in one or two sentences.
      sections: its parts.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
