"""What the user sees: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pylonny.demo.tables import Look, Tenant, together

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDTH = 100  # of the longest line of text, if there is room for it
_TITLE = 15  # width of the summary's first column
_LINE_SECONDS = 1.0  # between two plain lines of progress
_MAX_ROWS = 14  # channels in the live table, if there is room for them
_AROUND = 9  # lines of a terminal that they leave to everything else


def open_screen() -> Screen:
    """A live screen where there is a terminal that can show it, and rich to draw it."""
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        try:
            from rich.console import Console
        except ModuleNotFoundError:  # it comes with the extra "embedded" only
            return Screen()
        return LiveScreen(Console(highlight=False))
    return Screen()


class Screen:
    """Plain lines, good for a log or a pipe."""

    def __init__(self) -> None:
        self._last = -_LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, text: str, style: str = "") -> None:
        """Print something that stays, its lines broken between words, indented lines as they are.

        style: what rich calls a colour or the like, for a terminal.
        """
        self.print("\n".join(wrapped(line) for line in text.split("\n")), style)

    def print(self, text: str, style: str = "") -> None:  # noqa: ARG002 - there are no colours here
        """Print as it is."""
        print(text, flush=True)

    def show(self, look: Look) -> None:
        """Show how far the work is."""
        if look.seconds - self._last >= _LINE_SECONDS:
            self._last = look.seconds
            now = look.all()
            self.print(
                f"{look.seconds:5.1f} s  {now.done:,} of {now.total:,} done, {now.waiting:,} waiting,"
                f" {now.ready:,} ready, {now.locked:,} locked"
            )

    def close(self) -> None:
        """Take away what makes sense only while the work goes on."""

    def summarise(self, claims: Sequence[tuple[str, str]], problems: Sequence[str]) -> None:
        """Print titles and their texts side by side, and problems after them."""
        for title, text, style in [
            *((title, text, "") for title, text in claims),
            *(("WRONG", text, "bold red") for text in problems),
        ]:
            lines = textwrap.indent(wrapped(text, _WIDTH - _TITLE), " " * _TITLE)
            self.print(f"  {title}".ljust(_TITLE) + lines[_TITLE:], style)


class LiveScreen(Screen):
    """A bar and a table of channels, drawn anew at every look, below the lines that stay."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        super().__init__()
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def print(self, text: str, style: str = "") -> None:
        """Print as it is, in style."""
        self._console.print(text, style=style or None, markup=False, soft_wrap=True)

    def show(self, look: Look) -> None:
        """Draw the bar and the table."""
        self._live.start()
        self._live.update(self._draw(look), refresh=True)

    def close(self) -> None:
        """Take the bar and the table away."""
        self._live.stop()

    def _draw(self, look: Look) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        now = look.all()
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        speed = f"{now.done / look.seconds:,.0f} a second" if look.seconds else ""
        bar.add_row(
            ProgressBar(total=now.total, completed=now.done),
            f"{now.done:,} of {now.total:,} files, {look.seconds:.0f} s, {speed}",
        )
        table = Table(box=None, expand=True, padding=(0, 1))
        table.add_column("channel", ratio=2, no_wrap=True)
        table.add_column("rule", no_wrap=True, style="cyan")
        for heading, style in (
            ("waiting", "yellow"),
            ("ready", "blue"),
            ("locked", "magenta"),
            ("done", "green"),
        ):
            table.add_column(heading, justify="right", min_width=7, style=style)
        table.add_column(ratio=1)
        for tenant in busiest(look.tenants, max(1, min(_MAX_ROWS, self._console.height - _AROUND))):
            counts = (tenant.waiting, tenant.ready, tenant.locked, tenant.done)
            table.add_row(
                tenant.name,
                tenant.rule,
                *(f"{count:,}" if count else "" for count in counts),
                ProgressBar(total=tenant.total, completed=tenant.done),
            )
        return Group("", bar, "", table)


def busiest(tenants: Sequence[Tenant], rows: int) -> list[Tenant]:
    """The tenants with a rule, then the largest, and, if these are too many rows, all others as one."""
    ordered = sorted(tenants, key=lambda tenant: (not tenant.rule, -tenant.total, tenant.name))
    if len(ordered) <= rows:
        return ordered
    shown, others = ordered[: rows - 1], ordered[rows - 1 :]
    return [*shown, together(f"{len(others):,} others", others)]


def wrapped(text: str, width: int = _WIDTH) -> str:
    """Text with its lines broken, for the terminal's width and no wider than asked; if indented as it is."""
    if text.startswith(" "):
        return text
    narrower = shutil.get_terminal_size((_WIDTH, 24)).columns - (_WIDTH - width)
    return "\n".join(textwrap.wrap(text, max(20, min(width, narrower)), break_on_hyphens=False))
