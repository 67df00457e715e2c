"""The page of a study's report: one file of HTML that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lm_eval_amplify.report.study.drawing import SERIES
from lm_eval_amplify.report.study.parts import Absent, Numbers, Picture, Section, counted
from lm_eval_amplify.report.tables import html_table

_DARK_SERIES = ("#6cb2ee", "#f39a5b", "#4cc3a5", "#d98bcf", "#d3b04a", "#a3a6f5", "#c98d74", "#a5afb8")
_SHORT, _NARROW = 20, 8
"""Rows and columns of a table that is shown without being asked for."""
_FEW = 8
"""Units that are named without being asked for."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e22; --soft: #565b62; --faint: #d6d9dd; --paper: #fff; --accent: #b3261e;
  --grey: #73777d; --note: #fff4e0; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a9aeb5; --faint: #3b3f45; --paper: #17191c;
  --accent: #ff8a80; --grey: #9a9fa6; --note: #3a2f1a; DARK } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1.5rem 1rem 4rem;
  color: var(--ink); background: var(--paper); overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem } h2 { font-size: 1.25rem; margin: 0 0 .4rem }
p { margin: .3rem 0 .5rem; max-width: 48rem; color: var(--soft) }
a { color: var(--series-0) } nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none }
section { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--faint) }
.note { background: var(--note); border-radius: 6px; padding: .6rem .9rem; margin: 1rem 0 }
.note p { color: var(--ink) }
figure { margin: 1rem 0 } figcaption { color: var(--soft); font-size: .9rem; margin-top: .3rem }
svg { display: block; height: auto } svg * { stroke-linejoin: round; stroke-linecap: butt }
.wide { overflow-x: auto } .panels > :first-child { grid-column: 1 / -1 } .panels { display: grid; gap: .8rem 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20.5rem), 1fr)) }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .22rem .8rem .22rem 0; text-align: left; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--faint) }
th { border-bottom: 2px solid var(--grey); vertical-align: bottom } .number { text-align: right }
td:first-child { white-space: normal; max-width: 16rem; min-width: 8rem } .beside td:first-child { max-width: 12rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem } summary { cursor: pointer; margin: 1.2rem 0 .3rem; font-weight: 600 }
@media (min-width: 72rem) { .beside { display: grid; grid-template-columns: 30rem minmax(0, 1fr); gap: 0 2rem } }
.files { font-size: .85rem; color: var(--soft); margin: .3rem 0 }
@media print { details > * { display: block } }
"""


def study_page(
    title: str,
    facts: Sequence[str],
    missing: Sequence[str],
    sections: Sequence[Section],
    absent: Sequence[Absent],
) -> str:
    """Return the page.

    Args:
        title: Of the study.
        facts: What it is of, a paragraph each.
        missing: What is not finished.
        sections: With their figures and tables, whose files lie in ``figures/`` and ``tables/``.
        absent: What the study has no data of.
    """
    links = "".join(f'<li><a href="#{escape(one.name)}">{escape(one.title)}</a></li>' for one in sections)
    parts = [f"<h1>{escape(title)}</h1>", *_paragraphs(facts)]
    if missing:
        listed = "".join(f"<li>{escape(one)}</li>" for one in missing)
        units = counted(len(missing), "unit")
        is_open = " open" if len(missing) <= _FEW else ""
        parts.append(
            f'<div class="note" role="note"><p><strong>Not finished: {units} of results missing or damaged.</strong> '
            f"What is below is of the others.</p>\n"
            f"<details{is_open}><summary>Which</summary><ul>{listed}</ul></details></div>"
        )
    parts.append(f'<nav aria-label="Sections"><ul>{links}</ul></nav>')
    parts += [_section(one) for one in sections]
    if absent:
        lines = "".join(f"<li>{escape(one.title)}: {escape(one.why)}.</li>" for one in absent)
        parts.append(f'<section id="not-measured"><h2>Not in this report</h2><ul>{lines}</ul></section>')
    content = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<main>\n{content}\n</main>\n"
        "</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f'<section id="{escape(section.name)}">', f"<h2>{escape(section.title)}</h2>"]
    parts += _paragraphs(section.paragraphs)
    pictures, tables = list(map(_figure, section.pictures)), list(map(_table, section.numbers))
    if pictures and tables and section.is_beside:
        parts.append(f'<div class="beside">\n{pictures.pop(0)}\n<div>\n{tables.pop(0)}\n</div>\n</div>')
    return "\n".join([*parts, *pictures, *tables, "</section>"])


def _figure(picture: Picture) -> str:
    if len(picture.inline) == 1:
        drawn = f'<div class="wide" tabindex="0">{picture.inline[0]}</div>'
    else:
        panels = "\n".join(f'<div class="wide">{panel}</div>' for panel in picture.inline)
        drawn = f'<div class="panels">\n{panels}\n</div>'
    files = " · ".join(_link(f"figures/{picture.name}.{kind}", kind.upper()) for kind in ("svg", "png"))
    return f"<figure>\n{drawn}\n<figcaption>{escape(picture.caption)} {files}</figcaption>\n</figure>"


def _table(numbers: Numbers) -> str:
    table, title = numbers.table, escape(numbers.table.title)
    link = f'<p class="files">{_link(f"tables/{numbers.name}.csv", "CSV, in full")}</p>'
    if numbers.is_shown and len(table.rows) <= _SHORT and len(table.columns) <= _NARROW:
        return f"<h3>{title}</h3>\n{html_table(table)}\n{link}"
    return f"<details><summary>{title}: {len(table.rows)} rows</summary>\n{html_table(table)}\n</details>\n{link}"


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{escape(text)}</p>" for text in texts]


def _link(path: str, text: str) -> str:
    return f'<a href="{escape(path)}">{text}</a>'


def _style() -> str:
    light, dark = (
        "; ".join(f"--series-{i}: {colour}" for i, colour in enumerate(colours)) for colours in (SERIES, _DARK_SERIES)
    )
    return _STYLE.replace("LIGHT", light).replace("DARK", dark)
