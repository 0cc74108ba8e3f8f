# Copyright txconnpool contributors. See LICENSE.
"""
A bounded set of interchangeable connections. What programs use is imported from here.
"""

from __future__ import annotations

from txconnpool.errors import NoSuchCommand
from txconnpool.pool.decisions.limits import Backoff
from txconnpool.pool.library import Pool, PooledClientFactory, PoolObserver

__all__ = ["Backoff", "NoSuchCommand", "Pool", "PoolObserver", "PooledClientFactory"]
