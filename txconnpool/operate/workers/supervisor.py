# -*- test-case-name: tests.operate.workers.test_supervisor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The parent process of the workers, as a service.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from dataclasses import asdict
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txconnpool.config.changes import Address, CannotChange, Plan
from txconnpool.config.settings import Settings
from txconnpool.operate.operations import mergeTexts
from txconnpool.operate.reload import Changeable
from txconnpool.operate.service import statisticsService
from txconnpool.operate.statistics.snapshot import Snapshot, takeSnapshot
from txconnpool.operate.statistics.sources import ProcessSource
from txconnpool.operate.workers.acceptors import Acceptor, Acceptors
from txconnpool.operate.workers.channel import ChannelError
from txconnpool.operate.workers.operations import WorkerOperations
from txconnpool.operate.workers.process import SentClient, WorkerProcess
from txconnpool.operate.workers.shares import shares
from txconnpool.operate.workers.statistics import WorkerStatistics
from txconnpool.operate.workers.workerset import WorkerSet
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.statistics import Shared

_log = Logger("txconnpool.workers")


class WorkersFailed(Exception):
    """
    No worker can start. The text of this exception is one line for the operator.
    """


class SupervisorService(Service, Changeable):
    """
    The proxy in several processes: this one listens and accepts, workers serve the clients.

    @ivar workers: the workers.
    @ivar statistics: a L{txconnpool.operate.http.service.StatisticsService} that serves their statistics, or C{None}.
    """

    def __init__(self, settings: Settings, reactor: Any = None) -> None:
        """
        @param settings: all settings. The bounds are divided among C{settings.workers} processes.
        @param reactor: the global reactor if not given.
        """
        Changeable.__init__(self, settings)
        if reactor is None:
            from twisted.internet import reactor
        self.workers = WorkerSet(reactor, self)
        self.statistics = statisticsService(settings, self.snapshot, reactor)
        self._acceptors = Acceptors(reactor, self._accepted)
        self._operations = WorkerOperations(self.workers)
        self._workerStatistics = WorkerStatistics(self.workers)
        self._asked = Shared(reactor.seconds)
        self._started = time.time()
        self._serving: list[Deferred[None]] = []
        self._cannotStart: str | None = None
        self._returned: deque[SentClient] = deque()  # clients of workers that have ended before they received them
        self.setName("workers")

    # -- Start

    def privilegedStartService(self) -> None:
        """
        Read the files that the settings name, and listen for clients and for statistics.

        @raise ConfigError: a file cannot be read, or is of no use.
        @raise CannotListenError: an address is taken, or is not one of this machine.
        """
        self.readFiles()
        if self.statistics is not None:
            self.statistics.privilegedStartService()
        super().privilegedStartService()
        self._acceptors.bind(self.settings.pools)

    def startService(self) -> None:
        """
        Start the workers, and do what L{privilegedStartService} does unless it has been called.
        """
        self.readFiles()
        self._started = time.time()
        if self.statistics is not None:
            self.statistics.startService()
        super().startService()
        self._acceptors.bind(self.settings.pools)
        self.workers.start(self.settings.workers)
        _log.info("{count} workers share the bounds of all pools", count=self.settings.workers)

    def serving(self) -> Deferred[None]:
        """
        @return: fires when a worker can take clients; fails with L{WorkersFailed} if none can start.
        """
        serving: Deferred[None] = Deferred()
        self._serving.append(serving)
        self._notifyServing()
        return serving

    def _notifyServing(self) -> None:
        if self._cannotStart is None and not self.workers.ready:
            return
        waiting, self._serving = self._serving, []
        for each in waiting:
            if self._cannotStart is None:
                each.callback(None)
            else:
                each.errback(WorkersFailed(self._cannotStart))

    def cannotStart(self, why: str) -> None:
        """
        No worker can start.
        """
        self._cannotStart = f"no worker can start: {why}"
        _log.error("{text}", text=self._cannotStart)
        self._notifyServing()

    # -- Clients

    def _accepted(self, acceptor: Acceptor, client: socket.socket) -> bool:
        """
        Send a client to a worker.

        @return: whether one takes it.
        """
        return self._send(acceptor.pool, acceptor.description, client)

    def _send(self, name: str, description: str, client: socket.socket) -> bool:
        """
        Send a client to the worker with the fewest clients.

        @param name: the name of its pool.

        @return: whether one takes it.
        """
        workers = sorted((each for each in self.workers.processes.values() if each.ready), key=lambda each: each.load)
        most = next(pool.maxClients for pool in self.settings.pools if pool.name == name)
        accepted = sum(worker.clients(name) for worker in workers) < most
        return any(worker.send(name, description, client, accepted) for worker in workers)

    def _sendReturned(self) -> None:
        """
        Send the clients of workers that have ended to others, as far as those can take them.
        """
        pools = {pool.name for pool in self.settings.pools}
        while self._returned:
            client = self._returned[0]
            if client.pool not in pools:
                client.socket.close()
            elif not (self.workers.ready and self._send(client.pool, client.description, client.socket)):
                return
            self._returned.popleft()

    # -- Workers

    def share(self, number: int) -> Settings:
        """
        @return: the settings of a worker.
        """
        return list(shares(self.settings, self.settings.workers))[number - 1]

    def prepare(self, worker: WorkerProcess) -> Deferred[Any]:
        """
        Pause and drain a worker that has started, as the others are.
        """
        return self._operations.repeat(worker)

    def readinessChanged(self) -> None:
        """
        Accept clients while a worker can take them; else let them wait in the system's queue.
        """
        self._sendReturned()
        self._notifyServing()
        self._acceptors.setReady(self.workers.ready)

    def workerEnded(self, worker: WorkerProcess) -> None:
        """
        Keep the counters of a worker that has ended, and the clients that it has not received.
        """
        self._workerStatistics.workerEnded(worker.number)
        self._returned += worker.unreceived

    def answer(self, name: str, *args: Any) -> Any:
        """
        Answer a call of a worker.

        @raise ChannelError: there is no such call.
        """
        if name == "statistics":
            return self.snapshot()
        if name == "ask":
            pool, words = args
            return self._asked.get((pool, *words), lambda: self._ask(pool, words))
        raise ChannelError(f"no call {name!r}")

    def _ask(self, pool: str, words: list[str]) -> Deferred[Any]:
        """
        Let a worker ask the servers of a pool for their statistics.

        @return: fires with their replies and the age of the replies.

        @raise ChannelError: no worker runs.
        """
        for worker in self.workers.processes.values():
            if worker.ready:
                return worker.channel.call("ask", pool, words).addCallback(lambda replies: (replies, 0.0))
        raise ChannelError("no worker runs at the moment")

    # -- Statistics and operations

    def snapshot(self) -> Deferred[Snapshot]:
        """
        Read the statistics of all processes.

        @return: fires with their sums.
        """
        lag = None if self.statistics is None else self.statistics.lag
        own = takeSnapshot(ProcessSource(self._started, BufferedBytes(0), lag, self.workers.states()), [])
        return Deferred.fromCoroutine(self._workerStatistics.snapshot(own))

    def perform(self, name: str, *args: Any) -> Deferred[Any]:
        """
        Perform an operation in all workers, see L{txconnpool.operate.operations.Operations.perform}.

        @return: fires with rows, or lines that describe what was done; fails with
            L{OperationError<txconnpool.operate.operations.OperationError>}.
        """
        return Deferred.fromCoroutine(self._operations.perform(self.settings, name, *args))

    def status(self) -> str:
        """
        @return: the state of the proxy, in one line.
        """
        workers = self.workers.processes.values()
        ready = sum(1 for worker in workers if worker.ready)
        return f"clients: {sum(worker.load for worker in workers)}, workers: {ready} of {self.settings.workers}"

    # -- Stop

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and let each worker end as a proxy in one process does.

        @return: fires when all workers have ended.
        """
        super().stopService()
        self._filesRead = False
        if self.statistics is not None:
            self.statistics.announceStop()
        self.workers.cancelRestarts()
        self._serving = []
        stopping = Deferred.fromCoroutine(self._stop())
        if self.statistics is not None:
            # Statistics are served until everything else has ended.
            stopping.addBoth(lambda result: self.statistics.stopService().addCallback(lambda _: result))
        return stopping

    async def _stop(self) -> None:
        await self._acceptors.close()
        await self.workers.stop(self.settings.drainTimeout)
        while self._returned:
            self._returned.popleft().socket.close()

    def abort(self) -> None:
        """
        End a stop at once: close all sessions and connections that L{stopService} waits for.
        """
        self.workers.abort()

    # -- Reload

    def _listening(self) -> list[Address]:
        return self._acceptors.addresses

    async def _apply(self, plan: Plan) -> None:
        """
        Put settings in force, in this process and in all workers: bind the new addresses, then send the settings to the
        workers. If a worker cannot put its settings in force, all workers go back to the old ones.

        @raise CannotChange: an address cannot be bound, or a worker cannot put its settings in force. Nothing has
            changed.
        """
        change = await self._acceptors.prepare(plan)
        old, self.settings = self.settings, plan.settings
        problem = await self._sendSettings()
        if problem:
            self.settings = old
            await self._sendSettings()
        elif not self.running:
            self.settings = old
            problem = "the proxy is stopping"
        if problem:
            await self._acceptors.rollBack(change)
            raise CannotChange(problem)
        self._operations.forgetRemoved(plan.settings)
        await self._acceptors.commit(change)

    async def _sendSettings(self) -> str:
        """
        Put the settings in force in all workers. A worker that ends meanwhile is replaced by one that starts with them.

        @return: why a worker cannot, or an empty string.
        """
        numbers = [worker.number for worker in self.workers.processes.values() if not worker.stopping]
        _, errors = await self.workers.call("apply", {number: (asdict(self.share(number)),) for number in numbers})
        return mergeTexts(errors, "\n") if errors else ""
