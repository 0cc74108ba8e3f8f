# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench COMMAND}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tests.bench import instructions, library, measure, memory, profile, proxy, scaling, soak
from tests.real.servers import missing, raiseFileLimit

#: The commands, by name: the main function and a description.
COMMAND_NAMES: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "proxy": (proxy.main, "compare the proxy with nutcracker, for each workload"),
    "scaling": (scaling.main, "measure cost by number of clients, size of values and depth of pipelines"),
    "memory": (memory.main, "measure the memory of idle sessions and connections"),
    "library": (library.main, "measure the cost of a call in a program that embeds the pool"),
    "instructions": (instructions.main, "count the instructions of the processor for each request"),
    "soak": (soak.main, "put the proxy under a long load with faults, and show what it holds"),
    "profile": (profile.main, "show which functions and lines of the proxy use the time"),
}


def main(arguments: Sequence[str]) -> int:
    """
    Run one command.

    @return: the exit status.
    """
    name = arguments[0] if arguments else ""
    if name not in COMMAND_NAMES:
        width = max(map(len, COMMAND_NAMES))
        lines = [f"  {command:{width}}  {about}" for command, (_, about) in COMMAND_NAMES.items()]
        sys.stderr.write("\n".join(["usage: python -m tests.bench COMMAND [--help]", "", *lines, ""]))
        return 2
    if reason := measure.unable() or missing("memcached"):
        sys.stderr.write(f"{reason}\n")
        return 1
    raiseFileLimit()
    run, _ = COMMAND_NAMES[name]
    return run(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
