# -*- test-case-name: tests.config.test_ini -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Settings from an ini file and the command line.

All errors are collected and reported together, each in one line with the place of the error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from txconnpool.config.kinds import nearest
from txconnpool.config.options import Option, WrongItem
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


def load(
    path: str | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
    directory: str | None = None,
    sockets: bool = True,
) -> Settings:
    """
    Make settings from an ini file and from options of the command line, which override the file. The files that the
    settings name are read and checked too, see L{txconnpool.config.files}.

    Options for pools apply to every pool of the file. C{upstream} and C{listen} replace those of the file, and are
    refused if it has several pools.

    @param path: the ini file, if there is one.
    @param given: the texts of each long option that was used, by its name without the two hyphens.
    @param directory: the absolute path of the directory that paths in these options are relative to; C{None}: the
        current one. Paths in the file are relative to the directory of the file.
    @param sockets: whether the sockets of systemd must exist. It passes them only to the process that it starts.

    @raise ConfigError: with all faults.
    """
    return _Loader(path, directory or os.getcwd(), sockets).load(given or {})


@dataclass(frozen=True)
class _Entry:
    """
    A setting in the file or on the command line.

    @ivar place: where it is, as the beginning of an error message.
    @ivar texts: the texts of its values.
    @ivar places: where each of them is; empty if that is C{place}.
    """

    place: str
    texts: list[str]
    places: list[str]


#: The place and the value of each setting that was given, by attribute.
_Values = dict[str, tuple[str, Any]]


class _Loader:
    """
    Reads settings and collects the errors in them.

    @ivar problems: one line for each error.
    @ivar wrong: the attributes of settings whose values are wrong. They are not compared with other settings.
    """

    def __init__(self, path: str | None, directory: str, sockets: bool) -> None:
        self.path = path
        self._directory = directory
        self._sockets = sockets
        self.problems: list[str] = []
        self.wrong: set[str] = set()

    def load(self, given: Mapping[str, Sequence[str]]) -> Settings:
        """
        See L{load}.
        """
        sections = self._read(self.path) if self.path is not None else {}
        home = os.path.dirname(os.path.join(self._directory, self.path or ""))
        common = self._values(sections.pop("connpool", {}), home)
        pools = {section.removeprefix("pool:"): self._values(entries, home) for section, entries in sections.items()}
        entered = {name: _Entry("command line:", list(texts), []) for name, texts in given.items()}
        override = self._values(entered, self._directory)
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
        percent signs). That module itself is not used, because it keeps no line numbers and stops at the first error.

        @return: the entries, by section and key.
        """
        sections: dict[str, dict[str, _Entry]] = {}
        section: str | None = None
        before = len(self.problems)
        for (number, first), *more in _statements(self._lines(path)):
            place = f"{path}:{number}:"
            if first.startswith("["):
                section = self._section(place, first, sections)
            elif section is None:
                self.problems.append(f"{place} {first!r} is in no section: expected [connpool] or [pool:NAME] above it")
            elif section:
                below = [(f"{path}:{at}: [{section}]", text) for at, text in more]
                self._entry(f"{place} [{section}]", first, below, sections[section], section == "connpool")
        if section is None and len(self.problems) == before:
            # At a reload, the file may be just being written. It must not put the defaults of all settings in force.
            self.problems.append(f"{path}: is empty: expected [connpool] or [pool:NAME]")
        return sections

    def _section(self, place: str, header: str, sections: dict[str, dict[str, _Entry]]) -> str:
        """
        Begin a section.

        @return: its name, or an empty string if there is no such section.
        """
        name = header.removeprefix("[").removesuffix("]").strip()
        if not re.fullmatch(rf"connpool|pool:{POOL_NAME}", name):
            right = f"expected [connpool], or [pool:NAME] with a name of {POOL_NAME_EXPECTED}"
            self.problems.append(f"{place} {header}: no such section; {right}")
            return ""
        if name in sections:
            self.problems.append(f"{place} [{name}] is given twice; expected all keys of a section together")
        sections.setdefault(name, {})
        return name

    def _entry(
        self, place: str, first: str, more: list[tuple[str, str]], entries: dict[str, _Entry], process: bool
    ) -> None:
        """
        Add a key and its value to a section.

        @param place: where it is.
        @param first: the key and the value.
        @param more: further lines of the value, each with its place.
        @param process: whether the section may have settings of the whole process.
        """
        key, equals, text = (part.strip() for part in first.partition("="))
        name = key.lower().replace("_", "-")
        known = [each.name for each in (OPTIONS if process else POOL_OPTIONS)]
        if not equals:
            self.problems.append(f"{place} {first!r}: expected KEY = VALUE")
        elif name in entries:
            right = "expected one, with each of several values on a line of its own"
            self.problems.append(f"{place} {name} is given twice; {right}")
        elif name in known:
            values = [(at, each) for at, each in ((place, text), *more) if each] or [(place, "")]
            entries[name] = _Entry(place, [each for _, each in values], [at for at, _ in values])
        elif any(name == each.name for each in OPTIONS):
            self.problems.append(f"{place} {name}: is for the whole process; expected it in [connpool]")
        else:
            near = nearest(name, known)
            right = f"did you mean {near}?" if near else "`twistd connpool --help` lists all keys"
            self.problems.append(f"{place} {key}: no such key; {right}")

    def _lines(self, path: str) -> list[str]:
        """
        @return: the lines of a file; none if it cannot be read.
        """
        try:
            with open(path, encoding="utf-8-sig") as file:
                return file.read().split("\n")
        except OSError as error:
            self.problems.append(f"{path}: cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            self.problems.append(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}")
        return []

    def _values(self, entries: Mapping[str, _Entry], directory: str) -> _Values:
        """
        Parse and check settings.

        @param entries: the texts, by key.
        @param directory: what paths are relative to.
        """
        values = {}
        for each in OPTIONS:
            if each.name in entries:
                entry = entries[each.name]
                try:
                    value = each.located(each.parse(entry.texts), directory)
                    # Here, so that a file that cannot be read is one fault among all others, with its line.
                    each.checkFiles(value, self._sockets)
                    values[each.attribute] = entry.place, value
                except WrongItem as error:
                    self.wrong.add(each.attribute)
                    place = entry.places[error.index] if entry.places else entry.place
                    given = each.kind.quote(entry.texts[error.index])
                    self.problems.append(f"{place} {each.name} = {given}: {error.problem}")
                except ValueError as error:
                    self.wrong.add(each.attribute)
                    given = each.kind.quote(", ".join(entry.texts))
                    self.problems.append(f"{entry.place} {each.name} = {given}: {error}")
        return values

    def _build(self, process: _Values, pools: Mapping[str, _Values]) -> Settings:
        """
        Construct the settings, which compares them with each other.

        @param process: the settings of the section C{[connpool]} and of the command line.
        @param pools: the settings of each pool, by name. They include those in C{process}.

        @raise ConfigError: with all faults.
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
        Add the faults of settings to the problems, each with the place of the first of its settings that was given.
        """
        for fault in error.faults:
            places = [pools[fault.pool][each][0] for each in fault.attributes if each in pools[fault.pool]]
            problem = f"{places[0]} {fault.text}" if places else f"{self.path}: {fault}"
            # A setting whose value is wrong is reported already. Comparing its default with others makes no sense.
            if problem not in self.problems and not self.wrong.intersection(fault.attributes):
                self.problems.append(problem)


def _arguments(values: _Values, options: Iterable[Option]) -> dict[str, Any]:
    """
    @return: the arguments for a class of settings. Settings that were not given are left to its defaults.
    """
    return {each.attribute: values[each.attribute][1] for each in options if each.attribute in values}


def _statements(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """
    Join each key with the lines below it that have more indent. Comments and empty lines are left out.

    @return: for each key its lines, each with its number.
    """
    indent, texts = 0, list[tuple[int, str]]()
    for at, line in enumerate(lines, 1):
        body = line.strip()
        if not body or body[0] in "#;":
            continue
        depth = len(line) - len(line.lstrip())
        if texts and depth > indent and not texts[0][1].startswith("["):
            texts.append((at, body))
            continue
        if texts:
            yield texts
        indent, texts = depth, [(at, body)]
    if texts:
        yield texts
