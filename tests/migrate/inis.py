# Copyright txconnpool contributors. See LICENSE.
"""
Read ini files that were written.
"""

from __future__ import annotations

import re
from typing import Any

from txconnpool.config.settings import POOL_OPTIONS, PoolSettings
from txconnpool.migrate.sections import Migration


def settings(migration: Migration) -> dict[str, dict[str, Any]]:
    """
    @return: for each pool that is not commented out its settings; C{upstream} is a list.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in migration.ini([]).splitlines():
        body = line.strip()
        if line.startswith("["):
            pool = found[re.sub(r"\[pool:|\]", "", line)] = {}
        elif body and body[0] not in "#;":
            if line.startswith(" "):
                pool["upstream"].append(body)
            else:
                key, _, value = (part.strip() for part in line.partition("="))
                pool[key] = value or []
    return found


def load(migration: Migration) -> list[PoolSettings]:
    """
    @return: the settings of the pools.
    @raise ConfigError: they cannot be used.
    """
    options = {each.name: each for each in POOL_OPTIONS}
    return [
        PoolSettings(
            name=name,
            **{
                options[key].attribute: options[key].parse(value if isinstance(value, list) else [value])
                for key, value in pool.items()
            },
        )
        for name, pool in settings(migration).items()
    ]
