# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench COMMAND}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tests.bench import library, measure, memory, profile, proxy, scaling
from tests.real.servers import missing, raiseFileLimit

#: What there is to measure: name, main function, what it does.
COMMAND_NAMES: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "proxy": (proxy.main, "the proxy against nutcracker, workload by workload"),
    "scaling": (scaling.main, "how cost grows with clients, sizes of values and depth of pipelines"),
    "memory": (memory.main, "what idle sessions and connections hold"),
    "library": (library.main, "what calls cost in a program that embeds the pool"),
    "profile": (profile.main, "where the proxy's time goes"),
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
