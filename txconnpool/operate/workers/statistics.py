# -*- test-case-name: tests.operate.test_http -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The statistics of all workers together.
"""

from __future__ import annotations

from functools import reduce

from twisted.internet.defer import DeferredList

from txconnpool.operate.statistics.snapshot import Snapshot, countersOf, mergeSnapshots
from txconnpool.operate.workers.workerset import WorkerSet

#: Seconds that a worker has to answer with its statistics.
PATIENCE = 1.0


class WorkerStatistics:
    """
    Adds the snapshots of all workers, with the counters of workers that have ended.
    """

    def __init__(self, workers: WorkerSet) -> None:
        self._workers = workers
        self._latest: dict[int, Snapshot] = {}
        self._ended: Snapshot | None = None

    async def snapshot(self, own: Snapshot) -> Snapshot:
        """
        Read the statistics of all workers. Of one that does not answer in time, the latest ones are used.

        @param own: the snapshot of the parent process.
        """

        def keep(snapshot: Snapshot, number: int) -> None:
            if number in self._workers.processes:
                self._latest[number] = snapshot

        await DeferredList([
            worker.channel.call("statistics").addTimeout(PATIENCE, self._workers.reactor).addCallbacks(
                keep, lambda failure: None, (number,)
            )
            for number, worker in self._workers.processes.items()
        ])  # fmt: skip
        snapshots = [own, *self._latest.values()]
        return reduce(mergeSnapshots, snapshots if self._ended is None else [*snapshots, self._ended])

    def workerEnded(self, number: int) -> None:
        """
        Keep the counters of a worker that has ended.
        """
        if number in self._latest:
            ended = countersOf(self._latest.pop(number))
            self._ended = ended if self._ended is None else mergeSnapshots(self._ended, ended)
