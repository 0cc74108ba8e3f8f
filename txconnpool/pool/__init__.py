# Copyright txconnpool contributors. See LICENSE.
"""
A pool: a bounded set of interchangeable connections. The public names are imported from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txconnpool.errors import NoSuchCommand
from txconnpool.pool.decisions.limits import Backoff
from txconnpool.pool.library import PooledClientFactory, PoolObserver

if TYPE_CHECKING:
    from txconnpool.routing.requests import Pool

__all__ = ["Backoff", "NoSuchCommand", "Pool", "PoolObserver", "PooledClientFactory"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Pool is made of several pools, and its module imports those of this package. So it is imported when it is
        # needed.
        if name == "Pool":
            from txconnpool.routing.requests import Pool

            return Pool
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
