# -*- test-case-name: tests.config.test_ini -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Settings from an ini file and the command line.

Everything that is wrong is collected and told at once, in one line each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from txconnpool.config.kinds import nearest
from txconnpool.config.options import Option
from txconnpool.config.settings import (
    OPTIONS,
    POOL_NAME,
    POOL_NAME_EXPECTED,
    POOL_OPTIONS,
    PROCESS_OPTIONS,
    ConfigError,
    Fault,
    PoolSettings,
    Settings,
)


def load(path: str | None = None, given: Mapping[str, Sequence[str]] | None = None) -> Settings:
    """
    Make the settings from an ini file and from options of the command line, which win over the file.

    Options that belong to a pool are for every pool of the file. C{upstream} and C{listen} replace those of the file,
    and are refused when it has several pools.

    @param path: the ini file.
    @param given: for each long option that was used, without its hyphens: its texts.

    @raise ConfigError: with all that is wrong.
    """
    return _Loader(path).load(given or {})


@dataclass(frozen=True)
class _Entry:
    """
    A setting as it was given.

    @ivar place: where it was, to begin a sentence about it.
    @ivar texts: what stands there.
    """

    place: str
    texts: list[str]


# The place and the value, by attribute.
_Values = dict[str, tuple[str, Any]]


class _Loader:
    """
    Collects what is given and what is wrong with it.

    @ivar problems: one line each.
    @ivar wrong: the attributes of settings that are wrong by themselves: no use to hold them against others.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.problems: list[str] = []
        self.wrong: set[str] = set()

    def load(self, given: Mapping[str, Sequence[str]]) -> Settings:
        """
        See L{load}.
        """
        sections = self._read(self.path) if self.path is not None else {}
        common = self._values(sections.pop("connpool", {}))
        pools = {section.removeprefix("pool:"): self._values(entries) for section, entries in sections.items()}
        override = self._values({name: _Entry("command line:", list(texts)) for name, texts in given.items()})
        if len(pools) > 1:
            for attribute in ("upstream", "listen"):
                if attribute in override:
                    right = f"the file has the pools {', '.join(pools)}; expected one in each of them"
                    self.problems.append(f"command line: {attribute}: {right}")
        return self._build(
            {**common, **override},
            {name: {**common, **own, **override} for name, own in (pools or {"default": {}}).items()},
        )

    def _read(self, path: str) -> dict[str, dict[str, _Entry]]:
        """
        Read a file.

        The form is that of C{configparser}, with C{=} only and without interpolation (endpoint strings have colons and
        percent signs); read here because an error needs its line, and all errors of the file are wanted at once.

        @return: the entries by section and key.
        """
        sections: dict[str, dict[str, _Entry]] = {}
        section: str | None = None
        before = len(self.problems)
        for number, (first, *more) in _statements(self._lines(path)):
            place = f"{path}:{number}:"
            if first.startswith("["):
                section = self._section(place, first, sections)
            elif section is None:
                self.problems.append(f"{place} {first!r} is in no section: expected [connpool] or [pool:NAME] above it")
            elif section:
                self._entry(f"{place} [{section}]", first, more, sections[section], section == "connpool")
        if section is None and len(self.problems) == before:
            # On reload, that is a file which is just being written: nobody wants the defaults of everything.
            self.problems.append(f"{path}: is empty: expected [connpool] or [pool:NAME]")
        return sections

    def _section(self, place: str, header: str, sections: dict[str, dict[str, _Entry]]) -> str:
        """
        Begin a section.

        @return: its name, or nothing when there is no such section.
        """
        name = header.removeprefix("[").removesuffix("]").strip()
        if not re.fullmatch(rf"connpool|pool:{POOL_NAME}", name):
            right = f"expected [connpool], or [pool:NAME] with a name of {POOL_NAME_EXPECTED}"
            self.problems.append(f"{place} {header}: no such section; {right}")
            return ""
        if name in sections:
            self.problems.append(f"{place} [{name}] stands twice; expected all keys of a section together")
        sections.setdefault(name, {})
        return name

    def _entry(self, place: str, first: str, more: list[str], entries: dict[str, _Entry], process: bool) -> None:
        """
        Take a key and its value.

        @param process: whether keys of the whole process may stand here.
        """
        key, equals, text = (part.strip() for part in first.partition("="))
        name = key.lower().replace("_", "-")
        known = [each.name for each in (OPTIONS if process else POOL_OPTIONS)]
        if not equals:
            self.problems.append(f"{place} {first!r}: expected KEY = VALUE")
        elif name in entries:
            self.problems.append(f"{place} {name} stands twice; expected one, with several values on a line each")
        elif name in known:
            entries[name] = _Entry(place, [each for each in (text, *more) if each] or [""])
        elif any(name == each.name for each in OPTIONS):
            self.problems.append(f"{place} {name}: is for the whole process; expected it in [connpool]")
        else:
            near = nearest(name, known)
            right = f"did you mean {near}?" if near else "`twistd connpool --help` lists all keys"
            self.problems.append(f"{place} {key}: no such key; {right}")

    def _lines(self, path: str) -> list[str]:
        """
        Read the lines of a file.
        """
        try:
            with open(path, encoding="utf-8-sig") as file:
                return file.read().split("\n")
        except OSError as error:
            self.problems.append(f"{path}: cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            self.problems.append(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}")
        return []

    def _values(self, entries: Mapping[str, _Entry]) -> _Values:
        """
        Read and check what is given.

        @param entries: by key.
        """
        values = {}
        for each in OPTIONS:
            if each.name in entries:
                entry = entries[each.name]
                try:
                    value = each.parse(entry.texts)
                    # Here, so that a file that cannot be read is one fault among all others, with its line.
                    each.checkFiles(value)
                    values[each.attribute] = entry.place, value
                except ValueError as error:
                    self.wrong.add(each.attribute)
                    given = each.kind.quote(", ".join(entry.texts))
                    self.problems.append(f"{entry.place} {each.name} = {given}: {error}")
        return values

    def _build(self, process: _Values, pools: Mapping[str, _Values]) -> Settings:
        """
        Make the objects, which check what is given against each other.

        @param pools: by name; what is given for the process is in each of them too.

        @raise ConfigError: with all that is wrong.
        """
        built, settings = [], None
        for name, values in pools.items():
            try:
                built.append(PoolSettings(name=name, **_arguments(values, POOL_OPTIONS)))
            except ConfigError as error:
                self._locate(error, pools)
        if built:
            try:
                settings = Settings(pools=tuple(built), **_arguments(process, PROCESS_OPTIONS))
            except ConfigError as error:
                self._locate(error, {**pools, "": process})
        if self.problems or settings is None:
            raise ConfigError(map(Fault, self.problems))
        return settings

    def _locate(self, error: ConfigError, pools: Mapping[str, _Values]) -> None:
        """
        Say of each fault where the setting that is to blame was given.
        """
        for fault in error.faults:
            places = [pools[fault.pool][each][0] for each in fault.attributes if each in pools[fault.pool]]
            problem = f"{places[0]} {fault.text}" if places else f"{self.path}: {fault}"
            # What is wrong by itself was told, and its default is nothing to hold against others.
            if problem not in self.problems and not self.wrong.intersection(fault.attributes):
                self.problems.append(problem)


def _arguments(values: _Values, options: Iterable[Option]) -> dict[str, Any]:
    """
    Choose what one of the two classes takes; defaults are its own.
    """
    return {each.attribute: values[each.attribute][1] for each in options if each.attribute in values}


def _statements(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """
    Join each key with the deeper indented lines below it; comments and empty lines fall out.

    @return: the number of the first line, and the lines.
    """
    number, indent, texts = 0, 0, list[str]()
    for at, line in enumerate(lines, 1):
        body = line.strip()
        if not body or body[0] in "#;":
            continue
        depth = len(line) - len(line.lstrip())
        if texts and depth > indent and not texts[0].startswith("["):
            texts.append(body)
            continue
        if texts:
            yield number, texts
        number, indent, texts = at, depth, [body]
    if texts:
        yield number, texts
