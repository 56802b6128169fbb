"""Where etcd is and how one is let in: endpoints, certificates, a user's name and password.

Owns the certificate files. Knows nothing of gRPC.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from udpbackend.errors import HostError, UsageError
from udpbackend.settings import Settings

SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Whom the host trusts; the first that is there counts, and before them the variable SSL_CERT_FILE."""


class EtcdUrl(msgspec.Struct, frozen=True):
    """One endpoint."""

    host: str
    """A name or an address, without brackets."""
    port: int
    tls: bool

    @classmethod
    def parse(cls, text: str, *, tls: bool = False) -> Self:
        """Reads `https://etcd.example:2379`; `tls`: what is meant without a scheme. Raises UsageError naming `text`."""
        try:
            found = urlsplit(text if "://" in text else f"{'https' if tls else 'http'}://{text}")
            host, port = found.hostname, found.port
        except ValueError:
            host = port = None
        if not host or not port or found.scheme not in ("http", "https") or found.username or found.path.strip("/"):
            raise UsageError(
                f"--etcd-endpoints: {text!r} is not an endpoint: expected host and port, like https://192.0.2.7:2379"
            )
        return cls(host, port, found.scheme == "https")

    @property
    def target(self) -> str:
        """Host and port, as a dialler wants them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.target}"


class Certificates(NamedTuple):
    """What a TLS connection needs, as PEM text."""

    authorities: bytes | None
    """None: those the library brings."""
    key: bytes | None
    chain: bytes | None


@dataclass(frozen=True, slots=True)
class Access:
    """What the operator gave to be let in with; the password shows nowhere."""

    cafile: Path | None = None
    certfile: Path | None = None
    """With `keyfile`, or both None."""
    keyfile: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the --etcd flags say."""
        return cls(
            cafile=settings.etcd_cafile,
            certfile=settings.etcd_certfile,
            keyfile=settings.etcd_keyfile,
            username=settings.etcd_username,
            password=settings.etcd_password,
        )

    def check(self) -> None:
        """Tells now what a handshake would only fail for. Raises HostError that names the file."""
        self.read()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.cafile:
                context.load_verify_locations(self.cafile)
        except ssl.SSLError as error:
            raise HostError(f"--etcd-cafile: {self.cafile}: expected certificates as PEM ({error.reason})") from None
        try:
            if self.certfile:
                # Without an answer of ours, OpenSSL would ask the terminal for the password of an encrypted key.
                context.load_cert_chain(self.certfile, self.keyfile, password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            raise HostError(
                f"--etcd-certfile {self.certfile} and --etcd-keyfile {self.keyfile}: expected a certificate and "
                f"its key as PEM without a password ({getattr(error, 'reason', None) or 'not PEM'})"
            ) from None

    def read(self) -> Certificates:
        """The files as they are now, so that renewed ones are used with the next connection. Raises HostError."""
        return Certificates(
            _read("cafile", self.cafile or _system_certificates()),
            _read("keyfile", self.keyfile),
            _read("certfile", self.certfile),
        )


def _read(flag: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise HostError(f"--etcd-{flag}: cannot read {path}: {error.strerror}") from None


def _system_certificates() -> Path | None:
    candidates = (os.environ.get("SSL_CERT_FILE"), *SYSTEM_CERTIFICATES)
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)
