"""A comparison for readers and for machines: tables, CSV, JUnit XML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from lm_eval_amplify.report.comparing import Compared, Comparison, Verdict
from lm_eval_amplify.report.formatting import shorten, show, show_p
from lm_eval_amplify.report.tables import Column, Table

TITLE = "Comparison of results"
CSV_COLUMNS = (
    *("task", "metric", "filter", "old", "new", "difference", "low", "high", "p", "adjusted_p", "method", "documents"),
    *("verdict", "is_failure", "note", "old_file", "new_file"),
)

_SEVERITY: tuple[Verdict, ...] = ("regression", "not comparable", "changed", "better", "unclear", "new", "same")
_VERDICTS = {0: "passed", 1: "failed", 3: "not comparable"}


def summary(comparison: Comparison) -> str:
    """Return the outcome in a sentence: ``failed: 1 regression, 12 same``."""
    counts = Counter(one.verdict for one in comparison.compared)
    found = [f"{counts[verdict]} {verdict}" for verdict in _SEVERITY if counts[verdict]]
    return f"{_VERDICTS[comparison.exit_status]}: {', '.join(found) or 'nothing to compare'}"


def rules_in_words(comparison: Comparison) -> str:
    """Return what a failure is."""
    rules = comparison.rules
    if rules.fail_on == "change":
        return f"Fails on any difference of more than {rules.tolerance}."
    number = sum(one.difference is not None for one in comparison.compared)
    family = f"for all {number} together (Holm)" if rules.correct else "for each by itself"
    worse = f"Fails where a metric is worse by more than {rules.tolerance} and chance is ruled out"
    return f"{worse}, alpha {rules.alpha:g} {family}."


def tables_of(comparison: Comparison, *, is_short: bool) -> list[Table]:
    """Return what was found, the worst first, and what differs between the runs.

    Args:
        comparison: The comparison.
        is_short: Leave out what is the same.
    """
    shown = [one for one in comparison.compared if not (is_short and one.verdict == "same")]
    shown.sort(key=lambda one: (not one.is_failure, _SEVERITY.index(one.verdict)))
    columns = [
        Column("task"),
        Column("metric"),
        Column("old", is_number=True),
        Column("new", is_number=True),
        Column("difference", is_number=True),
        Column(f"{100 * (1 - comparison.rules.alpha):g} % interval", is_number=True),
        Column("adjusted p" if comparison.rules.correct else "p", is_number=True),
        Column("test"),
        Column("verdict"),
    ]
    tables = []
    if shown:
        rows = [_cells(one) for one in shown]
        tables.append(Table(summary(comparison), rules_in_words(comparison), columns, rows))
    else:
        tables.append(Table(summary(comparison), rules_in_words(comparison), [Column("")], []))
    if comparison.settings:
        settings = [(name, *map(shorten, sides)) for name, sides in comparison.settings.items()]
        names = [Column("setting"), Column("old"), Column("new")]
        tables.append(Table("What differs between the runs", "", names, settings))
    return tables


def reasons(comparison: Comparison) -> list[str]:
    """Return why metrics are not comparable, a line for each reason with the tasks that it is for."""
    tasks: dict[str, dict[str, None]] = {}
    for one in comparison.compared:
        if one.verdict == "not comparable":
            tasks.setdefault(one.note, {})[one.row.task] = None
    return [f"not comparable: {', '.join(own)}: {note}" for note, own in tasks.items()]


def csv_rows(comparison: Comparison) -> list[tuple[object, ...]]:
    """Return a row of :data:`CSV_COLUMNS` for each metric."""
    return [
        (
            *one.row.key,
            one.old and one.old.value,
            one.new and one.new.value,
            *((d.difference, d.low, d.high, d.p) if (d := one.difference) else (None,) * 4),
            one.p,
            d.method if d else None,
            d.documents if d else None,
            one.verdict,
            int(one.is_failure),
            one.note,
            one.old and one.old.file,
            one.new and one.new.file,
        )
        for one in comparison.compared
    ]


def as_junit(comparison: Comparison) -> str:
    """Return JUnit XML: a suite for each task, a case for each metric; what is not comparable is an error."""
    root = ET.Element("testsuites", name="lm-eval-amplify compare")
    suites: dict[str, list[Compared]] = {}
    for one in comparison.compared:
        suites.setdefault(one.row.task, []).append(one)
    for task, own in suites.items():
        suite = ET.SubElement(root, "testsuite", name=_plain(task))
        _count(suite, own)
        for one in own:
            case = ET.SubElement(
                suite, "testcase", classname=_plain(task), name=_plain(f"{one.row.metric},{one.row.filter}")
            )
            words = _plain(in_words(one))
            if one.is_failure:
                ET.SubElement(case, "failure", message=words, type=one.verdict)
            elif one.verdict == "not comparable":
                ET.SubElement(case, "error", message=words, type=one.verdict)
            else:
                ET.SubElement(case, "system-out").text = words
    _count(root, comparison.compared)
    ET.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ET.tostring(root, encoding='unicode')}\n"


def in_words(one: Compared) -> str:
    """Return what was found of a metric in a sentence."""
    old, new = (show(row.value) if row else "nothing" for row in (one.old, one.new))
    parts = [f"{one.verdict}: {old} -> {new}"]
    if one.difference is not None:
        low, high = show(one.difference.low, sign=True), show(one.difference.high, sign=True)
        parts.append(f"difference {show(one.difference.difference, sign=True)} [{low}, {high}]")
        parts.append(f"p {show_p(one.p)} ({one.difference.method})")
    return ", ".join([*parts, *([one.note] if one.note else [])])


def _cells(one: Compared) -> Sequence[str]:
    difference = one.difference
    interval = f"{show(difference.low, sign=True)} to {show(difference.high, sign=True)}" if difference else ""
    change = one.new.value - one.old.value if one.old and one.new else None
    arrow = {True: " ↑", False: " ↓", None: ""}[one.row.higher_is_better]
    verdict = f"{one.verdict}: {one.note}" if one.note and one.verdict not in ("same", "unclear") else one.verdict
    return (
        one.row.task,
        one.row.name + arrow,
        show(one.old.value if one.old else None),
        show(one.new.value if one.new else None),
        show(change, sign=True),
        interval,
        show_p(one.p),
        difference.method if difference else "",
        verdict,
    )


def _count(element: ET.Element, own: Sequence[Compared]) -> None:
    failures = sum(one.is_failure for one in own)
    errors = sum(one.verdict == "not comparable" and not one.is_failure for one in own)
    element.set("tests", str(len(own)))
    element.set("failures", str(failures))
    element.set("errors", str(errors))


def _plain(text: str) -> str:
    """Without the characters that XML has no place for."""
    return "".join(character if character.isprintable() else "?" for character in text)
