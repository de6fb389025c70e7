"""Signs PDF documents: PAdES (ETSI EN 319 142, baseline B-B) over the whole document, by a certificate of one's own.

The certificate is self-signed, so a viewer calls its owner unknown until somebody trusts it. What the signature shows:
the document is, byte for byte, what the holder of this key has signed. Whether that is the operator one means is told
by the certificate's fingerprint, which the public check page shows. There is no qualified time stamp in it: the time
that counts is the chain's. Slow: run it in a thread, without an event loop.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from asn1crypto import keys as asn1_keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign.fields import MDPPerm, SigSeedSubFilter
from pyhanko.sign.signers import PdfSignatureMetadata, SimpleSigner, sign_pdf
from pyhanko_certvalidator.registry import SimpleCertificateStore

__all__ = ["FIELD", "is_valid", "make_signer", "sign_document"]

FIELD = "Operator"
"""Name of the signature's field."""
_VALID = timedelta(days=3_650)
_COMMON_NAME_MAX = 64


def make_signer(domain: str, now: datetime) -> tuple[bytes, bytes]:
    """A fresh key of P-256 with its certificate: X.509 and PKCS #8, both DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Byline"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"Operator of {domain}"[:_COMMON_NAME_MAX]),
    ])  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.DER), secret


def sign_document(document: bytes, certificate: bytes, key: bytes, reason: str) -> bytes:
    """The PDF with a certifying signature: any change afterwards breaks it. Both keys are DER, as of `make_signer`."""
    signer = SimpleSigner(
        signing_cert=asn1_x509.Certificate.load(certificate),
        signing_key=asn1_keys.PrivateKeyInfo.load(key),
        cert_registry=SimpleCertificateStore(),  # type: ignore[no-untyped-call]
    )
    meta = PdfSignatureMetadata(
        field_name=FIELD, md_algorithm="sha256", subfilter=SigSeedSubFilter.PADES, reason=reason, certify=True,
        docmdp_permissions=MDPPerm.NO_CHANGES,
    )  # fmt: skip
    out: io.BytesIO = sign_pdf(IncrementalPdfFileWriter(io.BytesIO(document)), meta, signer)
    return out.getvalue()


def is_valid(certificate: bytes, now: datetime) -> bool:
    """Is it within its time, with a month to spare?"""
    until = x509.load_der_x509_certificate(certificate).not_valid_after_utc
    return now.astimezone(UTC) + timedelta(days=30) < until
