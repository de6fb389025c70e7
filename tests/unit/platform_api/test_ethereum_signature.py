"""Ethereum wallets: checksums of EIP-55's own examples, signatures of fresh keys; every mutation is refused."""

import pytest
from coincurve import PrivateKey

from platform_api.identity import ethereum_signature as ethereum
from platform_api.identity.sui_signature import BadSignature
from platform_api.identity.wallet_proof import wallet_address

MESSAGE = "127.0.0.1:7400 wants you to sign in — nonce".encode()


class EthereumWallet:
    """A key pair that signs personal messages as an Ethereum wallet does."""

    def __init__(self, key=None):
        self.key = key or PrivateKey()
        self.raw = ethereum._keccak(self.key.public_key.format(compressed=False)[1:])[12:]
        self.address = ethereum.checksum_address(self.raw)

    def sign(self, message, v=27):
        raw = self.key.sign_recoverable(ethereum.personal_message_digest(message), hasher=None)
        return "0x" + (raw[:64] + bytes([raw[64] + v])).hex()


@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        "0x52908400098527886E0F7030069857D2E4169EE7", "0xde709f2102306220921060314715629080e2fb77",
    ],
)  # fmt: skip
def test_checksum_of_the_standards_examples(address):
    assert ethereum.checksum_address(ethereum.canonical_address(address.lower())) == address
    assert ethereum.canonical_address(address).hex() == address[2:].lower()


def test_known_key_has_its_known_address_and_digest():
    # web3's documented example: this key, this text, this signature.
    key = PrivateKey(bytes.fromhex("b25c7db31feed9122727bf0939dc769a96564b2de4c4726d035b36ecf1e5b364"))
    wallet = EthereumWallet(key)
    assert wallet.address == "0x5ce9454909639D2D17A3F753ce7d93fa0b9aB12E"
    assert ethereum.personal_message_digest("I♥SF".encode()).hex() == (
        "1476abb745d423bf09273f1afd887d951181d25adc66c4834a70491911b7f750"
    )
    assert wallet.sign("I♥SF".encode()) == (
        "0xe6ca9bba58c88611fad66a6ce8f996908195593807c4b38bd528d2cff09d4eb3"
        "3e5bfbbf4d3e39b1a2fd816a7680c19ebebaf3a141b239934ad43cb33fcec8ce1c"
    )


@pytest.mark.parametrize("v", [0, 27])
@pytest.mark.parametrize("message", [b"", MESSAGE, b"x" * 300])
def test_signature_is_accepted_for_its_address(message, v):
    wallet = EthereumWallet()
    signer = ethereum.verify_personal_message(message, wallet.sign(message, v), wallet.raw)
    assert (signer.address, signer.scheme) == (wallet.raw, "eip191")


def test_f68_every_mutation_of_a_signature_is_refused():
    wallet = EthereumWallet()
    good = bytes.fromhex(wallet.sign(MESSAGE)[2:])
    order = ethereum._ORDER
    s = int.from_bytes(good[32:64], "big")
    high = good[:32] + (order - s).to_bytes(32, "big") + bytes([55 - good[64]])  # the other valid form: 27 ↔ 28
    mutations = [high, good[:-1], good + b"\0", b"", bytes(65), b"\xff" * 65]
    mutations += [good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :] for i in range(65) for bit in (1, 0x80)]
    for raw in mutations:
        with pytest.raises(BadSignature):
            ethereum.verify_personal_message(MESSAGE, "0x" + raw.hex(), wallet.raw)
    for text in ("", "0x", "zz" * 65, "0X" + good.hex(), good.hex() + "\n"):
        with pytest.raises(BadSignature):
            ethereum.verify_personal_message(MESSAGE, text, wallet.raw)
    with pytest.raises(BadSignature, match="another"):
        ethereum.verify_personal_message(MESSAGE, "0x" + good.hex(), EthereumWallet().raw)
    with pytest.raises(BadSignature, match="another"):
        ethereum.verify_personal_message(MESSAGE + b".", "0x" + good.hex(), wallet.raw)


@pytest.mark.parametrize(
    "text",
    ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed00", "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
     "0x" + "g" * 40, "0x" + "1" * 39, "0x" + "1" * 63, "0x" + "１" * 40],
)  # fmt: skip
def test_other_texts_are_no_addresses(text):
    with pytest.raises(BadSignature) as refused:
        wallet_address(text)
    assert refused.value.reason == "bad_address"
