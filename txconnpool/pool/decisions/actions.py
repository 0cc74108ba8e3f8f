# -*- test-case-name: tests.pool.test_state -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The actions that L{txconnpool.pool.decisions.state.PoolState} decides on. The caller carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from txconnpool.errors import PoolError
from txconnpool.pool.decisions.records import Record


@dataclass(frozen=True, slots=True)
class Dial:
    """
    Start to connect to the server of C{record}. Report the result by L{PoolState.dialed} or L{PoolState.dialFailed}.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Check:
    """
    Test whether the connection of C{record} is alive. Report the result by
    L{Records.checked<txconnpool.pool.decisions.picking.Records.checked>} or
    L{Records.discard<txconnpool.pool.decisions.picking.Records.discard>}.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Close:
    """
    Close the connection of C{record}, which carries no requests. C{record.reason} is the reason. Report its end by
    L{PoolState.lost}.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    Notify C{waiter}, an L{txconnpool.interfaces.IWaiter}, that it gets no connection.
    """

    waiter: Any
    error: PoolError


Action = Dial | Check | Close | Refuse
