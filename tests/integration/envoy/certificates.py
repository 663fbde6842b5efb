"""Self-signed certificates for localhost."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.envoy import Certificate


def make_certificate(folder: Path, serial: int) -> Certificate:
    """Writes a certificate and its key as a renewal does: into new files, which then replace the old ones."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8, open_text = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    made = Certificate(folder / "chain.pem", folder / "key.pem")
    for path, data in (
        (made.private_key, key.private_bytes(pem, pkcs8, open_text)),
        (made.chain, certificate.public_bytes(pem)),
    ):
        new = path.with_suffix(".new")
        new.write_bytes(data)
        new.rename(path)
    return made
