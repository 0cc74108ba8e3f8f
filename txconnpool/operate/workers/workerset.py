# -*- test-case-name: tests.operate.workers.test_supervisor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
All worker processes: their start, the replacement of those that end, and their stop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import uniform
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.config.settings import Settings
from txconnpool.operate.workers.channel import ChannelLost, ignoreLost
from txconnpool.operate.workers.process import WorkerProcess, endOf
from txconnpool.pool.decisions.limits import Backoff

_log = Logger("txconnpool.workers")

#: Seconds between two pings of each worker.
PING = 1.0

#: The pings after which clients are sent to the workers that are ready, although others are still starting.
TOGETHER = 3

#: The starts of each worker after which, if none of them has succeeded, the proxy gives up.
ATTEMPTS = 3

#: Seconds after which the end of a worker counts as the first one again.
STEADY = 60.0

#: Seconds that a worker has to end after its sessions have been closed.
GRACE = 2.0


class SetOwner(Protocol):
    """
    The owner of a L{WorkerSet}.
    """

    def share(self, number: int) -> Settings:
        """
        @return: the settings of a worker.
        """

    def prepare(self, worker: WorkerProcess) -> Deferred[Any]:
        """
        Prepare a worker that has started for its clients.

        @return: fires when it is ready.
        """

    def readinessChanged(self) -> None:
        """
        L{WorkerSet.ready} may have changed.
        """

    def cannotStart(self, why: str) -> None:
        """
        No worker has started, and probably none ever will.

        @param why: why the last one has not.
        """

    def answer(self, name: str, *args: Any) -> Any:
        """
        Answer a call of a worker.

        @return: the answer, or a Deferred that fires with it.
        """

    def workerEnded(self, worker: WorkerProcess) -> None:
        """
        A worker has ended.
        """


class WorkerSet:
    """
    All worker processes.

    @ivar reactor: the reactor.
    @ivar processes: those that run, by their numbers.
    """

    def __init__(self, reactor: Any, owner: SetOwner) -> None:
        self.reactor = reactor
        self.processes: dict[int, WorkerProcess] = {}
        self._owner = owner
        self._starting: set[int] = set()
        self._count = 0
        self._served = False  # whether a worker has been ready
        self._pinging: IDelayedCall | None = None
        self._patience = TOGETHER
        self._backoff = Backoff(initial=0.2, maximum=10.0)
        self._ends: Counter[int] = Counter()
        self._restarts: dict[int, IDelayedCall] = {}
        self._stopped: Deferred[None] | None = None
        self._killing: IDelayedCall | None = None
        self._immediately = False

    @property
    def ready(self) -> bool:
        """
        Whether a worker can take clients. At first it takes all workers to have started, because the first one would
        get all clients that wait; but not for long.
        """
        return (not self._starting or not self._patience) and self._anyReady

    @property
    def _anyReady(self) -> bool:
        return any(worker.ready for worker in self.processes.values())

    def states(self) -> dict[str, int]:
        """
        @return: the number of workers in each state, see L{WorkerProcess.state}. Those that do not run now are
            C{"ended"}.
        """
        counts = Counter(worker.state for worker in self.processes.values())
        names = ("ready", "starting", "silent", "stopping")
        return {**{each: counts[each] for each in names}, "ended": self._count - len(self.processes)}

    def start(self, count: int) -> None:
        """
        Start workers, with the numbers from 1 to C{count}.
        """
        self._count = count
        self._served = False
        self._patience = TOGETHER
        self._pinging = self.reactor.callLater(PING, self._ping)
        self._starting.update(range(1, count + 1))
        for number in sorted(self._starting):
            self._spawn(number)

    def _ping(self) -> None:
        self._pinging = self.reactor.callLater(PING, self._ping)
        for worker in list(self.processes.values()):
            worker.ping()
        if self._starting and self._patience and self._anyReady:
            self._patience -= 1
        self._owner.readinessChanged()  # clients may wait that no worker could take

    def _spawn(self, number: int) -> None:
        self._restarts.pop(number, None)
        worker = self.processes[number] = WorkerProcess(number, self._owner.share(number), self)
        try:
            worker.spawn()
        except OSError as error:
            del self.processes[number]
            self._starting.discard(number)
            self._replace(number, str(error))

    def started(self, worker: WorkerProcess) -> Deferred[Any]:
        """
        Prepare a worker that has started.
        """
        self._starting.discard(worker.number)
        return self._owner.prepare(worker)

    def readinessChanged(self) -> None:
        """
        Notify the owner.
        """
        self._served |= self._anyReady
        self._owner.readinessChanged()

    def answer(self, name: str, *args: Any) -> Any:
        """
        Have the owner answer a call of a worker.
        """
        return self._owner.answer(name, *args)

    def ended(self, worker: WorkerProcess, reason: Failure) -> None:
        """
        Replace a worker that has ended, unless all are being stopped.
        """
        number = worker.number
        del self.processes[number]
        self._starting.discard(number)
        self._owner.workerEnded(worker)
        self._owner.readinessChanged()
        if self._stopped is not None:
            if not self.processes:
                self._stopped.callback(None)
            return
        if self.reactor.seconds() - worker.since > STEADY:
            self._ends[number] = 0
        self._replace(number, worker.why or endOf(reason))

    def _replace(self, number: int, reason: str) -> None:
        self._ends[number] += 1
        if not self._served and all(self._ends[each] >= ATTEMPTS for each in range(1, self._count + 1)):
            self.cancelRestarts()
            self._owner.cannotStart(reason)
            return
        delay = self._backoff.delay(self._ends[number], uniform)
        _log.error("worker {number} ended: {reason}; another starts in {delay:.1f} s", number=number,
                   reason=reason, delay=delay)  # fmt: skip
        self._restarts[number] = self.reactor.callLater(delay, self._spawn, number)

    async def call(self, name: str, calls: Mapping[int, tuple[Any, ...]]) -> tuple[dict[int, Any], dict[int, str]]:
        """
        Call workers.

        @param name: the name of the call.
        @param calls: the arguments for each worker, by its number.

        @return: the answers, and the errors of those that failed, by number. A worker that has ended instead of
            answering is in neither.
        """
        answers = [self.processes[number].channel.call(name, *args) for number, args in calls.items()]
        done: dict[int, Any] = {}
        errors: dict[int, str] = {}
        for number, (success, result) in zip(calls, await DeferredList(answers, consumeErrors=True), strict=True):
            if success:
                done[number] = result
            elif not result.check(ChannelLost):
                errors[number] = result.getErrorMessage()
        return done, errors

    # -- Stop

    def cancelRestarts(self) -> None:
        """
        Replace no more workers, and do not ask them whether they are alive.
        """
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        for restart in self._restarts.values():
            restart.cancel()
        self._restarts.clear()

    def stop(self, drainTimeout: float) -> Deferred[None]:
        """
        Stop all workers: each answers the requests that it has read, and ends.

        @param drainTimeout: seconds after which a worker closes its sessions. L{GRACE} seconds later it is killed.

        @return: fires when all have ended.
        """
        if not self.processes:
            return succeed(None)
        stopped = self._stopped = Deferred()
        if self._immediately:
            self._end("abort", GRACE)
        else:
            self._end("stop", drainTimeout + GRACE)
        return stopped.addCallback(self._allEnded)

    def _allEnded(self, _: None) -> None:
        self._stopped = None
        self._immediately = False
        self._cancelKilling()

    def abort(self) -> None:
        """
        End L{stop} at once, or the next one if none is in progress.
        """
        self._immediately = True
        if self._stopped is not None:
            self._end("abort", GRACE)

    def _end(self, call: str, timeout: float) -> None:
        """
        Make all workers end, and kill those that have not ended after C{timeout} seconds.
        """
        for worker in self.processes.values():
            worker.channel.call(call).addErrback(ignoreLost)
        self._cancelKilling()
        self._killing = self.reactor.callLater(timeout, self._kill)

    def _kill(self) -> None:
        self._killing = None
        for worker in self.processes.values():
            worker.kill()

    def _cancelKilling(self) -> None:
        if self._killing is not None:
            self._killing.cancel()
            self._killing = None
