/// Never published. Lets a Move VM that only hands back return values show the state after a call: each function
/// calls the settlement function of its name and returns the vault's BCS, the watched rows and the watched exits.
/// It uses public functions only, so the settlement module beside it is the published one, byte for byte.
module exchange::probe;

use exchange::settlement::{Self, AdminCap, OperatorCap, Vault};
use sui::clock::Clock;
use sui::coin::Coin;

/// An absent row shows as the largest u64, which no row can reach together with its pool.
public fun watch<T>(v: &Vault<T>, who: vector<address>): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    let mut rows = vector[];
    let mut amounts = vector[];
    let mut ready = vector[];
    let mut i = 0;
    while (i < vector::length(&who)) {
        let a = *vector::borrow(&who, i);
        let row = if (settlement::has_account(v, a)) settlement::balance_of(v, a) else 18446744073709551615;
        vector::push_back(&mut rows, row);
        let (x, y) = settlement::exit_of(v, a);
        vector::push_back(&mut amounts, x);
        vector::push_back(&mut ready, y);
        i = i + 1;
    };
    (std::bcs::to_bytes(v), rows, amounts, ready)
}


public fun deposit_many<T>(
    v: &mut Vault<T>, c: Coin<T>, owners: vector<address>, amounts: vector<u64>, who: vector<address>,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::deposit_many(v, c, owners, amounts);
    watch(v, who)
}

public fun commit_batch<T>(
    v: &mut Vault<T>, cap: &OperatorCap, clock: &Clock, seq: u64, part: u64, parts: u64, previous: vector<u8>,
    root: vector<u8>, digest: vector<u8>, accounts: vector<address>, amounts: vector<u64>, is_debit: vector<bool>,
    who: vector<address>,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::commit_batch(v, cap, seq, part, parts, previous, root, digest, accounts, amounts, is_debit, clock);
    watch(v, who)
}

public fun withdraw<T>(
    v: &mut Vault<T>, cap: &OperatorCap, owner: address, recipient: address, amount: u64, number: u64,
    who: vector<address>, ctx: &mut TxContext,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::withdraw(v, cap, owner, recipient, amount, number, ctx);
    watch(v, who)
}

public fun set_paused<T>(
    v: &mut Vault<T>, cap: &AdminCap, paused: bool, who: vector<address>,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::set_paused(v, cap, paused);
    watch(v, who)
}

public fun set_operator<T>(
    v: &mut Vault<T>, cap: &AdminCap, operator: ID, who: vector<address>,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::set_operator(v, cap, operator);
    watch(v, who)
}

public fun claim_exit<T>(
    v: &mut Vault<T>, clock: &Clock, owner: address, who: vector<address>, ctx: &mut TxContext,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::claim_exit(v, owner, clock, ctx);
    watch(v, who)
}
