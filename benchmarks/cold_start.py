"""Whole-process time of the main job against the imports it cannot avoid.

Method: each command as a process of its own, in turn, one warm-up, the median of nine; the limit is 1.5 times
``python -c "import numpy, pydantic, typer, rich"`` plus 0.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

IMPORTS = [sys.executable, "-c", "import numpy, pydantic, typer, rich"]
PLAN = [sys.executable, "-m", "perfmodel", "plan", "--model", "llama70b", "--hw", "frontier.yaml"]
HELP = [sys.executable, "-m", "perfmodel", "--help"]


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    runs = [(seconds(IMPORTS), seconds(PLAN), seconds(HELP)) for _ in range(10)][1:]
    imports, plan, usage = (statistics.median(column) for column in zip(*runs, strict=True))
    limit = 1.5 * imports + 0.5
    print(f"imports alone   {imports:6.3f} s")
    print(f"plan            {plan:6.3f} s   limit {limit:.3f} s   {'within' if plan <= limit else 'OVER'}")
    print(f"--help          {usage:6.3f} s")


if __name__ == "__main__":
    main()
