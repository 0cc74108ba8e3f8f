# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Run C{twistd} and note, at regular amounts of processor time, which line it is at::

    python -m tests.bench.sampler FILE -n connpool ...

L{BEGIN} starts the sampling and L{END} writes what was seen to the file, so that only the load is seen. Unlike a
profiler that is called for every function this leaves the proportions as they are: small functions do not look dear.
Time spent in the system counts for the line that called it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from types import FrameType
from typing import TypedDict

BEGIN = signal.SIGRTMIN
END = signal.SIGRTMIN + 1

#: Seconds of processor time between samples; the system may round this up to its own tick.
INTERVAL = 0.001

#: File, function and the line in it.
Spot = tuple[str, str, int]


class Samples(TypedDict):
    """
    What L{END} writes.

    C{stacks}: how often each chain of calls was seen, innermost first.
    """

    stacks: list[tuple[list[Spot], int]]


class Sampler:
    """
    Collects samples of the main thread.
    """

    def __init__(self, file: str) -> None:
        """
        @param file: where to write.
        """
        self.file = file
        self.seen: Counter[tuple[Spot, ...]] = Counter()

    def install(self) -> None:
        """
        Listen to the signals.
        """
        signal.signal(signal.SIGPROF, self.sample)
        signal.signal(BEGIN, self.begin)
        signal.signal(END, self.end)

    def begin(self, number: int, frame: FrameType | None) -> None:
        """
        Forget everything and start.
        """
        self.seen.clear()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def sample(self, number: int, frame: FrameType | None) -> None:
        """
        Note where the program is.
        """
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno or 0))
            frame = frame.f_back
        self.seen[tuple(stack)] += 1

    def end(self, number: int, frame: FrameType | None) -> None:
        """
        Stop and write.
        """
        signal.setitimer(signal.ITIMER_PROF, 0)
        samples = Samples(stacks=[(list(stack), count) for stack, count in self.seen.items()])
        with open(self.file + ".part", "w", encoding="utf-8") as stream:
            json.dump(samples, stream)
        os.replace(self.file + ".part", self.file)


def main() -> None:
    """
    Become C{twistd}.
    """
    from twisted.scripts.twistd import run

    Sampler(sys.argv[1]).install()
    sys.argv[:2] = ["twistd"]
    run()


if __name__ == "__main__":
    main()
