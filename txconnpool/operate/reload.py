# -*- test-case-name: tests.operate.test_reload -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Settings that change while the proxy runs: one change at a time, each of them as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from txconnpool.config.changes import Address, CannotChange, Plan, plan
from txconnpool.config.files import checkFiles, fingerprints
from txconnpool.config.notes import notesOf
from txconnpool.config.settings import Settings
from txconnpool.config.warnings import warningsOf
from txconnpool.net.discovery import DiscoveryFailed
from txconnpool.net.listening import describeListenError

_log = Logger("txconnpool.settings")


class Changeable:
    """
    A mixin for services that run with settings which may change.

    @ivar settings: the settings in force.
    """

    running: int

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._filesRead = False
        self._fingerprints: dict[str, bytes] = {}
        self._warnings: list[str] | None = None  # those that are known; the files may have changed since
        self._changing = DeferredLock()

    def readFiles(self) -> None:
        """
        Read the files that the settings name, unless this has been done since the last stop. The first change compares
        with their contents.

        @raise ConfigError: a file cannot be read, or is of no use.
        """
        if not self._filesRead:
            self._useFiles()
            self._fingerprints = dict(fingerprints(self.settings))
            self._filesRead = True

    def _useFiles(self) -> None:
        """
        Read and check the files, and use what is in them. Log notes and warnings about the settings.
        """
        checkFiles(self.settings)
        for line in notesOf(self.settings):
            _log.info("{line}", line=line)
        self._warnings = warningsOf(self.settings)
        for line in self._warnings:
            _log.warn("{caution}", caution=line)

    def change(self, make: Callable[[Settings], Settings], quiet: bool = False) -> Deferred[list[str]]:
        """
        Put other settings in force, all of them or none. Sessions and requests are kept. A change waits for the one
        before it.

        @param make: called with the settings in force when it is the turn of this change, returns the new ones.
        @param quiet: whether to log nothing.

        @return: fires with a line for each thing that has changed, and for each that needs a restart to change; fails
            with L{CannotChange}, and with whatever C{make} raises.
        """
        return self._changing.run(lambda: Deferred.fromCoroutine(self._change(make, quiet)))

    async def _change(self, make: Callable[[Settings], Settings], quiet: bool) -> list[str]:
        if not self.running:
            raise CannotChange("the proxy is not running")
        change = plan(self.settings, make(self.settings), list(self._listening()))
        # Also when no setting differs: a file that one of them names may have changed, such as a list of passwords.
        await self._apply(change)
        known = warningsOf(self.settings) if self._warnings is None else self._warnings
        noted, self.settings = notesOf(self.settings), change.settings
        self._warnings = warningsOf(self.settings)
        before, self._fingerprints = self._fingerprints, dict(fingerprints(self.settings))
        lines = [
            *change.changes,
            *(f"{what}: new" for what, found in self._fingerprints.items() if before.get(what, found) != found),
            *change.restarts,
        ]
        if not quiet:
            for line in (*lines, *(note for note in notesOf(self.settings) if note not in noted)):
                _log.info("{line}", line=line)
            for line in self._warnings:
                if line not in known:
                    _log.warn("{caution}", caution=line)
        return lines

    def _listening(self) -> Iterable[Address]:
        """
        @return: the addresses that are listened on.
        """
        raise NotImplementedError

    async def _apply(self, plan: Plan) -> None:
        """
        Put settings in force.

        @raise CannotChange: this is not possible, and nothing has changed.
        """
        raise NotImplementedError


def cannotChange(error: Exception) -> Exception:
    """
    @param error: an exception while addresses were opened and files were read for a change.

    @return: the L{CannotChange} for it, or the error itself if it is a defect.
    """
    problem = describeListenError(error)
    if problem is not None:
        return CannotChange(f"cannot listen on {problem}")
    # A C{ValueError} is a file that cannot be read.
    return CannotChange(str(error)) if isinstance(error, ValueError | DiscoveryFailed) else error
