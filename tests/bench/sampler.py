# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Run C{twistd}, and record its call stack at regular intervals of processor time::

    python -m tests.bench.sampler FILE -n connpool ...

The signal L{BEGIN} starts sampling, and the signal L{END} writes the samples to the file, so that samples can be
limited to the time of the load. Unlike a profiler that is called for every function, a sampler does not make small
functions look expensive. Time in the kernel counts for the line that made the system call.
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

#: Seconds of processor time between samples; the kernel may round this up to its timer tick.
INTERVAL = 0.001

#: File, function and line number.
Spot = tuple[str, str, int]


class Samples(TypedDict):
    """
    The content of the file that L{END} writes.

    C{stacks} has each call stack, innermost function first, and the number of its samples.
    """

    stacks: list[tuple[list[Spot], int]]


class Sampler:
    """
    Collects samples of the main thread.
    """

    def __init__(self, file: str) -> None:
        """
        @param file: the path of the file to write.
        """
        self.file = file
        self.seen: Counter[tuple[Spot, ...]] = Counter()

    def install(self) -> None:
        """
        Install the signal handlers.
        """
        signal.signal(signal.SIGPROF, self.sample)
        signal.signal(BEGIN, self.begin)
        signal.signal(END, self.end)

    def begin(self, number: int, frame: FrameType | None) -> None:
        """
        Discard all samples, and start sampling.
        """
        self.seen.clear()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def sample(self, number: int, frame: FrameType | None) -> None:
        """
        Record the call stack of the interrupted program.
        """
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno or 0))
            frame = frame.f_back
        self.seen[tuple(stack)] += 1

    def end(self, number: int, frame: FrameType | None) -> None:
        """
        Stop sampling, and write the samples.
        """
        signal.setitimer(signal.ITIMER_PROF, 0)
        samples = Samples(stacks=[(list(stack), count) for stack, count in self.seen.items()])
        with open(self.file + ".part", "w", encoding="utf-8") as stream:
            json.dump(samples, stream)
        os.replace(self.file + ".part", self.file)


def main() -> None:
    """
    Install the sampler and run C{twistd} in this process.
    """
    from twisted.scripts.twistd import run

    Sampler(sys.argv[1]).install()
    sys.argv[:2] = ["twistd"]
    run()


if __name__ == "__main__":
    main()
