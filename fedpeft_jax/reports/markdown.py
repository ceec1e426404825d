"""A report as Markdown, without its plots."""

from fedpeft_jax.reports.elements import Commands, Figure, Report, Table


def as_markdown(report: Report) -> str:
    """Returns a report as the text of a Markdown file.

    Plots are left out; what they show is said in words.

    Args:
      report: the report.

    Example:
      >>> from fedpeft_jax.reports.elements import Section
      >>> table = Table(("", "NDCG@10"), (("Full", "0.360"),))
      >>> print(as_markdown(Report("A", "B.", (Section("C", (), (table,)),))))
      # A
      <BLANKLINE>
      B.
      <BLANKLINE>
      ## C
      <BLANKLINE>
      |  | NDCG@10 |
      | --- | ---: |
      | Full | 0.360 |
      <BLANKLINE>
    """
    parts = [f"# {report.title}", report.summary]
    for section in report.sections:
        parts.append(f"## {section.title}")
        if section.warns:
            parts.append("\n".join(f"- {text}" for text in section.text))
        else:
            parts += section.text
        for part in section.parts:
            if isinstance(part, Table):
                parts.append(_table(part))
            elif isinstance(part, Figure):
                parts.append(f"{part.title}: {part.description}")
            elif isinstance(part, Commands):
                for name, line in part.lines:
                    parts += [f"**{name}**", f"```bash\n{line}\n```"]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [table.head, ("---", *["---:"] * (len(table.head) - 1))]
    for place, row in enumerate(table.rows):
        first = f"**{row[0]}**" if place in table.strong else row[0]
        lines.append((first, *row[1:]))
    text = "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines
    )
    return f"{text}\n\n{table.note}" if table.note else text
