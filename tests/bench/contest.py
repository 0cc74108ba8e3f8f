# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Contenders measured against each other: the same load, round by round in turns, medians in the end.

Other work on the machine makes everything dearer for a while. Rounds are short and contenders take turns, so that it
meets all of them, and a contender is compared with the yardstick of the same round.
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
from tests.real.servers import Memcached, Server


@dataclass(frozen=True)
class Sample:
    """
    One round of one contender.

    @ivar cpu: microseconds of processor time per request, of the contender alone.
    @ivar user: the part of it spent in the program; C{system} is the rest.
    @ivar rate: requests per second.
    @ivar p50: microseconds within which half of the exchanges (whole pipelines) were answered; C{p99} likewise.
    @ivar load: the share of one processor which the contender used. Much less than 1 (or than its number of
        workers) means that others were slower, so C{rate} says little about it.
    """

    requests: int
    cpu: float
    user: float
    system: float
    rate: float
    p50: float
    p99: float
    load: float

    @classmethod
    def of(cls, cost: Cost, outcome: Outcome) -> Sample:
        """
        Put together what was spent and what was done for it.
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
        )


def _of(sample: Sample, measure: str) -> float:
    value: float = getattr(sample, measure)
    return value


MEASURES = ("cpu", "user", "system", "rate", "p50", "p99", "load")


@dataclass
class Result:
    """
    All rounds of one workload.

    @ivar samples: by contender, one for each round.
    @ivar failures: by contender, what went wrong; it is out of the contest from then on.
    """

    workload: Workload
    samples: dict[str, list[Sample]]
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, contender: str, measure: str) -> float:
        """
        The median over all rounds.
        """
        return median(_of(sample, measure) for sample in self.samples[contender])

    def ratio(self, contender: str, measure: str, yardstick: str) -> float:
        """
        The median of the ratios of each round.
        """
        pairs = zip(self.samples[contender], self.samples[yardstick], strict=False)
        return median(_of(mine, measure) / _of(its, measure) for mine, its in pairs)

    @property
    def yardstick(self) -> str | None:
        """
        The cheaper one of the yardsticks that took part, if any did.
        """
        present = [name for name in YARDSTICKS if self.samples.get(name) and name not in self.failures]
        return min(present, key=lambda name: self.median(name, "cpu"), default=None)

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """
        Medians of all measures and ratios to the yardstick, by contender.
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
    A contender that runs, with a load of its own that waits for its turn.
    """

    def __init__(self, server: Server, generators: Sequence[Generator]) -> None:
        self._server = server
        self._generators = generators

    @property
    def server(self) -> Server:
        """
        The contender's process.
        """
        return self._server

    def round(self, seconds: float) -> Sample:
        """
        Measure once.

        @raise WrongAnswer: when an answer was wrong or missing.
        """
        before = Cost.of(self._server.pid)
        for generator in self._generators:
            generator.go(seconds)
        outcome = Outcome()
        for generator in self._generators:
            outcome.add(generator.outcome())
        return Sample.of(Cost.of(self._server.pid) - before, outcome)


@dataclass(frozen=True)
class Arena:
    """
    How contests are held.

    @ivar rounds: for each contender.
    @ivar seconds: of load in each round.
    @ivar generators: processes that share a workload's clients.
    @ivar pin: give the contender a processor of its own.
    """

    rounds: int = 7
    seconds: float = 1.0
    generators: int = 1
    pin: bool = True

    def hold(self, workload: Workload, contenders: Sequence[Contender]) -> Result:
        """
        Start everything, measure all rounds, stop everything.
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
                # Begin each round with another one: what the first leaves behind in the caches is the second's.
                for name in _rotated(list(parties), number):
                    try:
                        result.samples[name].append(parties[name].round(self.seconds))
                    except WrongAnswer as e:
                        result.failures[name] = f"{e}\n{_tail(parties[name].server.log)}"
                        del parties[name]
        return result

    def upstream(self, stack: ExitStack, workload: Workload) -> Memcached:
        """
        Start the memcached that all share, with everything in it that the workload asks for.
        """
        _, others = processors(self.pin)
        with pinned(others):
            server = stack.enter_context(storage(threads=len(others)))
        fill(server.address, workload)
        return server

    def admit(self, stack: ExitStack, contender: Contender, workload: Workload, upstream: Server) -> Party:
        """
        Start a contender and its load.

        @raise WrongAnswer: when it does not answer its clients.
        """
        own, others = processors(self.pin)
        with pinned(own):
            server = stack.enter_context(contender.make(upstream.address))
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
        return Party(server, generators)


def _tail(log: str) -> str:
    return "".join(f"    {line}\n" for line in log.splitlines()[-10:])


def _rotated(names: list[str], by: int) -> Iterator[str]:
    for index in range(len(names)):
        yield names[(index + by) % len(names)]
