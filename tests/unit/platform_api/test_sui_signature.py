"""Wallet signatures of all schemes, made with fresh keys; every mutation is refused."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from platform_api.identity import sui_signature as sui

MESSAGE = "127.0.0.1:7400 wants you to sign in\n0xabc — nonce".encode()


class Wallet:
    """A key pair that signs as a Sui wallet does."""

    def __init__(self, flag):
        self.flag = flag
        if flag == sui.ED25519:
            self.key = ed25519.Ed25519PrivateKey.generate()
            raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
            self.public = self.key.public_key().public_bytes(*raw)
        else:
            self.key = ec.generate_private_key(ec.SECP256K1() if flag == sui.SECP256K1 else ec.SECP256R1())
            point = serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
            self.public = self.key.public_key().public_bytes(*point)
        digest = sui._blake2b(bytes([flag]) + self.public)
        self.address = sui.address_text(digest)

    def raw(self, message, low_s=True):
        digest = sui.personal_message_digest(message)
        if self.flag == sui.ED25519:
            return self.key.sign(digest)
        r, s = decode_dss_signature(self.key.sign(digest, ec.ECDSA(hashes.SHA256())))
        order = sui._ORDER[self.flag]
        s = min(s, order - s) if low_s else max(s, order - s)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def sign(self, message):
        return base64.b64encode(bytes([self.flag]) + self.raw(message) + self.public).decode()


def multisig(wallets, weights, threshold, signing, message):
    members = [(wallet.flag, wallet.public, weight) for wallet, weight in zip(wallets, weights, strict=True)]
    body = bytes([3, len(signing)])
    body += b"".join(bytes([wallets[i].flag]) + wallets[i].raw(message) for i in signing)
    body += sum(1 << i for i in signing).to_bytes(2, "little") + bytes([len(members)])
    body += b"".join(bytes([flag]) + key + bytes([weight]) for flag, key, weight in members)
    body += threshold.to_bytes(2, "little")
    address = sui.address_text(sui.multisig_address(members, threshold))
    return base64.b64encode(body).decode(), address


def mutations(signature):
    raw = base64.b64decode(signature)
    for position in range(len(raw)):
        yield base64.b64encode(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]).decode()
        yield base64.b64encode(raw[:position] + bytes([raw[position] ^ 0x80]) + raw[position + 1 :]).decode()
    yield base64.b64encode(raw[:-1]).decode()
    yield base64.b64encode(raw + b"\0").decode()
    yield ""
    yield signature + "\n"
    yield "not base64!"


@pytest.mark.parametrize("flag", [sui.ED25519, sui.SECP256K1, sui.SECP256R1])
@pytest.mark.parametrize("message", [b"", MESSAGE, b"x" * 300])
def test_signature_of_each_scheme_is_accepted_for_its_address(flag, message):
    wallet = Wallet(flag)
    signer = sui.verify_personal_message(message, wallet.sign(message), wallet.address)
    assert sui.address_text(signer.address) == wallet.address
    assert signer.public_key == wallet.public


@pytest.mark.parametrize("flag", [sui.ED25519, sui.SECP256K1, sui.SECP256R1])
def test_f68_every_mutation_of_a_signature_is_refused(flag):
    wallet = Wallet(flag)
    signature = wallet.sign(MESSAGE)
    for mutated in mutations(signature):
        with pytest.raises(sui.BadSignature):
            sui.verify_personal_message(MESSAGE, mutated, wallet.address)
    for changed in (MESSAGE + b" ", MESSAGE[:-1], MESSAGE.upper()):
        with pytest.raises(sui.BadSignature):
            sui.verify_personal_message(changed, signature, wallet.address)


def test_every_mutation_of_a_multisig_is_refused_and_the_threshold_counts():
    wallets = [Wallet(sui.ED25519), Wallet(sui.SECP256K1), Wallet(sui.SECP256R1)]
    for signing in ([0, 1], [1, 2], [0, 2], [0, 1, 2]):
        signature, address = multisig(wallets, [1, 2, 3], 3, signing, MESSAGE)
        assert sui.verify_personal_message(MESSAGE, signature, address).scheme == "multisig"
    below, address = multisig(wallets, [1, 2, 3], 3, [0], MESSAGE)
    with pytest.raises(sui.BadSignature) as refused:
        sui.verify_personal_message(MESSAGE, below, address)
    assert refused.value.reason == "below_threshold"

    signature, address = multisig(wallets, [1, 1, 1], 2, [0, 1], MESSAGE)
    for mutated in mutations(signature):
        with pytest.raises(sui.BadSignature):
            sui.verify_personal_message(MESSAGE, mutated, address)


def test_committee_with_a_double_member_a_zero_weight_or_out_of_reach_is_refused():
    one, two = Wallet(sui.ED25519), Wallet(sui.ED25519)
    for wallets, weights, threshold in (([one, one], [1, 1], 2), ([one, two], [1, 0], 1), ([one, two], [1, 1], 3)):
        signature, address = multisig(wallets, weights, threshold, [0, 1], MESSAGE)
        with pytest.raises(sui.BadSignature) as refused:
            sui.verify_personal_message(MESSAGE, signature, address)
        assert refused.value.reason == "bad_multisig"


@pytest.mark.parametrize("flag", [sui.SECP256K1, sui.SECP256R1])
def test_f68_high_s_is_refused(flag):
    wallet = Wallet(flag)
    signature = base64.b64encode(bytes([flag]) + wallet.raw(MESSAGE, low_s=False) + wallet.public).decode()
    with pytest.raises(sui.BadSignature) as refused:
        sui.verify_personal_message(MESSAGE, signature, wallet.address)
    assert refused.value.reason == "high_s"


def test_signature_of_another_wallet_and_odd_addresses_are_refused():
    mine, other = Wallet(sui.ED25519), Wallet(sui.ED25519)
    with pytest.raises(sui.BadSignature) as refused:
        sui.verify_personal_message(MESSAGE, other.sign(MESSAGE), mine.address)
    assert refused.value.reason == "other_address"
    for text in ("", "0x", mine.address[2:], mine.address + "0", "0x" + "g" * 64, "0x12"):
        with pytest.raises(sui.BadSignature) as refused:
            sui.verify_personal_message(MESSAGE, mine.sign(MESSAGE), text)
        assert refused.value.reason == "bad_address"


@pytest.mark.parametrize(("flag", "reason"), [(5, "scheme_unavailable"), (6, "scheme_unavailable"), (4, "bad_scheme")])
def test_scheme_that_is_not_verified_here_is_refused_by_name(flag, reason):
    with pytest.raises(sui.BadSignature) as refused:
        sui.verify_digest(base64.b64encode(bytes([flag]) + b"x" * 100).decode(), b"d" * 32)
    assert refused.value.reason == reason


def test_signature_is_bound_to_the_personal_message_intent():
    wallet = Wallet(sui.ED25519)
    digest_of_a_transaction = sui._blake2b(b"\x00\x00\x00" + MESSAGE)
    signature = base64.b64encode(bytes([0]) + wallet.key.sign(digest_of_a_transaction) + wallet.public).decode()
    with pytest.raises(sui.BadSignature):
        sui.verify_personal_message(MESSAGE, signature, wallet.address)
