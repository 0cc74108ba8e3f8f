# Copyright txconnpool contributors. See LICENSE.
"""
Settings: their values, where they are read, and how they change.
"""

from __future__ import annotations

from txconnpool.config.settings import ConfigError, Fault, PoolSettings, Settings

__all__ = ["ConfigError", "Fault", "PoolSettings", "Settings"]
