# -*- test-case-name: tests.routing.distribution.test_distributions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A distribution as it is configured: it checks servers, builds the map of keys to them, and describes itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from txconnpool.routing.distribution.clients import CLIENTS
from txconnpool.routing.distribution.keymap import CACHED_KEYS, KeyMap
from txconnpool.routing.distribution.keys import Cut, inOrder, salter, skipper, stopper, tagger, withoutRoute
from txconnpool.routing.distribution.locators import INDEX_BITS, NOBODY, Constant, Locator
from txconnpool.routing.distribution.proxies import PROXIES
from txconnpool.routing.distribution.scheme import KETAMA, Scheme, Weights, WhenDown, ketama
from txconnpool.routing.distribution.servers import SHORT, Member, Members, ServerSpec
from txconnpool.routing.hashing import ALIASES, HASHES

#: All maps of keys, by the values of the setting C{distribution}. The first one is for new pools.
SCHEMES: dict[str, Scheme] = {
    "ketama": Scheme(KETAMA, ketama, hash="md5", hashes=tuple(HASHES), label=SHORT, ring=True),
    **PROXIES,
    **CLIENTS,
}

#: The distribution for equal servers, which has no map of keys: any server may get any request.
ROUND_ROBIN = "round-robin"

#: The greatest weight that is an integer, as in C.
MAX_WEIGHT = 0xFFFFFFFF

#: All values of the setting C{distribution}.
NAMES = (*SCHEMES, ROUND_ROBIN)


#: All values of the setting C{hash}. Each distribution allows some of them.
HASH_NAMES = (
    *dict.fromkeys(name for scheme in SCHEMES.values() for name in (*scheme.hashes, scheme.hash) if name),
    *ALIASES,
)


@dataclass(frozen=True)
class Distribution:
    """
    How keys are distributed among several servers.

    @ivar name: one of L{NAMES}: the system whose map it is.
    @ivar hash: the hash of keys. C{None}: the default of that system. Afterwards the name without aliases, or an empty
        string if the system's hash cannot be chosen.
    @ivar hashTag: two characters. Only what is between the first one and the next second one is hashed, if anything.
    @ivar hashStop: only what is before this text is hashed. C{None}: the default of the system, which is C{|#|} for
        C{mcrouter} and empty for all others.
    @ivar hashSkip: a prefix of keys that is not hashed.
    @ivar hashSalt: what is appended to a key before it is hashed.
    """

    name: str = "ketama"
    hash: str | None = None
    hashTag: bytes = b""
    hashStop: bytes | None = None
    hashSkip: bytes = b""
    hashSalt: bytes = b""

    def __post_init__(self) -> None:
        """
        Complete and check the values.

        @raise ValueError: a value is wrong.
        """
        if self.name not in NAMES:
            raise ValueError(f"unknown distribution {self.name!r}, must be one of: {', '.join(NAMES)}")
        if not self.keyed:
            if self.hash or self.hashTag or self.hashStop or self.hashSkip or self.hashSalt:
                raise ValueError(f"the distribution {self.name} hashes no keys, so it takes no hash, tag, stop or skip")
            return
        scheme = self.scheme
        name = scheme.hash if self.hash is None else ALIASES.get(self.hash, self.hash)
        if name != scheme.hash and name not in scheme.hashes:
            allowed = f"must be one of: {', '.join(scheme.hashes)}" if scheme.hashes else "its hash cannot be chosen"
            raise ValueError(f"wrong hash {self.hash!r} for the distribution {self.name}: {allowed}")
        if self.hashTag and len(self.hashTag) != 2:
            raise ValueError(f"wrong hash tag {self.hashTag!r}: must be two characters, for example {{}}")
        object.__setattr__(self, "hash", name)
        if self.hashStop is None:
            object.__setattr__(self, "hashStop", scheme.stop)

    @property
    def keyed(self) -> bool:
        """
        Whether keys are mapped to servers. If not, the servers are equal.
        """
        return self.name != ROUND_ROBIN

    @property
    def scheme(self) -> Scheme:
        """
        The properties of the map.

        @raise ValueError: there is no map of keys.
        """
        try:
            return SCHEMES[self.name]
        except KeyError:
            raise ValueError(f"the distribution {self.name} has no map of keys") from None

    @property
    def positional(self) -> bool:
        """
        Whether a server is identified by its position in the list of servers, instead of by its label.
        """
        return self.keyed and self.scheme.label is None

    @property
    def redistributes(self) -> bool:
        """
        Whether keys of a server that is down get another server if L{build} is given the servers that are down.
        """
        return self.keyed and self.scheme.whenDown is not WhenDown.KEPT

    def labels(self, servers: Iterable[ServerSpec]) -> list[str]:
        """
        @return: the labels of servers, in their order. If the distribution does not use labels, those that are given,
            or the addresses.
        """
        rule = self.scheme.label if self.keyed else None
        return [server.label or (rule(server) if rule else server.address) for server in servers]

    def build(self, servers: Sequence[ServerSpec], down: Iterable[int] = (), cachedKeys: int = CACHED_KEYS) -> KeyMap:
        """
        Build the map of keys to servers. It takes up to 50 ms for 100 servers.

        @param servers: all servers, in their order. The map gives indexes in this list.
        @param down: the indexes of servers that are down. Their keys go where the system sends them if it distributes
            them again; keys may be left for which there is no server, with the index -1.
        @param cachedKeys: the highest number of keys in the cache of the map.
        @raise ValueError: the servers are not possible with this distribution.
        """
        self.check(servers)
        members = self._members(servers, frozenset(down) if self.redistributes else frozenset())
        live = members.live
        if not live or len(servers) == 1 or (len(live) == 1 and self.scheme.whenDown is WhenDown.RECOMPUTED):
            locator: Locator = Constant(live[0].index if live else NOBODY)
        else:
            locator = self.scheme.build(members, self.hash or "")
        return KeyMap(servers, members.down, locator, self._cut(), cachedKeys, self)

    def _members(self, servers: Sequence[ServerSpec], down: frozenset[int]) -> Members:
        weighted = any(server.weight is not None for server in servers)
        default = self.scheme.weight if weighted else 1
        ignored = self.scheme.weights is Weights.IGNORED
        everyone = [
            Member(index, label.encode(), default if server.weight is None or ignored else server.weight)
            for index, (server, label) in enumerate(zip(servers, self.labels(servers), strict=True))
        ]
        return Members(tuple(everyone), weighted, down)

    def _cut(self) -> Cut | None:
        cuts = [skipper(self.hashSkip)] if self.hashSkip else []
        if self.scheme.routes:
            cuts.append(withoutRoute)
        if self.hashStop:
            cuts.append(stopper(self.hashStop))
        if self.hashTag:
            cuts.append(tagger(self.hashTag, self.scheme.emptyTags))
        if self.hashSalt:
            cuts.append(salter(self.hashSalt))
        return inOrder(cuts)

    def check(self, servers: Sequence[ServerSpec]) -> None:
        """
        Check servers without building the map.

        @raise ValueError: they are not possible with this distribution.
        """
        if not 0 < len(servers) < 1 << INDEX_BITS:
            raise ValueError(f"{len(servers)} servers: must be from 1 to {(1 << INDEX_BITS) - 1}")
        if not self.keyed:
            return
        for server in servers:
            self._checkWeight(server)
        labels = self.labels(servers)
        named = labels if self.scheme.label else [server.label for server in servers if server.label]
        for label, count in Counter(named).items():
            if not label:
                raise ValueError(
                    f"a server without host and port or path needs a label for the distribution {self.name}"
                )
            if count > 1:
                raise ValueError(f"{count} servers have the label {label!r}: each must have its own")

    def _checkWeight(self, server: ServerSpec) -> None:
        weight, weights = server.weight, self.scheme.weights
        if weight is None or weights is Weights.IGNORED:
            return
        possible = {
            Weights.INTEGERS: 1 <= weight <= MAX_WEIGHT and weight == int(weight),
            Weights.SMALL_INTEGERS: 1 <= weight <= 100 and weight == int(weight),
            Weights.FRACTIONS: 0 <= weight <= 1,
            Weights.REFUSED: weight == 1,
        }
        if not possible[weights]:
            raise ValueError(f"wrong weight {weight:g} of {server}: with the distribution {self.name}, {weights.value}")

    def warnings(self, servers: Sequence[ServerSpec]) -> list[str]:
        """
        Find what is allowed, but probably not intended.

        @return: one line for each.
        @raise ValueError: the servers are not possible with this distribution.
        """
        if not self.keyed:
            self.check(servers)
            return []
        found = []
        shares = self.build(servers).shares()
        if len(servers) > 1 and max(shares) > 0.9999:
            why = ", because the hash crc32 has 15 bits only and the points have 32" if self.hash == "crc32" else ""
            found.append(f"all keys go to {servers[shares.index(max(shares))]}{why}")
        else:
            found += [
                f"{server} gets no keys"
                for server, share in zip(servers, shares, strict=True)
                if not share and server.weight != 0
            ]
        if self.hash == "fnv1_64" and self.scheme.ring:
            found.append("fnv1_64 spreads keys that differ only in their last digits badly, fnv1a_64 well")
        if self.scheme.weights is Weights.IGNORED and any(server.weight not in (None, 1) for server in servers):
            found.append(f"the distribution {self.name} ignores weights")
        if self.name == "spymemcached":
            found += [
                f"spymemcached hashes host names as HOST/IP:PORT: give {server} such a label"
                for server in servers
                if server.host is not None and not server.label and not _isAddress(server.host)
            ]
        if self.positional:
            addresses = Counter(server.address for server in servers if server.address)
            found += [f"{address} is listed {count} times" for address, count in addresses.items() if count > 1]
        return found

    def describe(self) -> str:
        """
        Describe what the name stands for.

        @return: one line: the map, the labels, what of a key is hashed, and what happens if a server is down.
        """
        if not self.keyed:
            return f"{self.name}: equal servers, any of them gets any request"
        scheme = self.scheme
        texts = [scheme.description % {"hash": self.hash}]
        texts.append(f"LABEL is by default {scheme.label}" if scheme.label else "a server is its position in the list")
        texts.append(scheme.weights.value)
        if scheme.routes:
            texts.append("a prefix /REGION/CLUSTER/ is not hashed")
        for text, value in (
            ("the prefix %s is not hashed", self.hashSkip),
            ("keys are hashed up to %s", self.hashStop),
            ("keys are hashed between %s", self.hashTag),
            ("%s is appended to keys for hashing", self.hashSalt),
        ):
            if value:
                texts.append(text % value.decode("utf-8", "backslashreplace"))
        texts.append(f"when a server is ejected, {scheme.whenDown.value}")
        return f"{self.name}: {'; '.join(texts)}"


def _isAddress(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
