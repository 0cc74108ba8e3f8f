# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The processor time and memory of a process, read from Linux, and a description of the machine.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import sysconfig
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Self

from txconnpool import native

#: The source of L{Cost.total}, for reports.
CLOCK = "the process's CPU clock (user and system time of all its threads and children, in ns)"

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """
    The processor time of a process and its children, in seconds.

    @ivar total: user and system time, with a resolution of one nanosecond.
    @ivar user: the part in user mode. It comes from the kernel's tick accounting, which samples about a hundred times a
        second: accurate for seconds, not for milliseconds.
    @ivar system: the part in the kernel, from the same source.
    """

    total: float
    user: float
    system: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """
        Read the processor time that the process has used so far.

        @raise OSError: there is no such process.
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
    Read the resident memory of a process and its children, in bytes. Shared pages count once for each process.
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
    Divide the processors between the contender and everything else (load and memcached).

    @param pin: C{False}: all may run on every processor.
    @return: the processors of the contender, and those of everything else. They are the same without C{pin}, and on a
        machine with one processor.
    """
    available = sorted(os.sched_getaffinity(0))
    if not pin or len(available) < 2:
        return set(available), set(available)
    return {available[0]}, set(available[1:])


@contextmanager
def pinned(processors: Set[int]) -> Iterator[None]:
    """
    Make processes that are started in this context run on these processors only.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _build() -> str:
    """
    Say how the interpreter was built, on which its speed depends: by which system, or with which options. The directory
    of an installation is left out.
    """
    if Path(sys.executable).resolve().parent == Path("/usr/bin"):
        return f"of {platform.freedesktop_os_release()['PRETTY_NAME']}"
    words = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
    options = [word for word in words if re.fullmatch(r"--(enable|disable|with|without)-[\w-]+", word)]
    return "configured with " + (" ".join(options) or "no options")


def machine() -> dict[str, str | int]:
    """
    Describe the date, the machine and the software of a measurement.
    """
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    version = platform.python_version()
    return {
        "date": date.today().isoformat(),
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "processors": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {version} {_build()} ({native.IMPLEMENTATION})",
        "twisted": metadata.version("twisted"),
    }


def unable() -> str | None:
    """
    @return: the reason why these measurements cannot be taken on this system, or C{None}.
    """
    return None if sys.platform == "linux" else "the benchmarks read processor times as only Linux gives them"
