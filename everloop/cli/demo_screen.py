"""The demo's last screen: what happened in each case, where to look at it, what to try next, where state lives, how to stop."""

from __future__ import annotations

import re
from pathlib import Path

from everloop.cli.demo_report import WIDTH, Outcome, Report
from everloop.core.settings import DEFAULT_HOME, DEFAULT_PORT


def screen(
    report: Report, *, url: str, home: Path, running: bool, pid: int | None, cases_missing: list[str], run: str = "./dev "
) -> list[tuple[str, str]]:
    """Lines of the screen as (text, style), at most 40 where both cases say at most six lines; `run` stands before commands."""
    lines: list[tuple[str, str]] = []
    total = sum(stage.seconds for stage in report.stages)
    whole = all(told.whole for told in report.outcomes.values())
    head = "The loop did not close" if not report.ok else "Once round the loop" if whole else "Part of the way round the loop"
    lines.append(
        (f"{head}: {', '.join(report.cases()) or 'nothing ran'}, {total:.0f} s in {len(report.stages)} stages", "bold" if report.ok else "bold red")
    )
    for case in report.cases():
        lines += _case(report, case, url, running)
    for case in cases_missing:
        lines.append((f"{case}: this installation has no such case, so it did not run", "yellow"))
    commands = _next(report, f"{run}{_environment(home, url)}")
    if commands:
        lines += [("", ""), ("Next" if report.own else "Next, on your own data", "bold"), *((f"  {command}", "") for command in commands)]
    lines.append(("", ""))
    if running:
        lines.append((f"The server answers at {url} (UI: {url}/ui), pid {pid or '?'}; stop it with: {run}everloop down --home {home}", ""))
    else:
        lines.append((f"The server has stopped; start it again with: {run}everloop up --home {home}", ""))
    lines.append((f"State lives in {home} (remove it to begin anew); the server's log is {home / 'server.log'}", ""))
    return [(part, style) for text, style in lines for part in _wrapped(text)]


def _wrapped(text: str) -> list[str]:
    """A line in parts of at most WIDTH columns; what follows the first is indented, and words (ids, URLs) are never cut."""
    import textwrap

    indent = " " * (len(text) - len(text.lstrip()) + 4)
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _environment(home: Path, url: str) -> str:
    """What commands need to know where home or port are not the usual ones."""
    usual = home == Path(DEFAULT_HOME) and url.endswith(f":{DEFAULT_PORT}")
    return "" if usual else f"env EVERLOOP_HOME={home} "


def _case(report: Report, case: str, url: str, running: bool) -> list[tuple[str, str]]:
    told = report.outcomes.get(case) or Outcome(case)
    lines: list[tuple[str, str]] = [("", ""), (f"{case}: {told.title}" if told.title != case else case, "bold")]
    lines += [(f"  {text}", "") for text in told.lines]
    for stage in report.stages:
        if stage.case == case and not stage.ok:
            lines.append((f"  FAILED in {stage.name!r}: {stage.error}", "red"))
            if stage.hint:
                lines.append((f"  {stage.hint}", ""))
    if running:
        lines += [(f"  {label:<13} {url}{path}", "cyan") for label, path in told.links.items()]
    return lines


def _next(report: Report, run: str) -> list[str]:
    """Three commands, taken in turn from the cases."""
    offered = [list(report.outcomes[case].next) for case in report.cases() if case in report.outcomes]
    chosen: list[str] = []
    while len(chosen) < 3 and any(offered):
        for commands in offered:
            if commands and len(chosen) < 3:
                command = commands.pop(0)
                chosen.append(f"{run}{command}" if command.startswith("everloop ") else command)
    return chosen


def draw(lines: list[tuple[str, str]], report: Report) -> None:
    """Print the screen where the stages were shown."""
    show = report.show
    show.text("\n" + "-" * WIDTH if not show.terminal else "\n" + "─" * WIDTH, "dim" if show.terminal else "")
    for text, style in lines:
        show.text(text, style if show.terminal else "")


def save_svg(lines: list[tuple[str, str]], path: Path, title: str = "everloop demo") -> None:
    """The screen as a picture."""
    import io

    from rich.console import Console

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    for text, style in lines:
        console.print(text, style=style or None, markup=False)
    svg = console.export_svg(title=title, font_aspect_ratio=0.61, unique_id="everloop-demo")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"@font-face\s*{[^}]*}\s*", "", svg), encoding="utf-8")  # no font is fetched from elsewhere: monospace will do
