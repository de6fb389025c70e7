"""Verifies what an Ethereum wallet signed as a personal message (EIP-191), the signature under EIP-4361.

    digest     keccak256( 0x19 "Ethereum Signed Message:\\n" len(message) message )
    signature  0x r(32) s(32) v(1), v 27 or 28 (0 or 1 of some hardware wallets); only the low s is taken
    address    the last 20 bytes of keccak256( public key without its prefix ), shown with the EIP-55 checksum

The key comes out of the signature, so an address proves itself. Contract wallets (EIP-1271) would need a node of that
chain and are refused: their signatures have another length or another signer. Pure: no clock, no I/O.
"""

from __future__ import annotations

from coincurve import PublicKey
from Crypto.Hash import keccak

from platform_api.identity.sui_signature import BadSignature, Signer

__all__ = ["canonical_address", "checksum_address", "personal_message_digest", "verify_personal_message"]

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HEX = frozenset("0123456789abcdefABCDEF")


def canonical_address(text: str) -> bytes:
    """The 20 bytes of `0x` and 40 hexadecimal digits: all of one case, or with a right checksum.

    Raises:
        BadSignature: `bad_address`.
    """
    digits = text[2:] if text[:2] in ("0x", "0X") else ""
    if len(digits) != 40 or not set(digits) <= _HEX:
        raise BadSignature("bad_address", "an Ethereum address is 0x and 40 hexadecimal digits")
    address = bytes.fromhex(digits)
    if digits not in (digits.lower(), digits.upper()) and checksum_address(address)[2:] != digits:
        raise BadSignature("bad_address", "the checksum of the address does not fit")
    return address


def checksum_address(address: bytes) -> str:
    """EIP-55: a digit is a capital where the digest of the small ones is 8 or more."""
    digits = address.hex()
    digest = _keccak(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(d, 16) >= 8 else c for c, d in zip(digits, digest, strict=False))


def personal_message_digest(message: bytes) -> bytes:
    """What a wallet signs when a person signs a text."""
    return _keccak(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)


def verify_personal_message(message: bytes, signature: str, address: bytes) -> Signer:
    """The signer of `message`, who is `address` (20 bytes).

    Raises:
        BadSignature: with the reason; `other_address` if it is a good signature of somebody else.
    """
    digits = signature[2:] if signature[:2] == "0x" else signature
    if len(digits) != 130 or not set(digits) <= _HEX:
        raise BadSignature("bad_length", "the signature is not 65 bytes in hexadecimal")
    raw = bytes.fromhex(digits)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    recovery = raw[64] - 27 if raw[64] >= 27 else raw[64]
    if recovery not in (0, 1):
        raise BadSignature("bad_signature", "the last byte of the signature is neither 27 nor 28")
    if not (0 < r < _ORDER and 0 < s <= _ORDER // 2):
        raise BadSignature("high_s", "r or s is out of range; only the low s is taken")
    try:
        key = PublicKey.from_signature_and_message(
            raw[:64] + bytes([recovery]), personal_message_digest(message), hasher=None
        )
    except Exception as error:
        raise BadSignature("bad_signature", "no key made this signature") from error
    signer = _keccak(key.format(compressed=False)[1:])[12:]
    if signer != address:
        raise BadSignature("other_address", "the signature belongs to another address or another text")
    return Signer(signer, "eip191", key.format(compressed=True))


def _keccak(data: bytes) -> bytes:
    return bytes(keccak.new(digest_bits=256, data=data).digest())
