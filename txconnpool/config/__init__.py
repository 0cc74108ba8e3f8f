# Copyright txconnpool contributors. See LICENSE.
"""
The settings of the proxy: their values, the ini file and the command line, and what a change of settings requires.
"""

from __future__ import annotations

from txconnpool.config.settings import ConfigError, Fault, PoolSettings, Settings

__all__ = ["ConfigError", "Fault", "PoolSettings", "Settings"]


def __dir__() -> list[str]:
    return __all__
