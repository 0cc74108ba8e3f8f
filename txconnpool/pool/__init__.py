# Copyright txconnpool contributors. See LICENSE.
"""
A bounded set of interchangeable connections. What programs use is imported from here.
"""

from __future__ import annotations

from txconnpool.errors import NoSuchCommand
from txconnpool.pool.library import Pool, PooledClientFactory, PoolObserver
from txconnpool.pool.limits import Backoff

__all__ = ["Backoff", "NoSuchCommand", "Pool", "PoolObserver", "PooledClientFactory"]
