"""Verifies what a Sui wallet signed: ed25519, secp256k1, secp256r1, and multisig of these.

    wire form     base64( flag || signature 64 || public key )              flags 0, 1, 2
    multisig      base64( 3 || BCS( [flag || signature], bitmap u16, [flag || public key, weight u8], threshold u16 ) )
    digest        blake2b256( 3 0 0 || uleb(len) || message )               intent: personal message
    address       blake2b256( flag || public key );  multisig: blake2b256( 3 || threshold || (flag || key || weight)… )

Ed25519 signs the digest; both ECDSA schemes sign its SHA-256, and only the low `s` is taken, so that no second form of
a signature exists. Base64 and lengths must be canonical for the same reason. zkLogin (flag 5) needs a full node and
passkeys (flag 6) WebAuthn: both are refused by name. Pure: no clock, no I/O. Never raises anything but BadSignature.
Worst case: a multisig of ten members, ten verifications, some two milliseconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

__all__ = [
    "BadSignature",
    "Signer",
    "address_text",
    "canonical_address",
    "multisig_address",
    "personal_message_digest",
    "verify_digest",
    "verify_personal_message",
]

ED25519, SECP256K1, SECP256R1, MULTISIG, ZKLOGIN, PASSKEY = 0, 1, 2, 3, 5, 6
SIGNATURE_BYTES = 64
MEMBERS_MAX = 10
SIGNATURE_TEXT_MAX = 4_096

_KEY_BYTES = {ED25519: 32, SECP256K1: 33, SECP256R1: 33}
_CURVE: dict[int, ec.EllipticCurve] = {SECP256K1: ec.SECP256K1(), SECP256R1: ec.SECP256R1()}
_ORDER = {
    SECP256K1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    SECP256R1: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
_SCHEME = {ED25519: "ed25519", SECP256K1: "secp256k1", SECP256R1: "secp256r1", MULTISIG: "multisig"}
_ELSEWHERE = {ZKLOGIN: "zkLogin", PASSKEY: "passkey"}


class BadSignature(ValueError):
    """Not a valid signature of this text by this address. `reason` is a machine word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed: the address of the key, its scheme, and the key (for multisig: the committee in its BCS form)."""

    address: bytes
    scheme: str
    public_key: bytes


def personal_message_digest(message: bytes) -> bytes:
    """What a wallet signs when a person signs a text."""
    return _blake2b(b"\x03\x00\x00" + _uleb(len(message)) + message)


def canonical_address(text: str) -> bytes:
    """The 32 bytes of `0x` and 64 hexadecimal digits, either case.

    Raises:
        BadSignature: `bad_address` for any other text. Short forms are refused: a wallet always gives the long one.
    """
    digits = text[2:] if text[:2] in ("0x", "0X") else ""
    if len(digits) != 64 or any(c not in "0123456789abcdefABCDEF" for c in digits):
        raise BadSignature("bad_address", "a Sui address is 0x and 64 hexadecimal digits")
    return bytes.fromhex(digits)


def address_text(address: bytes) -> str:
    return "0x" + address.hex()


def multisig_address(members: list[tuple[int, bytes, int]], threshold: int) -> bytes:
    """Of a committee: (flag, public key, weight) in order."""
    parts = b"".join(bytes([flag]) + key + bytes([weight]) for flag, key, weight in members)
    return _blake2b(bytes([MULTISIG]) + threshold.to_bytes(2, "little") + parts)


def verify_personal_message(message: bytes, signature: str, address: str) -> Signer:
    """The signer of `message`, who is `address`.

    Raises:
        BadSignature: with the reason; `other_address` if it is a good signature of somebody else.
    """
    expected = canonical_address(address)
    signer = verify_digest(signature, personal_message_digest(message))
    if signer.address != expected:
        raise BadSignature("other_address", "the signature belongs to another address")
    return signer


def verify_digest(signature: str, digest: bytes) -> Signer:
    """The signer of a 32-byte digest. Raises BadSignature."""
    raw = _decode(signature)
    flag = raw[0]
    if flag in _KEY_BYTES:
        if len(raw) != 1 + SIGNATURE_BYTES + _KEY_BYTES[flag]:
            raise BadSignature("bad_length", f"a {_SCHEME[flag]} signature has another length")
        key = raw[1 + SIGNATURE_BYTES :]
        _verify_single(flag, key, raw[1 : 1 + SIGNATURE_BYTES], digest)
        return Signer(_blake2b(bytes([flag]) + key), _SCHEME[flag], key)
    if flag == MULTISIG:
        return _verify_multisig(_Reader(raw[1:]), digest)
    if flag in _ELSEWHERE:
        raise BadSignature("scheme_unavailable", f"{_ELSEWHERE[flag]} is not available on the embedded chain")
    raise BadSignature("bad_scheme", f"there is no signature scheme {flag}")


def _decode(signature: str) -> bytes:
    if not 0 < len(signature) <= SIGNATURE_TEXT_MAX:
        raise BadSignature("bad_length", "the signature is empty or too long")
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature("bad_base64", "the signature is no base64") from error
    if base64.b64encode(raw).decode() != signature:
        raise BadSignature("bad_base64", "the signature's base64 is not canonical")
    return raw


def _verify_single(flag: int, key: bytes, signature: bytes, digest: bytes) -> None:
    try:
        if flag == ED25519:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, digest)
            return
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if not (0 < r < _ORDER[flag] and 0 < s <= _ORDER[flag] // 2):
            raise BadSignature("high_s", "r or s is out of range; only the low s is taken")
        public_key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE[flag], key)
        public_key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(hashes.SHA256()))
    except BadSignature:
        raise
    except (InvalidSignature, ValueError) as error:
        raise BadSignature("bad_signature", "the signature does not fit the text and the key") from error


def _verify_multisig(reader: _Reader, digest: bytes) -> Signer:
    signatures = [(reader.member_flag(), reader.take(SIGNATURE_BYTES)) for _ in range(reader.count())]
    bitmap = reader.u16()
    committee_at = reader.position
    members = []
    for _ in range(reader.count()):
        flag = reader.member_flag()
        members.append((flag, reader.take(_KEY_BYTES[flag]), reader.u8()))
    threshold = reader.u16()
    committee = reader.data[committee_at : reader.position]
    reader.finish()
    _check_committee(members, threshold)

    signed = [index for index in range(16) if bitmap >> index & 1]
    if not signed or len(signed) != len(signatures) or signed[-1] >= len(members):
        raise BadSignature("bad_multisig", "the bitmap names other members than signed")
    weight = 0
    for index, (flag, signature) in zip(signed, signatures, strict=True):
        if members[index][0] != flag:
            raise BadSignature("bad_multisig", "a member signed with another scheme")
        _verify_single(flag, members[index][1], signature, digest)
        weight += members[index][2]
    if weight < threshold:
        raise BadSignature("below_threshold", f"the signers weigh {weight} of {threshold}")
    return Signer(multisig_address(members, threshold), _SCHEME[MULTISIG], committee)


def _check_committee(members: list[tuple[int, bytes, int]], threshold: int) -> None:
    if not members or threshold == 0 or any(weight == 0 for *_, weight in members):
        raise BadSignature("bad_multisig", "an empty committee, a zero weight or a zero threshold")
    if len({(flag, key) for flag, key, _ in members}) != len(members):
        raise BadSignature("bad_multisig", "a member stands twice in the committee")
    if sum(weight for *_, weight in members) < threshold:
        raise BadSignature("bad_multisig", "the whole committee is below its threshold")


class _Reader:
    """BCS from the front; every read is bounded by what is there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise BadSignature("bad_length", "the multisig ends too early")
        part = self.data[self.position : end]
        self.position = end
        return part

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def count(self) -> int:
        """A ULEB length. Ten members at most, so one byte is the only canonical form."""
        count = self.u8()
        if count > MEMBERS_MAX:
            raise BadSignature("bad_multisig", f"more than {MEMBERS_MAX} members")
        return count

    def member_flag(self) -> int:
        flag = self.u8()
        if flag not in _KEY_BYTES:
            raise BadSignature("bad_scheme", f"no multisig member has scheme {flag}")
        return flag

    def finish(self) -> None:
        if self.position != len(self.data):
            raise BadSignature("bad_length", "bytes after the multisig")


def _blake2b(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
