# Copyright txconnpool contributors. See LICENSE.
"""
A Redis client on a pool of connections. Programs import the names in this package, not those in its modules.
"""

from __future__ import annotations

from txconnpool.redis.errors import (
    Ask,
    Busy,
    ClusterDown,
    CrossSlot,
    ExecAborted,
    GroupExists,
    InvalidArgument,
    Loading,
    LockError,
    Moved,
    NoPermission,
    NoScript,
    OutOfMemory,
    ReadOnly,
    ResponseError,
    UndecodableReply,
    WatchError,
    WrongType,
)
from txconnpool.redis.pipeline import Pipeline, Transaction
from txconnpool.redis.pool import RedisPool
from txconnpool.redis.scripts import Lock, Script
from txconnpool.redis.subscription import Message, Subscription

__all__ = [
    "Ask",
    "Busy",
    "ClusterDown",
    "CrossSlot",
    "ExecAborted",
    "GroupExists",
    "InvalidArgument",
    "Loading",
    "Lock",
    "LockError",
    "Message",
    "Moved",
    "NoPermission",
    "NoScript",
    "OutOfMemory",
    "Pipeline",
    "ReadOnly",
    "RedisPool",
    "ResponseError",
    "Script",
    "Subscription",
    "Transaction",
    "UndecodableReply",
    "WatchError",
    "WrongType",
]


def __dir__() -> list[str]:
    return __all__
