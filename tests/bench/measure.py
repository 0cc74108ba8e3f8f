# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What a process has cost so far, read from Linux, and what machine this is.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Self

#: What L{Cost.total} is read from, for reports.
CLOCK = "the process's CPU clock (user and system time of all its threads and children, in ns)"

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """
    Seconds of processor time of a process and its children.

    @ivar total: exact to the nanosecond.
    @ivar user: the part spent in the program. It comes from the system's tick accounting, which splits L{total}
        by samples a hundred or so times a second: good for seconds, not for milliseconds.
    @ivar system: the part spent in the system for the program.
    """

    total: float
    user: float
    system: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """
        Read what the process has used until now.

        @raise OSError: when there is no such process.
        """
        total = user = system = 0.0
        for process in _family(pid):
            # The clock id that clock_getcpuclockid(3) computes for a process; Python has no call for it.
            total += time.clock_gettime_ns(~process << 3 | 2) / 1e9
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11]) / _TICK
            system += int(fields[12]) / _TICK
        return cls(total, user, system)

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(self.total - earlier.total, self.user - earlier.user, self.system - earlier.system)


def residentSize(pid: int) -> int:
    """
    Bytes of memory which the process and its children hold, shared pages included in each.
    """
    size = 0
    for process in _family(pid):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        size += int(fields["VmRSS"].split()[0]) * 1024
    return size


def _family(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from _family(int(child))


def processors(pin: bool) -> tuple[Set[int], Set[int]]:
    """
    Share the processors between the contender and everything else (load and memcached).

    @param pin: C{False} to let all run anywhere.
    @return: those of the contender, then the others. With a single processor both are the same.
    """
    available = sorted(os.sched_getaffinity(0))
    if not pin or len(available) < 2:
        return set(available), set(available)
    return {available[0]}, set(available[1:])


@contextmanager
def pinned(processors: Set[int]) -> Iterator[None]:
    """
    Have the processes that are started in this context run on these processors only.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, str | int]:
    """
    Where and with what the figures were taken.
    """
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    return {
        "date": date.today().isoformat(),
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "processors": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "twisted": version("twisted"),
    }


def unable() -> str | None:
    """
    Say why these measurements cannot be taken here, or C{None}.
    """
    return None if sys.platform == "linux" else "the benchmarks read processor times as only Linux gives them"
