"""The certificates of a home: what they say, what they may do, and when they are made anew."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.tree import tree
from webui import certificates
from webui.certificates import Certificates
from webui.doctor import server as doctor

NOW = datetime.now(UTC).replace(microsecond=0)
NAMES = ("localhost", "box", "box.local", "box.*.ts.net", "portraits.lan", "人像.local", "192.168.7.7")
ADDRESSES = tuple(map(ip_address, ("127.0.0.1", "::1", "192.168.1.5", "fe80::5", "8.8.8.8", "2001:4860::8")))


def make(
    state: Path, names: tuple[str, ...] = NAMES, addresses: tuple = ADDRESSES, now: datetime = NOW
) -> Certificates:
    return certificates.prepare(state, names, addresses, now)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_server_s_is_what_phones_ask_for(tmp_path: Path) -> None:
    server = read(make(tmp_path).server)
    extensions = server.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "box", "box.local", "portraits.lan"}
    assert set(map(str, names.get_values_for_type(x509.IPAddress))) == set(map(str, ADDRESSES[:-1]))
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = server.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    assert isinstance(server.signature_hash_algorithm, hashes.SHA256)
    assert server.not_valid_after_utc - server.not_valid_before_utc == timedelta(days=397)
    assert server.not_valid_before_utc == NOW - timedelta(days=1), "a phone's clock may be behind"


def test_the_authority_may_sign_for_this_machine_alone(tmp_path: Path) -> None:
    made = make(tmp_path)
    authority = read(made.authority)
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length, limits.critical) == (True, True, 0, True)
    permitted = limits.value.permitted_subtrees or []
    assert {entry.value for entry in permitted if isinstance(entry, x509.DNSName)} == {
        "localhost", "box", "box.local", "portraits.lan",
    }  # fmt: skip
    networks = [entry.value for entry in permitted if isinstance(entry, x509.IPAddress)]
    assert {str(network) for network in networks if not network.is_private} == {"100.64.0.0/10", "8.8.8.8/32"}
    read(made.server).verify_directly_issued_by(authority)
    assert timedelta(days=3650) < authority.not_valid_after_utc - NOW < timedelta(days=3653)


def test_keys_are_nobody_else_s(tmp_path: Path) -> None:
    made = make(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (made.key, made.authority_key, made.key.parent)}
    assert modes == {"server.key": 0o600, "authority.key": 0o600, "tls": 0o700}
    assert b"PRIVATE" not in made.authority.read_bytes() + made.server.read_bytes()


def test_what_lasts_and_fits_stays(tmp_path: Path) -> None:
    make(tmp_path)
    before = tree(tmp_path)
    make(tmp_path, tuple(reversed(NAMES)), ADDRESSES[::-1], NOW + timedelta(days=365))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "trusted_anew"),
    [
        ({"addresses": (*ADDRESSES[:2], ip_address("192.168.1.6"))}, False),
        ({"now": NOW + timedelta(days=397 - 1 - 29)}, False),
        ({"now": NOW + timedelta(days=3652 - 400)}, True),
        ({"now": NOW - timedelta(days=30)}, True),
        ({"addresses": (*ADDRESSES, ip_address("8.8.4.4"))}, True),
        ({"names": (*NAMES, "sub.box.local")}, False),
        ({"names": (*NAMES, "portraits.example")}, True),
        ({"names": NAMES[:3]}, False),
    ],
    ids=[
        "address",
        "ends soon",
        "authority ends soon",
        "clock was wrong",
        "public address",
        "name below",
        "new name",
        "fewer names",
    ],
)
def test_what_ends_or_no_longer_fits_is_made_anew(tmp_path: Path, change: dict, trusted_anew: bool) -> None:
    made = make(tmp_path)
    old = read(made.authority), read(made.server)
    make(tmp_path, **change)
    assert (read(made.authority) != old[0]) is trusted_anew
    server = read(made.server)
    assert server != old[1]
    server.verify_directly_issued_by(read(made.authority))


@pytest.mark.parametrize("name", ["authority.pem", "authority.key", "server.pem", "server.key"])
@pytest.mark.parametrize("damage", [b"", b"-----BEGIN", None])
def test_what_a_crash_has_left_is_made_anew(tmp_path: Path, name: str, damage: bytes | None) -> None:
    made = make(tmp_path)
    path = made.key.parent / name
    if damage is None:  # of another pair
        other = make(tmp_path / "other")
        path.write_bytes((other.key.parent / name).read_bytes())
    else:
        path.write_bytes(damage)
    make(tmp_path)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(made.server, made.key)
    read(made.server).verify_directly_issued_by(read(made.authority))


def greet(made: Certificates, name: str) -> str:
    """Shake hands with a server under this name, as a client that trusts the authority; return what went wrong."""
    trusting, serving = ssl.create_default_context(cafile=made.authority), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(made.server, made.key)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            serving.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        trusting.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLError as exc:
        return str(exc)
    finally:
        ours.close()
        thread.join(30)
    return ""


@pytest.mark.parametrize("name", ["localhost", "box.local", "127.0.0.1", "::1", "192.168.1.5"])
def test_whoever_trusts_the_authority_trusts_the_server(tmp_path: Path, name: str) -> None:
    assert greet(make(tmp_path), name) == ""


def test_it_is_trusted_under_no_other_name(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert "mismatch" in greet(made, "bank.example") and "mismatch" in greet(made, "192.168.1.6")


def test_who_has_the_authority_s_key_is_no_bank(tmp_path: Path) -> None:
    """Signed with the true key, for a name that is not the home's: clients refuse it."""
    made = make(tmp_path)
    stored = certificates._load(made.authority, made.authority_key)
    assert stored
    for name in ("bank.example", ip_address("8.8.4.4")):
        certificates._make_server(made, *stored, [name, "localhost"], NOW)
        assert "permitted subtree violation" in greet(made, str(name))


def test_the_fingerprint_is_what_phones_show(tmp_path: Path) -> None:
    authority = make(tmp_path).authority
    mark = certificates.fingerprint(authority)
    assert bytes.fromhex(mark.replace(":", "")) == read(authority).fingerprint(hashes.SHA256())
    assert len(mark) == 95 and mark == mark.upper()


def test_the_doctor_knows_where_the_authority_lies(tmp_path: Path) -> None:
    """It cannot import what has cryptography."""
    assert Certificates.of(tmp_path).authority == tmp_path / doctor.AUTHORITY
