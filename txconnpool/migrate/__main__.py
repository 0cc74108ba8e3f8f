# -*- test-case-name: tests.migrate.test_main -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m txconnpool.migrate}: convert the configuration of another proxy, or compare two running proxies.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import TextIO

from txconnpool.migrate import mcrouter, twemproxy
from txconnpool.migrate.document import Document, MigrationError
from txconnpool.migrate.endpoints import Offset
from txconnpool.migrate.verify import KEYS, PREFIX, Peer, RedisPeer, Trouble, Verification, parseAddress

PROGRAM = "python -m txconnpool.migrate"

_USAGE = f"""{PROGRAM} [--port-offset N] [--port N] FILE
       {PROGRAM} --verify [--redis] [--prefix TEXT] [--timeout SECONDS] [--all] OLD NEW [KEYS]"""

_DESCRIPTION = """\
Move from twemproxy or mcrouter to txconnpool, without one key changing its server.

convert:
  FILE is the nutcracker.yml of twemproxy, or the JSON configuration of mcrouter; - reads standard input. The ini file
  for `twistd connpool --config` goes to standard output. Each setting stands below a comment with the line that it
  comes from. What has no equivalent is listed on standard error, and in comments that begin with NOT TAKEN OVER.

verify:
  OLD and NEW are addresses of running proxies: HOST:PORT, or the path of a UNIX socket. Some keys are set through one
  proxy and read through the other, in both directions: a key that is found lives on the same server for both. No data
  of yours is read, changed or deleted: the keys begin with a prefix and a random number. They are deleted afterwards,
  and they expire after ten minutes if that fails."""

_EPILOG = f"""\
exit status:
  0  the configuration was converted; all keys are on the same servers
  1  no pool could be taken over; some keys are on other servers
  2  an error: the arguments, the file, or a proxy that does not answer

examples:
  Convert, and check the result:
      {PROGRAM} nutcracker.yml > connpool.ini
      twistd connpool --config connpool.ini --check-config

  Run the new proxy beside the old one, on ports that are higher by 1000, and compare them:
      {PROGRAM} --port-offset 1000 nutcracker.yml > beside.ini
      twistd -n connpool --config beside.ini
      {PROGRAM} --verify 127.0.0.1:22121 127.0.0.1:23121

  Compare 100,000 keys of two proxies on UNIX sockets:
      {PROGRAM} --verify /run/nutcracker.sock /run/connpool.sock 100000

  Convert what a running mcrouter uses, with all its macros expanded:
      printf 'get __mcrouter__.preprocessed_config\\r\\nquit\\r\\n' | nc 127.0.0.1 5000 |
          sed '/^VALUE /d; /^END/d' | {PROGRAM} --port 5000 -"""


#: The environment variable with the password for Redis, as for redis-cli.
_PASSWORD = "REDISCLI_AUTH"

#: The port of the first pool of mcrouter, if none is given.
_PORT = 11212


class _Parser(argparse.ArgumentParser):
    """
    Writes its help to the given streams instead of those of the process.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        super().__init__(
            PROGRAM,
            usage=_USAGE,
            description=_DESCRIPTION,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._out, self._err = stdout, stderr

    def _print_message(self, message: str, file: object = None) -> None:
        (self._err if file is sys.stderr else self._out).write(message)


def _parser(stdout: TextIO, stderr: TextIO) -> argparse.ArgumentParser:
    parser = _Parser(stdout, stderr)
    parser.add_argument("arguments", nargs="*", metavar="FILE | OLD NEW [KEYS]", help=argparse.SUPPRESS)
    convert = parser.add_argument_group("options to convert")
    convert.add_argument(
        "--port-offset",
        type=_whole,
        default=0,
        metavar="N",
        help="add N to every port that is listened on, and .new to the path of every UNIX socket",
    )
    convert.add_argument(
        "--port",
        type=_whole,
        default=_PORT,
        metavar="N",
        help="the port of the first pool of mcrouter, whose file has no ports: its option -p. The next pools get the "
        f"next ports. The default is {_PORT}.",
    )
    verify = parser.add_argument_group("options to verify")
    verify.add_argument("--verify", action="store_true", help="compare two running proxies")
    verify.add_argument(
        "--redis",
        action="store_true",
        help="the proxies are for Redis. If their clients log in, the password is in the environment variable "
        f"{_PASSWORD}.",
    )
    verify.add_argument(
        "--prefix",
        default=PREFIX,
        metavar="TEXT",
        help="the beginning of all keys; it should have none of the characters of a hash tag. The default is "
        "%(default)s.",
    )
    verify.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="the time to wait for a reply. The default is 5."
    )
    verify.add_argument("--all", action="store_true", help="list all keys that differ, instead of the first 20")
    return parser


def _whole(text: str) -> int:
    if not text.isascii() or not text.lstrip("-").isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number")
    return int(text)


def main(arguments: Sequence[str], stdin: TextIO, stdout: TextIO, stderr: TextIO) -> int:
    """
    Run the command.

    @param arguments: the arguments, without the name of the program.
    @return: the exit status.
    """
    parser = _parser(stdout, stderr)
    try:
        options = parser.parse_args(arguments)
        words = options.arguments
        if options.verify:
            if not 2 <= len(words) <= 3:
                parser.error("--verify needs OLD and NEW, and perhaps the number of KEYS")
            return _verify(options, *words, stdout=stdout)
        if len(words) != 1:
            parser.error("expected one FILE, or --verify OLD NEW")
        return _convert(options, words[0], stdin, stdout, stderr)
    except SystemExit as end:
        return int(end.code or 0)
    except (MigrationError, Trouble) as error:
        stderr.write(f"{error}\n")
        return 2


def _convert(options: argparse.Namespace, path: str, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> int:
    document = Document("<stdin>" if path == "-" else path, _text(path, stdin))
    offset = Offset(options.port_offset)
    if document.isJson:
        migration = mcrouter.convert(document, offset, options.port)
    else:
        migration = twemproxy.convert(document, offset)
    system = "mcrouter" if document.isJson else "twemproxy"
    head = [
        f"Settings of txconnpool, from {document.name} of {system}, by `{_command(options, path, document.isJson)}`.",
        "Check them with `twistd connpool --config THIS_FILE --check-config`. When both proxies run, compare where "
        f"they look for keys: `{PROGRAM} --verify OLD NEW`.",
    ]
    stdout.write(migration.ini(head))
    for note in migration.notes:
        stderr.write(f"{note}\n")
    stderr.write(f"{migration.summary()}\n")
    return 0 if any(not section.off for section in migration.sections) else 1


def _command(options: argparse.Namespace, path: str, isJson: bool) -> str:
    """
    @return: the command that converts the file again in the same way.
    """
    words = [f"--port-offset={options.port_offset}"] if options.port_offset else []
    if isJson and options.port != _PORT:
        words.append(f"--port={options.port}")
    return f"{PROGRAM} {shlex.join([*words, path])}"


def _text(path: str, stdin: TextIO) -> str:
    try:
        if path == "-":
            return stdin.read()
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise MigrationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise MigrationError([f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}"]) from None


def _verify(options: argparse.Namespace, old: str, new: str, count: str = str(KEYS), *, stdout: TextIO) -> int:
    if not count.isascii() or not count.isdigit() or not 0 < int(count) <= 10**7:
        raise Trouble(f"KEYS {count}: expected a number from 1 to 10000000")
    connect = partial(RedisPeer, password=os.environ.get(_PASSWORD)) if options.redis else Peer
    connectOld = partial(connect, "OLD", parseAddress(old), options.timeout)
    connectNew = partial(connect, "NEW", parseAddress(new), options.timeout)
    report = Verification(connectOld, connectNew, options.prefix).run(int(count))
    stdout.write(report.text(None if options.all else 20))
    return report.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr))
