"""A report as one HTML page, which needs no other file and no network."""

import html
import importlib.resources
import re

from fedpeft_jax.reports.elements import Commands, Figure, Report, Section, Table
from fedpeft_jax.reports.plots import unique_ids

_WIDE = 1.8  # width over height of plots with several panels


def as_page(report: Report) -> str:
    """Returns a report as the text of an HTML file.

    Args:
      report: the report.
    """
    style = importlib.resources.files("fedpeft_jax.reports").joinpath("style.css")
    title = html.escape(report.title)
    links = "\n".join(
        f'<a href="#{_anchor(section.title)}">{html.escape(section.title)}</a>'
        for section in report.sections
    )
    body = "\n".join(_section(s, place) for place, s in enumerate(report.sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style.read_text()}</style>
</head>
<body>
<h1>{title}</h1>
<p class="summary">{html.escape(report.summary)}</p>
<nav aria-label="Contents">
{links}
</nav>
{body}
</body>
</html>
"""


def _section(section: Section, place: int) -> str:
    title = f"<h2>{html.escape(section.title)}</h2>"
    name = f' id="{_anchor(section.title)}"'
    if section.warns:
        lines = "\n".join(f"<li>{html.escape(text)}</li>" for text in section.text)
        return f'<section class="warns"{name}>{title}<ul>\n{lines}\n</ul></section>'
    parts = [f"<p>{html.escape(text)}</p>" for text in section.text]
    figures = [part for part in section.parts if isinstance(part, Figure)]
    plots = [_figure(part, f"s{place}f{n}-") for n, part in enumerate(figures)]
    grid = '<div class="plots">\n{}\n</div>' if len(plots) > 1 else "{}"
    parts += [grid.format("\n".join(plots))] if plots else []
    for part in section.parts:
        if isinstance(part, Table):
            parts.append(_table(part))
        elif isinstance(part, Commands):
            parts += [
                f"<h3>{html.escape(name)}</h3>\n<pre>{html.escape(line)}</pre>"
                for name, line in part.lines
            ]
    return "\n".join([f"<section{name}>", title, *parts, "</section>"])


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.head)
    rows = []
    for place, row in enumerate(table.rows):
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        strong = ' class="strong"' if place in table.strong else ""
        rows.append(f"<tr{strong}>{cells}</tr>")
    note = f'\n<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    body = "\n".join(rows)
    return (
        '<div class="scroll" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>{note}"
    )


def _figure(figure: Figure, prefix: str) -> str:
    title, description = html.escape(figure.title), html.escape(figure.description)
    svg = unique_ids(figure.svg, prefix)
    names = f'role="img" aria-labelledby="{prefix}title {prefix}text"'
    inside = (
        f'<title id="{prefix}title">{title}</title>'
        f'<desc id="{prefix}text">{description}</desc>'
    )
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    wide = box is not None and float(box[1]) / float(box[2]) > _WIDE - 0.05
    kind = "wide" if wide else "plot"
    note = f" {html.escape(figure.note)}" if figure.note else ""
    return (
        f'<figure>\n<div class="scroll"><div class="{kind}">{head} {names}>{inside}'
        f"{rest}</div></div>\n<figcaption><b>{title}.</b>{note}</figcaption>\n</figure>"
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
