"""Wallets of both chains, and the text that one of them signs to prove itself.

    <domain> wants you to sign in with your <Sui | Ethereum> account:        the layout of EIP-4361
    <address>

    <what the signature is good for, and for which account>

    URI, Version, Chain ID, Nonce, Issued At, Expiration Time

The purpose stands in the text, so a signature for a sign-in cannot be used to link a wallet, or the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from platform_api.errors import timestamp
from platform_api.identity import ethereum_signature, sui_signature
from platform_api.identity.sui_signature import Signer

__all__ = ["PURPOSES", "Challenge", "WalletAddress", "verify_proof", "wallet_address"]

PURPOSES = {
    "sign_in": "Sign in to Byline. This costs nothing and moves no funds.",
    "link_wallet": "Link this wallet to the Byline account {account}. This costs nothing and moves no funds.",
    "step_up": "Confirm that a sensitive act of the Byline account {account} is yours. This costs nothing.",
}
_CHAIN_NAMES = {"sui": "Sui", "ethereum": "Ethereum"}


@dataclass(frozen=True, slots=True)
class WalletAddress:
    """`raw` is 32 bytes on Sui, 20 on Ethereum."""

    chain: str
    raw: bytes

    @property
    def text(self) -> str:
        """As people see it: in full, with Ethereum's checksum."""
        return "0x" + self.raw.hex() if self.chain == "sui" else ethereum_signature.checksum_address(self.raw)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a nonce was issued for. `uri`: where the API is reached; `account` is None for a sign-in."""

    domain: str
    uri: str
    chain_id: str
    wallet: WalletAddress
    purpose: str
    account: str | None
    nonce: str
    issued_at: datetime
    expires_at: datetime

    @property
    def message(self) -> str:
        """The text to sign, byte for byte."""
        return (
            f"{self.domain} wants you to sign in with your {_CHAIN_NAMES[self.wallet.chain]} account:\n"
            f"{self.wallet.text}\n"
            "\n"
            f"{PURPOSES[self.purpose].format(account=self.account)}\n"
            "\n"
            f"URI: {self.uri}\n"
            "Version: 1\n"
            f"Chain ID: {self.chain_id}\n"
            f"Nonce: {self.nonce}\n"
            f"Issued At: {timestamp(self.issued_at)}\n"
            f"Expiration Time: {timestamp(self.expires_at)}"
        )


def wallet_address(text: str) -> WalletAddress:
    """Of either chain, told by the length. Raises BadSignature `bad_address`."""
    if len(text) == 42:
        return WalletAddress("ethereum", ethereum_signature.canonical_address(text))
    return WalletAddress("sui", sui_signature.canonical_address(text))


def verify_proof(challenge: Challenge, signature: str) -> Signer:
    """Who signed the challenge: its wallet. Raises BadSignature."""
    message, wallet = challenge.message.encode(), challenge.wallet
    if wallet.chain == "ethereum":
        return ethereum_signature.verify_personal_message(message, signature, wallet.raw)
    return sui_signature.verify_personal_message(message, signature, wallet.text)
