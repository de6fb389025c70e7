/// A named test coin: anyone may mint it. Only the embedded chain uses it.
///
/// The eight digits have a fixed width, so that an asset's own module (coin_00000012::COIN_00000012) comes from this
/// compiled one by writing its digits in place of the zeros.
module coin_00000000::coin_00000000;

use sui::coin::{Self, Coin, TreasuryCap};

public struct COIN_00000000 has drop {}

/// Mints for anyone who asks. On a real network coins come from their issuer.
public struct Faucet has key { id: UID, cap: TreasuryCap<COIN_00000000> }

#[allow(deprecated_usage)]
fun init(witness: COIN_00000000, ctx: &mut TxContext) {
    let (cap, metadata) = coin::create_currency(
        witness,
        0,
        b"COIN_00000000",
        b"test coin 00000000",
        b"",
        std::option::none(),
        ctx,
    );
    transfer::public_freeze_object(metadata);
    transfer::share_object(Faucet { id: object::new(ctx), cap });
}

public fun mint(f: &mut Faucet, amount: u64, ctx: &mut TxContext): Coin<COIN_00000000> {
    coin::mint(&mut f.cap, amount, ctx)
}
