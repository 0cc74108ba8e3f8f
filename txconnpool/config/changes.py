# -*- test-case-name: tests.config.test_changes -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What has to be done so that other settings are in force: a comparison of two settings, without doing anything.

L{txconnpool.operate.reload} does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from txconnpool.config.options import Option
from txconnpool.config.settings import POOL_OPTIONS, PROCESS_OPTIONS, ConfigError, Fault, PoolSettings, Settings
from txconnpool.routing.distribution import NAMES, Distribution, KeyMap, movedShare

#: The settings that a pool keeps while it runs: a reload with another value is refused.
KEPT: Final = ("protocol", "database")

#: A listening address of a pool: the name of the pool, and the endpoint string.
Address = tuple[str, str]


#: The end of a line about a setting that only a restart can change.
_NEEDS_RESTART: Final = ": needs a restart"


class CannotChange(Exception):
    """
    Settings cannot be put in force now. Nothing has changed. The text of the exception has one line for each reason.
    """


@dataclass(frozen=True)
class Plan:
    """
    What has to be done so that other settings are in force.

    @ivar settings: the settings that are in force afterwards: the wanted ones, except those that only a restart can
        change.
    @ivar removed: the names of pools that go.
    @ivar opened: addresses that are not listened on yet.
    @ivar kept: addresses that stay with their pools.
    @ivar moved: listening addresses that another pool takes over: the endpoint string, the pool that has it now, and
        the pool that gets it.
    @ivar closed: listening addresses that no pool wants any more.
    @ivar changes: a line for each setting that changes.
    @ivar restarts: a line for each setting that only a restart can change. It says so at its end.
    """

    settings: Settings
    removed: tuple[str, ...]
    opened: tuple[Address, ...]
    kept: tuple[Address, ...]
    moved: tuple[tuple[str, str, str], ...]
    closed: tuple[Address, ...]
    changes: tuple[str, ...]
    restarts: tuple[str, ...]


def plan(old: Settings, wanted: Settings, listening: Iterable[Address]) -> Plan:
    """
    Compare settings.

    @param old: the settings in force.
    @param wanted: the settings that are to be in force.
    @param listening: the addresses that are listened on. Those in C{old} may have failed to listen.

    @raise ConfigError: a pool has another protocol or database. Its clients and connections have the old one.
    """
    former = {pool.name: pool for pool in old.pools}
    faults = [
        Fault(
            f"{name} {getattr(former[pool.name], name)} -> {getattr(pool, name)}: a pool keeps its {name} while it "
            "runs; expected another name for the pool, or a restart",
            (name,),
            pool.name,
        )
        for pool in wanted.pools
        for name in KEPT
        if getattr(pool, name) != getattr(former.get(pool.name, pool), name)
    ]
    if faults:
        raise ConfigError(faults)
    fixed = {each.attribute: getattr(old, each.attribute) for each in PROCESS_OPTIONS if each.fixed}
    new = replace(wanted, **fixed)
    addresses = [(pool.name, description) for pool in new.pools for description in pool.listen]
    spare = [address for address in listening if address not in addresses]
    opened, kept, moved = [], [], []
    for name, description in addresses:
        givers = [address for address in spare if address[1] == description]
        if (name, description) in listening:
            kept.append((name, description))
        elif givers:
            spare.remove(givers[0])
            moved.append((description, givers[0][0], name))
        else:
            opened.append((name, description))
    return Plan(
        settings=new,
        removed=tuple(pool.name for pool in old.pools if pool.name not in {each.name for each in new.pools}),
        opened=tuple(opened),
        kept=tuple(kept),
        moved=tuple(moved),
        closed=tuple(spare),
        changes=tuple(differences(old, new)),
        restarts=tuple(f"{line}{_NEEDS_RESTART}" for line in differences(new, wanted)),
    )


def summary(lines: Sequence[str]) -> str:
    """
    Count what a change of settings has done.

    @param lines: the lines of L{Plan.changes} and L{Plan.restarts}, and others about what has changed.

    @return: such as C{2 changed, 1 needs a restart}.
    """
    restarts = sum(line.endswith(_NEEDS_RESTART) for line in lines)
    text = f"{len(lines) - restarts} changed"
    return f"{text}, {restarts} need{'s' if restarts == 1 else ''} a restart" if restarts else text


def comparison(old: Settings, new: Settings) -> list[str]:
    """
    Describe what a reload would change, with the shares of the keys that get other servers. The maps of keys are built
    for that.

    @param old: the settings in force.

    @return: lines.
    """
    try:
        change = plan(old, new, [(pool.name, description) for pool in old.pools for description in pool.listen])
    except ConfigError as error:
        return [f"a reload is refused: {fault}" for fault in error.faults]
    lines = [*change.changes, *change.restarts]
    return [*(lines or ["no setting changes"]), *_movedKeys(old, new)]


def _movedKeys(old: Settings, new: Settings) -> Iterator[str]:
    """
    Find which share of the keys of each pool gets another server.
    """
    before = {pool.name: pool for pool in old.pools}
    for pool in new.pools:
        past = before.get(pool.name)
        if past is None:
            continue
        now, then = _keyMap(past), _keyMap(pool)
        if now is not None and then is not None:
            yield f"pool {pool.name}: {movedShare(now, then):.1%} of the keys get another server"
        elif any(each.sources and each.distributionByKey for each in (past, pool)) and past != pool:
            sources = ", ".join(dict.fromkeys(line.split()[0] for line in (*past.sources, *pool.sources)))
            yield f"pool {pool.name}: which keys get another server depends on {sources}, which are not looked up now"


def _keyMap(pool: PoolSettings) -> KeyMap | None:
    """
    @return: the map of keys of a pool, or C{None} if it has none, or its servers are not known.
    """
    if pool.sources or pool.cluster is not None:
        return None
    distribution = pool.distributionByKey or (Distribution(NAMES[0]) if len(pool.servers) == 1 else None)
    return None if distribution is None else distribution.build([server.spec() for server in pool.servers])


def differences(old: Settings, new: Settings) -> Iterator[str]:
    """
    Describe all differences between settings.

    @return: a line for each setting that differs, such as C{pool pages: pool-size 4 -> 8}.
    """
    yield from _changed(old, new, PROCESS_OPTIONS)
    before = {pool.name: pool for pool in old.pools}
    for pool in new.pools:
        if pool.name not in before:
            yield f"pool {pool.name}: added"
        else:
            past = before.pop(pool.name)
            lines = (*serversChanged(past, pool), *_changed(past, pool, _POOL_OPTIONS))
            yield from (f"pool {pool.name}: {line}" for line in lines)
    yield from (f"pool {name}: removed" for name in before)


_POOL_OPTIONS = tuple(each for each in POOL_OPTIONS if each.attribute != "upstream")


def serversChanged(old: PoolSettings, new: PoolSettings) -> Iterator[str]:
    """
    Compare the servers of a pool by their names: one that gets another weight stays the same server.

    @return: a line for each server and each source of servers that differs.
    """
    yield from (f"upstream + {line}" for line in new.sources if line not in old.sources)
    yield from (f"upstream - {line}" for line in old.sources if line not in new.sources)
    before, after = ({server.name: server for server in each.servers} for each in (old, new))
    yield from (f"upstream + {after[name]}" for name in after if name not in before)
    yield from (f"upstream - {before[name]}" for name in before if name not in after)
    kept = [name for name in after if name in before]
    yield from (f"upstream {before[name]} -> {after[name]}" for name in kept if before[name] != after[name])
    if old.cluster != new.cluster and before.keys() == after.keys():
        yield f"upstream {old.upstream[0]} -> {new.upstream[0]}"
    distribution = new.distributionByKey
    if distribution is not None and distribution.positional and kept != [name for name in before if name in after]:
        yield f"upstream: another order of servers, on which the distribution {distribution.name} depends"


def _changed(old: Settings | PoolSettings, new: Settings | PoolSettings, options: Iterable[Option]) -> Iterator[str]:
    for each in options:
        before, after = getattr(old, each.attribute), getattr(new, each.attribute)
        if each.many:
            yield from (f"{each.name} + {value}" for value in after if value not in before)
            yield from (f"{each.name} - {value}" for value in before if value not in after)
        elif before != after:
            yield f"{each.name} {each.show(before) or 'none'} -> {each.show(after) or 'none'}"
