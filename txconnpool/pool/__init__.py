# Copyright txconnpool contributors. See LICENSE.
"""
A pool: a bounded set of interchangeable connections. The public names are imported from here.
"""

from __future__ import annotations

from txconnpool.errors import NoSuchCommand
from txconnpool.pool.decisions.limits import Backoff
from txconnpool.pool.library import Pool, PooledClientFactory, PoolObserver

__all__ = ["Backoff", "NoSuchCommand", "Pool", "PoolObserver", "PooledClientFactory"]
