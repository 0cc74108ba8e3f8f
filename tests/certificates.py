# Copyright txconnpool contributors. See LICENSE.
"""
Keys and certificates for tests, in files. They are made with C{cryptography}, which is installed with TLS.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID
except ImportError:
    missingTLS: str | None = "the extra tls is not installed"
else:
    missingTLS = None


class Certificate:
    """
    A key and its certificate.

    @ivar key: the path of the key.
    @ivar certificate: the path of the certificate.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        signer: Certificate | None = None,
        authority: bool = False,
        named: bool = True,
        days: tuple[float, float] = (-1, 90),
    ) -> None:
        """
        Make a key and a certificate for it.

        @param name: the name or the address of the host; the files have this name too.
        @param signer: the certificate authority; the certificate is self-signed if not given.
        @param authority: whether the certificate may sign others.
        @param named: whether the certificate has a C{subjectAltName}; if not, it is for no host.
        @param days: when it begins and ceases to be valid, in days from now.
        """
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = signer or self
        self.serial = x509.random_serial_number()
        now = datetime.now(UTC)
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        builder = (
            x509.CertificateBuilder(issuer._name, self._name, self._key.public_key(), self.serial)
            .not_valid_before(now + timedelta(days[0]))
            .not_valid_after(now + timedelta(days[1]))
            .add_extension(x509.BasicConstraints(authority, None), True)
        )
        if named:
            builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), False)
        made = builder.sign(issuer._key, hashes.SHA256())
        self.key = directory / f"{name}.key"
        self.certificate = directory / f"{name}.pem"
        self.key.touch(0o600)
        self.key.write_bytes(self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.certificate.write_bytes(made.public_bytes(Encoding.PEM))


def quoted(path: Path) -> str:
    """
    @return: a path as a part of an endpoint string.
    """
    return str(path).replace("\\", r"\\").replace(":", r"\:")
