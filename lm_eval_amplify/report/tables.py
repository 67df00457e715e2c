"""Tables, and the forms that they are written in: on a terminal, Markdown, CSV, and HTML that loads nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from itertools import starmap
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c1e21 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .2rem } p { margin: .3rem 0 .6rem; color: #555 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
th { border-bottom: 2px solid #888; white-space: nowrap } .number { text-align: right; white-space: nowrap }
.long { font-size: .8rem; color: #666; overflow-wrap: anywhere; min-width: 16rem }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #e4e6e8 } p, .long { color: #a2a6ab }
  th, td { border-color: #3a3d41 } th { border-bottom-color: #777 }
}
"""


class Column(NamedTuple):
    """One column of a table."""

    title: str
    is_number: bool = False
    is_long: bool = False
    """Left out on a terminal, where there is no room."""


class Table(NamedTuple):
    """A table with its title."""

    title: str
    note: str
    """What to know of it; may be empty."""
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def for_terminal(tables: Sequence[Table]) -> RenderableType:
    """Return the tables for rich to print."""
    return Group(*(part for table in tables for part in _for_terminal(table)))


def as_markdown(title: str, tables: Sequence[Table]) -> str:
    """Return the tables in GitHub's Markdown."""
    parts = [f"# {_cell(title)}"]
    for table in tables:
        parts.append(f"## {_cell(table.title)}")
        if table.note:
            parts.append(_cell(table.note))
        lines = [[_cell(column.title) for column in table.columns]]
        lines.append(["---:" if column.is_number else "---" for column in table.columns])
        lines += [[_cell(cell) for cell in row] for row in table.rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV; None and NaN are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if cell is None or cell != cell else cell for cell in row])  # NaN
    return file.getvalue()


def as_html(title: str, tables: Sequence[Table]) -> str:
    """Return a page with everything in it: no script, nothing that is loaded."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for table in tables:
        parts.append(f"<h2>{escape(table.title)}</h2>")
        if table.note:
            parts.append(f"<p>{escape(table.note)}</p>")
        parts.append(html_table(table))
    content = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{content}\n</body>\n</html>\n"
    )


def html_table(table: Table) -> str:
    """Return a table's columns and rows for a page, scrolled where it is too wide."""
    head = "".join(f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in table.columns)
    body = "\n".join(
        f"<tr>{''.join(starmap(_html_cell, zip(table.columns, row, strict=True)))}</tr>" for row in table.rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _for_terminal(table: Table) -> list[RenderableType]:
    shown = [not column.is_long for column in table.columns]
    drawn = RichTable()
    for column, is_shown in zip(table.columns, shown, strict=True):
        if is_shown:
            drawn.add_column(Text(column.title), justify="right" if column.is_number else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell, is_shown in zip(row, shown, strict=True) if is_shown))
    return [Text(table.title, style="bold"), *([drawn] if table.rows else []), Text(f"{table.note}\n")]


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _html_cell(column: Column, cell: str) -> str:
    return f"<td{_class(column)}>{escape(cell)}</td>"


def _class(column: Column) -> str:
    return ' class="number"' if column.is_number else ' class="long"' if column.is_long else ""
