"""What a person sees of a run: each step with its time, and that a long one is still going on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Prints `title` with its seconds when the block is done; in a terminal, a running clock meanwhile.

    Yields:
        A function that says what the step is doing now: beside the clock in a terminal, a line of its own elsewhere.
    """
    began = time.monotonic()
    if out.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=out, transient=True) as progress:
            task = progress.add_task(title, total=None)
            yield lambda text: progress.update(task, description=f"{title}: {text}"[: out.width - 16])
    else:
        yield lambda text: out.print(f"    {text}", markup=False)
    out.print(f"{title}  [dim]{time.monotonic() - began:.1f} s[/dim]")
