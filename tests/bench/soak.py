# -*- test-case-name: tests.bench.test_soak -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench soak}: a long load with faults, and what the proxy holds meanwhile.

What grows without limit is found by what is left over time: resident memory, open descriptors, timers of the reactor,
Deferreds, coroutines, and all objects that Python's garbage collector knows.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.bench.measure import residentSize
from tests.real.load import Load
from tests.real.relay import BLACKHOLE, FREEZE, PASS, REFUSE, Fault, Relay, cut, delay, reset, trickle
from tests.real.servers import Memcached, Proxy
from tests.real.tokens import META_KINDS

#: The measured numbers, with the heading and the divisor of each column.
COLUMNS: Final = {
    "memory": ("MB", 1e6),
    "descriptors": ("descriptors", 1),
    "timers": ("timers", 1),
    "deferreds": ("Deferreds", 1),
    "tasks": ("coroutines", 1),
    "objects": ("objects", 1),
}

#: The faults, one after the other, and how long each lasts, in seconds.
FAULTS: Final[tuple[tuple[Fault, float], ...]] = (
    (cut(), 0.2), (cut(after=1000), 1.0), (reset(after=1000), 1.0), (BLACKHOLE, 2.0), (FREEZE, 2.0), (REFUSE, 1.0),
    (delay(0.1), 1.0), (trickle(), 0.5),
)  # fmt: skip

#: Seconds between two faults.
PAUSE: Final = 3.0

#: The share of the time after which nothing may grow any more, and by which share it may still differ.
WARM: Final = 0.2
TOLERANCE: Final = 0.05

#: The options of the proxy: connections and clients are replaced often.
OPTIONS: Final = (
    "--max-lifetime=7", "--idle-timeout=2", "--keep-alive=1", "--client-idle-timeout=5", "--connect-timeout=0.5",
    "--request-timeout=0.5", "--on-failure=rehash",
)  # fmt: skip


# -- In the process of the proxy


def census() -> dict[str, int]:
    """
    @return: what this process holds.
    """
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    gc.collect()
    objects = gc.get_objects()
    timers: Any = reactor
    return {
        "timers": len(timers.getDelayedCalls()),
        "deferreds": sum(isinstance(each, Deferred) for each in objects),
        "tasks": sum(isinstance(each, Coroutine) for each in objects),
        "objects": len(objects),
    }


def report(path: Path) -> None:
    """
    Write the L{census} to a file, in one step.
    """
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(census()))
    fresh.replace(path)


def runProxy(path: str, *arguments: str) -> None:
    """
    Run C{twistd}, with a L{report} for each signal USR2.
    """
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    caller: Any = reactor
    signal.signal(signal.SIGUSR2, lambda *_: caller.callFromThread(report, Path(path)))
    sys.argv[1:] = arguments
    run()


class WatchedProxy(Proxy):
    """
    A proxy that reports what it holds.

    @ivar path: the file of its report.
    """

    path: Path

    def command(self) -> list[str]:
        """
        Run C{twistd} with L{runProxy}.
        """
        interpreter, _, _, *arguments = super().command()
        program = "import sys; from tests.bench.soak import runProxy; runProxy(*sys.argv[1:])"
        return [interpreter, "-c", program, str(self.path), *arguments]

    def sample(self) -> dict[str, float]:
        """
        @return: the number for each of L{COLUMNS}.
        """
        self.path.unlink(missing_ok=True)
        self.signal(signal.SIGUSR2)
        end = time.monotonic() + 30
        while not self.path.exists():
            if time.monotonic() > end:
                raise TimeoutError("the proxy does not report")
            time.sleep(0.02)
        own = json.loads(self.path.read_text())
        descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
        return {"memory": residentSize(self.pid), "descriptors": descriptors, **own}


# -- The load


def trouble(relays: Sequence[Relay]) -> Iterator[float]:
    """
    Inject faults, each into one of the relays in turn.

    @return: yields the seconds to wait until the next step.
    """
    for (fault, seconds), relay in zip(itertools.cycle(FAULTS), itertools.cycle(relays)):
        yield PAUSE
        relay.set(fault)
        yield seconds
        relay.set(PASS)


def soak(
    seconds: float, interval: float, clients: int, directory: Path, show: Callable[[float, dict[str, float]], object]
) -> tuple[list[dict[str, float]], Any]:
    """
    Run the load.

    @param interval: seconds between two samples.
    @param show: called with each sample and its time.

    @return: the samples, and the report of the load.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(Memcached("-m", "32")) for _ in range(2)]
        relays = [stack.enter_context(Relay(server.address)) for server in servers]
        statistics = directory / "stats.sock"
        proxy = WatchedProxy(*OPTIONS, f"--stats=unix:{statistics}", upstream=[each.address for each in relays])
        proxy.path = directory / "census.json"
        stack.enter_context(proxy)
        load = Load(
            proxy.address, clients=clients, seconds=seconds, kinds=META_KINDS, pause=0.02, misses=True, stale=True
        ).start()
        stack.callback(load.kill)
        samples, begun = [], time.monotonic()
        step, faults = begun, trouble(relays)
        for number in itertools.count(1):
            due = begun + number * interval
            while step < due:
                time.sleep(max(0.0, step - time.monotonic()))
                step = time.monotonic() + next(faults)
            time.sleep(max(0.0, due - time.monotonic()))
            samples.append(proxy.sample())
            show(time.monotonic() - begun, samples[-1])
            if time.monotonic() - begun >= seconds:
                break
        for relay in relays:
            relay.set(PASS)
        return samples, load.report()


def growth(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """
    @return: for each column, the ratio of the medians of the second and the first half of the time after L{WARM}.
    """
    warm = samples[int(len(samples) * WARM) :]
    half = len(warm) // 2
    return {
        name: (median(each[name] for each in warm[half:]) + 1) / (median(each[name] for each in warm[:half]) + 1)
        for name in COLUMNS
    }


def main(arguments: Sequence[str]) -> int:
    """
    The command.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two samples (default: 10)")
    parser.add_argument("--clients", type=int, default=50, help="clients (default: 50)")
    options = parser.parse_args(arguments)
    if options.minutes * 60 < 10 * options.interval:
        parser.error("expected a time of ten intervals or more")
    write = sys.stdout.write
    write(" ".join(f"{heading:>11}" for heading in ("seconds", *(heading for heading, _ in COLUMNS.values()))) + "\n")

    def show(at: float, sample: dict[str, float]) -> None:
        numbers = [f"{sample[name] / divisor:11.{int(divisor > 1)}f}" for name, (_, divisor) in COLUMNS.items()]
        write(" ".join((f"{at:11.0f}", *numbers)) + "\n")
        sys.stdout.flush()

    with TemporaryDirectory() as directory:
        samples, result = soak(options.minutes * 60, options.interval, options.clients, Path(directory), show)
    errors = sum(result["errors"].values())
    write(f"\n{result['ok']} requests answered, {errors} errors, ")
    write(f"{result['wrongs']} wrong replies, {result['stuck']} without a reply\n")
    for name, ratio in growth(samples).items():
        verdict = "flat" if ratio <= 1 + TOLERANCE else "GROWS"
        write(f"{COLUMNS[name][0]:>11}: {verdict}, {ratio:.3f} of the time before\n")
    return int(bool(result["wrongs"] or result["stuck"]))
