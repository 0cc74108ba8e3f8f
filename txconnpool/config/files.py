# -*- test-case-name: tests.config.test_files -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The files that settings name: users and passwords, keys and certificates.

Constructing settings reads none of them. They are read when the proxy starts, and again at each reload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256

from txconnpool.config.credentials import readLogins
from txconnpool.config.options import Option
from txconnpool.config.settings import ConfigError, Settings, faultsOf
from txconnpool.net.endpoints import nameOf
from txconnpool.net.tls import digest, usesTLS


def checkFiles(settings: Settings) -> None:
    """
    Read all files that settings name, and check what is in them.

    @raise ConfigError: with a fault for each setting whose files cannot be read or are of no use.
    """
    faults = list(faultsOf(settings, Option.checkFiles))
    for pool in settings.pools:
        faults += faultsOf(pool, Option.checkFiles)
    if faults:
        raise ConfigError(faults)


def fingerprints(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """
    Read the files that the pools of some settings name, to find out later whether they have changed.

    @return: for each of them, what it is for, and a digest of its content. Files that cannot be read are left out: the
        code that uses them reports that.
    """
    for pool in settings.pools:
        named: list[tuple[str, Callable[[str], bytes], str | None]] = [
            ("user and password of upstream-auth", _usersDigest, pool.upstreamAuth),
            ("users and passwords of listen-auth", _usersDigest, pool.listenAuth),
        ]
        for endpoint in (*pool.listen, *pool.upstream):
            if usesTLS(endpoint):
                named.append((f"keys and certificates of {nameOf(endpoint)}", digest, endpoint))
        for what, digestOf, place in named:
            if place is not None:
                try:
                    yield f"pool {pool.name}: {what}", digestOf(place)
                except (OSError, ValueError):
                    pass


def _usersDigest(source: str) -> bytes:
    return sha256(b"\n".join(b":".join(login) for login in readLogins(source))).digest()
