# -*- test-case-name: tests.config.test_warnings -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Settings that are valid, but do less than they seem to do.
"""

from __future__ import annotations

from txconnpool.config.files import exposedSecrets
from txconnpool.config.settings import Fault, PoolSettings, Settings
from txconnpool.wire.dialects import DIALECTS
from txconnpool.wire.effects import leftOpen


def warningsOf(settings: Settings) -> list[str]:
    """
    Find mistakes that do not prevent a start. This looks at the permissions of the files that settings name.

    @return: a line for each setting that probably does not do what was meant.
    """
    faults = [Fault(text, pool=pool.name) for pool in settings.pools for text in _commandsLeftOpen(pool)]
    return [str(fault) for fault in (*faults, *exposedSecrets(settings))]


def _commandsLeftOpen(pool: PoolSettings) -> list[str]:
    """
    @return: warnings about denied commands whose effects other commands still have.
    """
    dialect = DIALECTS[pool.protocol]
    denied, allowed = pool.denyCommands, pool.allowCommands
    return list(
        leftOpen(
            dialect.ordinary,
            dialect.possible,
            frozenset(word.encode() for word in denied),
            None if allowed is None else frozenset(word.encode() for word in allowed),
        )
    )
