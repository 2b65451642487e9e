"""
Certificates for https in a home: a small authority of its own, which signs the server's. Knows files, names and
addresses; nothing here serves.

Why an authority, and no certificate that signs itself: iPhones and Android let people trust authorities alone, and what
they trust should last when the address of this machine changes. The harm such an authority could do is bounded: its key
never leaves state/tls (no backup has it), and it may sign for private addresses and for this machine's own names and
addresses alone (name constraints, RFC 5280 section 4.2.1.10: an Android that does not enforce them for what people
trust still accepts them). What the server's must have is Apple's list: 398 days at most, SHA-256, a SAN, serverAuth.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engines import files

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

AUTHORITY_DAYS, SERVER_DAYS, RENEW_DAYS = 3652, 397, 30
SLOW_CLOCK = timedelta(days=1)  # by which a phone's may be behind
# Where a home's machines are, and nobody's on the internet (RFC 6890): private, loopback, link-local, carrier-grade
# (Tailscale's), and those for documents and benchmarks, which containers use.
NETWORKS: tuple[Network, ...] = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10")
        + ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")
        + ("fc00::/7", "fe80::/10", "::1/128"),
    )
)


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority, which people trust; the server's, with the authority after it; and its key."""

    authority: Path
    server: Path
    key: Path

    @classmethod
    def of(cls, state: Path) -> Certificates:
        folder = state / "tls"
        return cls(folder / "authority.pem", folder / "server.pem", folder / "server.key")

    @property
    def authority_key(self) -> Path:
        return self.authority.with_suffix(".key")


Subject = str | Address  # a name, or an address


def prepare(state: Path, names: Iterable[str], addresses: Iterable[Address], now: datetime) -> Certificates:
    """
    Make what is not there, ends soon, or is not for just these names and addresses; patterns are left out, and public
    addresses of IPv6, which change by the day. What people trust stays, unless it may not sign for a name, or for a
    public address, that is new. OSError.
    """
    certificates = Certificates.of(state)
    certificates.authority.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    dns = {name for name in names if name.isascii() and "*" not in name and not _is_address(name)}
    subjects: set[Subject] = {*dns, *(address for address in addresses if address.version == 4 or _is_private(address))}
    stored = _load(certificates.authority, certificates.authority_key)
    if (
        stored
        and _lasts(stored[0], now, SERVER_DAYS + RENEW_DAYS)
        and all(_may_sign(stored[0], subject) for subject in subjects)
    ):
        authority, key = stored
    else:
        authority, key = _make_authority(certificates, subjects, now)
    server = _load(certificates.server, certificates.key)
    if (
        not server
        or not _is_of(server[0], authority)
        or not _lasts(server[0], now, RENEW_DAYS)
        or (_subjects(server[0]) != subjects)
    ):
        _make_server(certificates, authority, key, subjects, now)
    return certificates


def fingerprint(authority: Path) -> str:
    """Return the SHA-256 of a certificate as phones show it: "AB:CD:…"."""
    return x509.load_pem_x509_certificate(authority.read_bytes()).fingerprint(hashes.SHA256()).hex(":").upper()


def pin(authority: Path) -> str:
    """Return the hash of a certificate's public key, in base64, by which a browser can be told to trust it."""
    key = x509.load_pem_x509_certificate(authority.read_bytes()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def _make_authority(
    certificates: Certificates, subjects: Iterable[Subject], now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"AWPortrait Edge {now:%Y-%m-%d}")])
    names = [x509.DNSName(subject) for subject in subjects if isinstance(subject, str)]
    public = [ip_network(subject) for subject in subjects if not isinstance(subject, str) and not _is_private(subject)]
    permitted = [*names, *(x509.IPAddress(network) for network in (*NETWORKS, *public))]
    authority = (
        _builder(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(certificates.authority_key, _pem(key))
    _write(certificates.authority, authority.public_bytes(serialization.Encoding.PEM))
    return authority, key


def _make_server(
    certificates: Certificates,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    subjects: Iterable[Subject],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(s) if isinstance(s, str) else x509.IPAddress(s) for s in sorted(subjects, key=str)]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AWPortrait Edge")])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    server = (
        _builder(name, authority.subject, key, now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    _write(certificates.key, _pem(key))
    _write(certificates.server, server.public_bytes(pem) + authority.public_bytes(pem))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLOW_CLOCK)
        .not_valid_after(now - SLOW_CLOCK + timedelta(days=days))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(certificate: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """Return a certificate and its key; None: they are not there, damaged, or no pair, as a crash may leave them."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    paired = isinstance(secret, ec.EllipticCurvePrivateKey) and secret.public_key() == loaded.public_key()
    return (loaded, secret) if paired and isinstance(secret, ec.EllipticCurvePrivateKey) else None


def _lasts(certificate: x509.Certificate, now: datetime, days: int) -> bool:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins <= now and now + timedelta(days=days) < ends


def _may_sign(authority: x509.Certificate, subject: Subject) -> bool:
    permitted = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or ()
    ends = [entry.value for entry in permitted if isinstance(entry, x509.DNSName)]
    if isinstance(subject, str):
        return any(subject == end or subject.endswith(f".{end}") for end in ends)
    networks = [entry.value for entry in permitted if isinstance(entry, x509.IPAddress)]
    return any(subject in network for network in networks if isinstance(network, IPv4Network | IPv6Network))


def _is_private(address: Address) -> bool:
    return any(address in network for network in NETWORKS)


def _is_of(server: x509.Certificate, authority: x509.Certificate) -> bool:
    issuer = server.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return issuer == authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _subjects(server: x509.Certificate) -> set[Subject]:
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [a for a in names.get_values_for_type(x509.IPAddress) if isinstance(a, IPv4Address | IPv6Address)]
    return {*names.get_values_for_type(x509.DNSName), *addresses}


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    with files.replacing(path, durable=True) as beside:
        beside.touch(0o600)
        beside.write_bytes(data)
