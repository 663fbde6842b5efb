"""Certificates with which the servers inside an S3 server authenticate to each other."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.files import write_private
from stack.identity import Identity, change_owner

# They are created again at each start.
_VALID = datetime.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class MutualTls:
    """Files of one authority, whose key is discarded, and of the one certificate that it has signed."""

    authority: Path
    certificate: Path
    private_key: Path

    def context(self) -> ssl.SSLContext:
        """The context of a client that presents the certificate."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.private_key)
        return context


def make_mutual_tls(folder: Path, identity: Identity | None) -> MutualTls:
    """Writes new files, readable by `identity` only."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, subject = _name("dalston local stack"), _name("dalston")
    authority = (
        _certificate(issuer, issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        _certificate(subject, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(loopback, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files = MutualTls(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    pem, pkcs8, no_password = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(files.authority, authority.public_bytes(pem).decode())
    write_private(files.certificate, certificate.public_bytes(pem).decode())
    write_private(files.private_key, key.private_bytes(pem, pkcs8, no_password).decode())
    for path in (files.authority, files.certificate, files.private_key):
        change_owner(path, identity)
    return files


def _name(words: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, words)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # The clock may be set back while it runs.
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + _VALID)
    )
