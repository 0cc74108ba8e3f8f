# -*- test-case-name: tests.operate.workers.test_supervisor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The operations of the console on all workers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.config.settings import Settings
from txconnpool.net.endpoints import nameOf
from txconnpool.operate.operations import OperationError, mergeRows, mergeTexts, noSession
from txconnpool.operate.workers.process import WorkerProcess
from txconnpool.operate.workers.workerset import WorkerSet

_log = Logger("txconnpool.workers")


class WorkerOperations:
    """
    Performs operations in all workers, and remembers the paused pools and the drained and ejected servers for workers
    that start later.
    """

    def __init__(self, workers: WorkerSet) -> None:
        self._workers = workers
        self._paused: set[str] = set()
        self._drained: set[str] = set()
        self._ejected: set[str] = set()

    async def perform(self, settings: Settings, name: str, *args: Any) -> Any:
        """
        Perform an operation, see L{txconnpool.operate.operations.Operations.perform}. The number of a session is that
        of its worker, a dot, and its number in the worker.

        @param settings: the settings in force.

        @return: rows, or lines that describe what was done.

        @raise OperationError: a worker cannot do it, or none runs.
        """
        if name == "kill":
            return await self._killSession(*args)
        # A worker that is starting performs the operation too, but has no rows yet.
        numbers = [
            worker.number
            for worker in self._workers.processes.values()
            if worker.ready or worker.stopping or name != "rows"
        ]
        done, errors = await self._workers.call("perform", dict.fromkeys(numbers, (name, *args)))
        if name == "rows":
            table, most = args
            return mergeRows(table, done, most)
        if errors:
            raise OperationError(mergeTexts({**done, **errors}, "\n"))
        if not done:
            raise OperationError("no worker runs at the moment")
        self._remember(settings, name, *args)
        return mergeTexts(done, "\n")

    async def _killSession(self, session: str) -> str:
        number, _, inside = session.partition(".")
        for worker in self._workers.processes.values():
            if str(worker.number) == number:
                done, _ = await self._workers.call("perform", {worker.number: ("kill", inside)})
                if done:
                    return f"session {session} closed"
        raise noSession(session)

    def _remember(self, settings: Settings, name: str, what: str | None, *rest: Any) -> None:
        names = {pool.name for pool in settings.pools} if what is None else {what}
        if name == "pause":
            self._paused |= names
        elif name == "resume":
            self._paused -= names
        elif name == "drain":
            self._drained |= names
        elif name == "eject":
            self._ejected |= names
        elif name == "restore":
            self._drained -= names
            self._ejected -= names

    def forgetRemoved(self, settings: Settings) -> None:
        """
        Forget pools and servers that the settings do not have.
        """
        self._paused &= {pool.name for pool in settings.pools}
        if not any(
            pool.sources or pool.cluster is not None for pool in settings.pools
        ):  # otherwise only the workers know all servers
            servers = {server.name for pool in settings.pools for server in pool.servers}
            self._drained = {each for each in self._drained if nameOf(each) in servers}
            self._ejected = {each for each in self._ejected if nameOf(each) in servers}

    def repeat(self, worker: WorkerProcess) -> Deferred[Any]:
        """
        Pause the pools, and drain and eject the servers, of a worker that has started, as those of the others.

        @return: fires when it is done. It does not fail.
        """
        operations: list[tuple[Any, ...]] = [("pause", pool) for pool in sorted(self._paused)]
        operations += [("drain", server, False) for server in sorted(self._drained)]
        operations += [("eject", server) for server in sorted(self._ejected)]
        return DeferredList([
            worker.channel.call("perform", *each).addErrback(self._logError, worker.number) for each in operations
        ])  # fmt: skip

    def _logError(self, failure: Failure, number: int) -> None:
        _log.warn("worker {number}: {why}", number=number, why=failure.getErrorMessage())
