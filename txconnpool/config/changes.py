# -*- test-case-name: tests.config.test_changes -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Settings that change while the proxy runs: how they differ, how that is told, and that it is one change at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from txconnpool.config.files import fingerprints
from txconnpool.config.kinds import Option
from txconnpool.config.settings import POOL_OPTIONS, PROCESS_OPTIONS, PoolSettings, Settings

_log = Logger("txconnpool.settings")


class CannotChange(Exception):
    """
    Settings that cannot be put in force now. Nothing has changed. Its text has one line for each reason.
    """


def differences(old: Settings, new: Settings) -> Iterator[str]:
    """
    Say what is different, in one line for each setting: C{pool pages: pool-size 4 -> 8}.
    """
    yield from _changed(old, new, PROCESS_OPTIONS)
    before = {pool.name: pool for pool in old.pools}
    for pool in new.pools:
        if pool.name not in before:
            yield f"pool {pool.name}: added"
        else:
            yield from (f"pool {pool.name}: {line}" for line in _changed(before.pop(pool.name), pool, POOL_OPTIONS))
    yield from (f"pool {name}: removed" for name in before)


def _changed(old: Settings | PoolSettings, new: Settings | PoolSettings, options: Iterable[Option]) -> Iterator[str]:
    for each in options:
        before, after = getattr(old, each.attribute), getattr(new, each.attribute)
        if each.many:
            yield from (f"{each.name} + {value}" for value in after if value not in before)
            yield from (f"{each.name} - {value}" for value in before if value not in after)
        elif before != after:
            yield f"{each.name} {each.show(before) or 'none'} -> {each.show(after) or 'none'}"


class Changeable:
    """
    A mixin for services that run with settings which may change.

    @ivar settings: the settings in force.
    """

    running: int

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._fingerprints: dict[str, bytes] = {}
        self._changing = DeferredLock()

    def rememberFiles(self) -> None:
        """
        Remember what is in the files that the settings name. To be called when the service starts: the first change
        compares with it.
        """
        self._fingerprints = dict(fingerprints(self.settings))

    def change(self, make: Callable[[Settings], Settings], quiet: bool = False) -> Deferred[list[str]]:
        """
        Put other settings in force, all of them or none. Sessions and requests are kept. A change waits for the one
        before it.

        @param make: called with the settings in force when it is its turn, gives those that are to be.
        @param quiet: whether nothing is to be logged.

        @return: fires with a line for each thing that has changed, and for each that cannot change before the next
            start; fails with L{CannotChange}, and with what C{make} raises.
        """
        return self._changing.run(lambda: Deferred.fromCoroutine(self._change(make, quiet)))

    async def _change(self, make: Callable[[Settings], Settings], quiet: bool) -> list[str]:
        if not self.running:
            raise CannotChange("the proxy is not running")
        old, wanted = self.settings, make(self.settings)
        fixed = {each.attribute: getattr(old, each.attribute) for each in PROCESS_OPTIONS if each.fixed}
        kept = {name: value for name, value in fixed.items() if getattr(wanted, name) != value}
        new = replace(wanted, **kept) if kept else wanted
        lines = list(differences(old, new))
        # Without a difference, too: what the settings name may have changed, such as a file of passwords.
        await self._apply(new)
        self.settings = new
        before, self._fingerprints = self._fingerprints, dict(fingerprints(new))
        lines += (f"{what}: new" for what, found in self._fingerprints.items() if before.get(what, found) != found)
        lines += (f"{line}: needs a restart" for line in differences(new, wanted))
        for line in [] if quiet else lines:
            _log.info("{line}", line=line)
        return lines

    async def _apply(self, new: Settings) -> None:
        """
        Put settings in force.

        @raise CannotChange: they cannot be, and nothing has changed.
        """
        raise NotImplementedError
