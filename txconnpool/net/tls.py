# -*- test-case-name: tests.net.test_tls -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The keys and certificates that endpoint strings name, and errors about them in words for operators.

C{OpenSSL} is imported only where it is used: TLS is an extra of the package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from txconnpool.net.syntax import ARGUMENT, DIRECTORIES, FILES


class CannotUse(ValueError):
    """
    An endpoint string is right, but the files or the socket that it names do not exist or cannot be used.
    """


class NoSuchSocket(CannotUse):
    """
    systemd has passed no such socket to this process.
    """


def usesTLS(description: str) -> bool:
    """
    @return: whether an endpoint string is one for TLS, which names or may name keys and certificates.
    """
    return bool(re.match("(ssl|tls):", description, re.IGNORECASE))


@contextmanager
def explained(description: str) -> Iterator[None]:
    """
    Replace the exceptions of Twisted and OpenSSL for what an endpoint string names by a L{CannotUse} with an
    explanation. Exceptions for a wrong string are not replaced.

    @raise CannotUse: the string is one for TLS, and the packages for TLS are not installed.
    """
    if usesTLS(description):
        try:
            import OpenSSL  # noqa: F401
        except ImportError:
            raise CannotUse("TLS needs packages that are not installed: pip install 'twisted[tls]'") from None
    try:
        yield
    except OSError as error:
        reason = getattr(error, "originalException", error)  # FilePath wraps those of directories
        raise CannotUse(f"{reason.filename}: {reason.strerror}") from error
    except (IndexError, KeyError) as error:
        if not description.startswith("systemd:"):
            raise
        raise NoSuchSocket("systemd gave this process no such socket; see connpool.socket") from error
    except Exception as error:
        if not type(error).__module__.startswith("OpenSSL"):
            raise
        raise CannotUse(f"certificate or key: {opensslReason(error)}") from error


def opensslReason(error: BaseException) -> str:
    """
    @return: the text of an exception of OpenSSL, without the names of its functions.
    """
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[-1][-1]) if reasons else str(error) or type(error).__name__


def tlsProblem(error: BaseException) -> str | None:
    """
    @return: a short text for an exception of a TLS connection, or C{None} for any other exception.
    """
    package = type(error).__module__.partition(".")[0]
    if package == "service_identity":
        named = type(error).__name__ != "CertificateError"
        return f"TLS: the certificate is for {'another host' if named else 'no host: it has no subjectAltName'}"
    return f"TLS: {opensslReason(error)}" if package == "OpenSSL" else None


def argument(description: str, name: str) -> str:
    """
    @return: the value of an argument of an endpoint string, or an empty string.
    """
    found = re.search(ARGUMENT % name, description)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


def authorities(description: str, name: str) -> list[Any]:
    """
    Read the certificates of authorities that are in a directory.

    @param description: an endpoint string.
    @param name: the argument that names the directory.

    @return: the certificates; none if there is no such argument.

    @raise CannotUse: there are no certificates in the directory. Twisted would trust no authority then, and each
        connection would fail.
    """
    directory = argument(description, name)
    if not directory or not usesTLS(description):
        return []
    from OpenSSL.crypto import FILETYPE_PEM, load_certificate

    certificates = []
    for entry in sorted(os.listdir(directory)):
        if entry.lower().endswith(".pem"):
            certificates += [load_certificate(FILETYPE_PEM, each) for each in _certificatesIn(Path(directory, entry))]
    if not certificates:
        raise CannotUse(f"no certificate in the .pem files of {directory}")
    return certificates


def _certificatesIn(path: Path) -> list[bytes]:
    """
    @return: the texts of the certificates in a PEM file.

    @raise OSError: it cannot be read.
    """
    return re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", path.read_bytes(), re.DOTALL)


def periods(description: str) -> Iterator[tuple[str, datetime, datetime]]:
    """
    Find when the certificates are valid with which the endpoint of a string identifies itself.

    @param description: an endpoint string for TLS.

    @return: for each of them, the path of its file, the beginning and the end of its period. Files that cannot be read,
        or are no certificates, are left out: the code that uses them reports that.
    """
    try:
        from OpenSSL.crypto import FILETYPE_PEM, Error, load_certificate
    except ImportError:
        return
    own = next(filter(None, (argument(description, name) for name in ("certKey", "certificate", "privateKey"))), "")
    for path, most in ((own, 1), (argument(description, "extraCertChain"), None)):
        if path:
            try:
                found = [load_certificate(FILETYPE_PEM, each) for each in _certificatesIn(Path(path))[:most]]
                dates = [(each.get_notBefore(), each.get_notAfter()) for each in found]
            except (OSError, Error):
                continue
            for begin, end in dates:
                yield path, _dateOf(begin), _dateOf(end)


def _dateOf(text: bytes | None) -> datetime:
    """
    @param text: a date as OpenSSL writes it, in UTC.
    """
    return datetime.strptime(f"{(text or b'').decode()}+0000", "%Y%m%d%H%M%SZ%z")


def digest(description: str) -> bytes:
    """
    Read the files that an endpoint string names.

    @return: a digest of their content. It is another one if a key or a certificate has changed.

    @raise OSError: a file or directory cannot be read.
    """
    found = sha256()
    for name, value in re.findall(rf":({FILES}|{DIRECTORIES})=((?:[^:\\]|\\.)*)", description):
        path = Path(re.sub(r"\\(.)", r"\1", value))
        for file in sorted(filter(Path.is_file, path.iterdir())) if re.fullmatch(DIRECTORIES, name) else [path]:
            found.update(file.read_bytes())
    return found.digest()
