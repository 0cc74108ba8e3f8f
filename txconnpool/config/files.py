# -*- test-case-name: tests.config.test_files -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The files that settings name: users and passwords, keys and certificates.

Constructing settings reads none of them. They are read when the proxy starts, and again at each reload.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from txconnpool.config.credentials import readLogins
from txconnpool.config.options import Option
from txconnpool.config.settings import ConfigError, Fault, Settings, faultsOf
from txconnpool.net.endpoints import nameOf
from txconnpool.net.tls import argument, digest, periods, usesTLS


def checkFiles(settings: Settings) -> None:
    """
    Read all files that settings name, and check what is in them.

    @raise ConfigError: with a fault for each setting whose files cannot be read or are of no use.
    """
    faults = list(faultsOf(settings, Option.checkFiles))
    for pool in settings.pools:
        faults += faultsOf(pool, Option.checkFiles)
    if not faults and settings.strictPermissions == "yes":
        faults += exposedSecrets(settings)
    if faults:
        raise ConfigError(faults)


def exposedSecrets(settings: Settings) -> Iterator[Fault]:
    """
    Find the files with secrets that other users of the machine can read or change: those with passwords for their group
    or others, private keys for others.

    @return: a fault for each. Files that do not exist have none.
    """
    if settings.adminPasswordFile is not None:
        yield from _exposed(settings.adminPasswordFile, "adminPasswordFile", _GROUP | _OTHERS)
    for pool in settings.pools:
        for attribute in ("upstreamAuth", "sentinelAuth", "listenAuth"):
            source = getattr(pool, attribute)
            if source is not None and source.startswith("file:"):
                yield from _exposed(source.removeprefix("file:"), attribute, _GROUP | _OTHERS, pool.name)
        for attribute, endpoints in (("upstream", pool.dialed), ("listen", pool.listen)):
            for key in {argument(each, "privateKey") for each in endpoints if usesTLS(each)} - {""}:
                yield from _exposed(key, attribute, _OTHERS, pool.name)


def outdatedCertificates(settings: Settings) -> Iterator[Fault]:
    """
    Find the certificates of this process that are not valid now, or soon not any more: clients or servers refuse them.

    @return: a fault for each. If the packages for TLS are not installed there are none.
    """
    places = [("stats", settings.stats or "", ""), ("admin", settings.admin or "", "")]
    for pool in settings.pools:
        places += [("listen", each, pool.name) for each in pool.listen]
        places += [("upstream", each, pool.name) for each in pool.dialed]
    now = datetime.now(UTC)
    for attribute, endpoint, name in places:
        for path, begin, end in periods(endpoint) if usesTLS(endpoint) else ():
            if now >= end:
                text = f"has expired: it was valid until {end:{_DATE}}"
            elif now < begin:
                text = f"is not valid yet: it is from {begin:{_DATE}}"
            elif end - now < EXPIRES_SOON:
                text = f"expires soon: it is valid until {end:{_DATE}}"
            else:
                continue
            yield Fault(f"{attribute}: the certificate {path} {text}", (attribute,), name)


#: The time before the end of a certificate in which there is a warning.
EXPIRES_SOON: Final = timedelta(days=14)

#: How dates are written.
_DATE: Final = "%Y-%m-%d %H:%M UTC"

#: The permissions of a file to read and to write for its group and for others.
_GROUP, _OTHERS = 0o060, 0o006


def _exposed(path: str, attribute: str, permissions: int, pool: str = "") -> Iterator[Fault]:
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError:
        return
    if mode & permissions:
        kind = "other users" if mode & _OTHERS else "its group"
        text = f"{attribute}: {path} is open to {kind} (mode {mode:03o}); expected `chmod {mode & ~permissions:03o}`"
        yield Fault(text, (attribute,), pool)


def fingerprints(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """
    Read the files that the pools of some settings name, to find out later whether they have changed.

    @return: for each of them, what it is for, and a digest of its content. Files that cannot be read are left out: the
        code that uses them reports that.
    """
    for pool in settings.pools:
        named: list[tuple[str, Callable[[str], bytes], str | None]] = [
            ("user and password of upstream-auth", _usersDigest, pool.upstreamAuth),
            ("user and password of sentinel-auth", _usersDigest, pool.sentinelAuth),
            ("users and passwords of listen-auth", _usersDigest, pool.listenAuth),
        ]
        for endpoint in (*pool.listen, *pool.dialed):
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
