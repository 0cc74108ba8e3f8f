# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Contests: several contenders get the same load in alternating rounds, and their medians are compared.

Other work on the machine makes requests more expensive for a while. Rounds are short and contenders alternate, so that
such a time affects all of them, and each contender is compared with the yardstick of the same round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from tests.bench.contenders import YARDSTICKS, Contender, fill, storage
from tests.bench.generator import Generator, Outcome, WrongAnswer
from tests.bench.measure import Cost, pinned, processors
from tests.bench.workloads import Workload
from tests.real.servers import Server


@dataclass(frozen=True)
class Sample:
    """
    The measurements of one contender in one round.

    @ivar requests: the number of answered requests.
    @ivar cpu: processor time of the contender per request, in microseconds.
    @ivar user: the part of C{cpu} spent in user mode, in microseconds.
    @ivar system: the part of C{cpu} spent in the kernel, in microseconds.
    @ivar rate: requests per second.
    @ivar p50: the median latency of an exchange (of a whole pipeline), in microseconds.
    @ivar p99: the 99th percentile of these latencies.
    @ivar load: the share of one processor that the contender used. If it is much less than 1 (or than its number of
        workers), the load or the server was the bottleneck, and C{rate} is not a property of the contender.
    @ivar server: processor time of the servers behind the contender per request, in microseconds: the fewer pieces they
        receive the requests in, the less it is.
    """

    requests: int
    cpu: float
    user: float
    system: float
    rate: float
    p50: float
    p99: float
    load: float
    server: float = 0.0

    @classmethod
    def of(cls, cost: Cost, outcome: Outcome, served: float = 0.0) -> Sample:
        """
        Compute a sample from the processor time and the outcome of one round.

        @param served: processor time of the servers behind the contender, in seconds.
        """
        share = 1e6 / outcome.requests
        split = cost.total / (cost.user + cost.system or 1.0)
        return cls(
            requests=outcome.requests,
            cpu=cost.total * share,
            user=cost.user * split * share,
            system=cost.system * split * share,
            rate=outcome.requests / outcome.seconds,
            p50=outcome.percentile(0.50),
            p99=outcome.percentile(0.99),
            load=cost.total / outcome.seconds,
            server=served * share,
        )


def _of(sample: Sample, measure: str) -> float:
    value: float = getattr(sample, measure)
    return value


MEASURES = ("cpu", "user", "system", "rate", "p50", "p99", "load", "server")


@dataclass
class Result:
    """
    The results of all rounds of one workload.

    @ivar samples: by contender, a sample of each round.
    @ivar failures: by contender, the error that excluded it from all further rounds.
    """

    workload: Workload
    samples: dict[str, list[Sample]]
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, contender: str, measure: str) -> float:
        """
        Compute the median of a measure over all rounds.
        """
        return median(_of(sample, measure) for sample in self.samples[contender])

    def ratio(self, contender: str, measure: str, yardstick: str) -> float:
        """
        Compute the median of the ratios of C{contender} to C{yardstick} in each round.
        """
        pairs = zip(self.samples[contender], self.samples[yardstick], strict=False)
        return median(_of(mine, measure) / _of(its, measure) for mine, its in pairs)

    @property
    def yardstick(self) -> str | None:
        """
        The yardstick with the lower median of C{cpu}, or C{None} if none took part.
        """
        present = [name for name in YARDSTICKS if self.samples.get(name) and name not in self.failures]
        return min(present, key=lambda name: self.median(name, "cpu"), default=None)

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """
        Compute the medians of all measures and the ratios to the yardstick, by contender.
        """
        table: dict[str, dict[str, float]] = {}
        yardstick = self.yardstick
        for name, samples in self.samples.items():
            if not samples:
                continue
            table[name] = {measure: self.median(name, measure) for measure in MEASURES}
            if yardstick is not None:
                table[name] |= {
                    f"{what}-ratio": self.ratio(name, what, yardstick) for what in ("cpu", "rate", "p50", "p99")
                }
        return table


class Party:
    """
    A running contender with its own load generators, which are idle outside its rounds.
    """

    def __init__(self, server: Server, generators: Sequence[Generator], upstream: Sequence[Server] = ()) -> None:
        self._server = server
        self._generators = generators
        self._upstream = upstream

    @property
    def server(self) -> Server:
        """
        The contender's process.
        """
        return self._server

    def round(self, seconds: float) -> Sample:
        """
        Measure one round.

        @raise WrongAnswer: a reply was wrong or missing.
        """
        before, servedBefore = Cost.of(self._server.pid), self._served()
        for generator in self._generators:
            generator.go(seconds)
        outcome = Outcome()
        for generator in self._generators:
            outcome.add(generator.outcome())
        return Sample.of(Cost.of(self._server.pid) - before, outcome, self._served() - servedBefore)

    def _served(self) -> float:
        return sum(Cost.of(each.pid).total for each in self._upstream)


@dataclass(frozen=True)
class Arena:
    """
    The parameters of contests.

    @ivar rounds: the number of rounds for each contender.
    @ivar seconds: the duration of the load in each round.
    @ivar generators: the number of load generators, which share a workload's clients.
    @ivar pin: whether the contender gets a processor of its own.
    """

    rounds: int = 7
    seconds: float = 1.0
    generators: int = 1
    pin: bool = True

    def hold(self, workload: Workload, contenders: Sequence[Contender]) -> Result:
        """
        Start the servers, the contenders and their load, measure all rounds, and stop everything.
        """
        result = Result(workload, {contender.name: [] for contender in contenders})
        with ExitStack() as stack:
            parties: dict[str, Party] = {}
            upstream = self.upstream(stack, workload)
            for contender in contenders:
                try:
                    parties[contender.name] = self.admit(stack, contender, workload, upstream)
                except WrongAnswer as e:
                    result.failures[contender.name] = str(e)
            for number in range(self.rounds):
                # Each round starts with another contender, because the state of the processor's caches depends on the
                # contender before.
                for name in _rotated(list(parties), number):
                    try:
                        result.samples[name].append(parties[name].round(self.seconds))
                    except WrongAnswer as e:
                        result.failures[name] = f"{e}\n{_tail(parties[name].server.log)}"
                        del parties[name]
        return result

    def upstream(self, stack: ExitStack, workload: Workload) -> list[Server]:
        """
        Start the servers that all contenders share, and store all values of the workload in each.
        """
        _, others = processors(self.pin)
        with pinned(others):
            threads = len(others) if workload.servers == 1 else 1
            servers: list[Server] = [
                stack.enter_context(storage(threads, workload.protocol)) for _ in range(workload.servers)
            ]
        for server in servers:
            fill(server.address, workload)
        return servers

    def admit(self, stack: ExitStack, contender: Contender, workload: Workload, upstream: Sequence[Server]) -> Party:
        """
        Start a contender and its load generators.

        @raise WrongAnswer: the contender did not answer a client, or answered wrongly.
        """
        own, others = processors(self.pin)
        with pinned(own):
            server = stack.enter_context(contender.make([each.address for each in upstream]))
        if contender.name == "direct":
            fill(server.address, workload)
        count = min(self.generators, workload.clients)
        generators = []
        with pinned(others):
            for number in range(count):
                clients = workload.clients // count + (number < workload.clients % count)
                generators.append(Generator(server.address, workload, clients))
                stack.callback(generators[-1].close)
        for generator in generators:
            generator.ready()
        return Party(server, generators, () if contender.name == "direct" else upstream)


def _tail(log: str) -> str:
    return "".join(f"    {line}\n" for line in log.splitlines()[-10:])


def _rotated(names: list[str], by: int) -> Iterator[str]:
    for index in range(len(names)):
        yield names[(index + by) % len(names)]
