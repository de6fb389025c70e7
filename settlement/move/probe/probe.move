/// Never published. Lets a Move VM that only hands back return values show the state after a call: each function
/// calls the settlement function of its name and returns the vault's BCS and the BCS of the watched rows.
/// It uses public functions only, so the settlement module beside it is the published one, byte for byte.
module exchange::probe;

use exchange::row;
use exchange::settlement::{Self, AdminCap, OperatorCap, Vault};
use sui::clock::Clock;
use sui::coin::Coin;

/// An absent row shows as no bytes.
public fun watch<T>(v: &Vault<T>, who: vector<address>): (vector<u8>, vector<vector<u8>>) {
    let mut rows = vector[];
    let mut i = 0;
    while (i < vector::length(&who)) {
        let a = *vector::borrow(&who, i);
        let row = if (settlement::has_account(v, a)) std::bcs::to_bytes(&settlement::row_of(v, a)) else vector[];
        vector::push_back(&mut rows, row);
        i = i + 1;
    };
    (std::bcs::to_bytes(v), rows)
}

public fun deposit<T>(
    v: &mut Vault<T>, c: Coin<T>, owner: address, reference: vector<u8>, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::deposit(v, c, owner, reference);
    watch(v, who)
}

public fun deposit_many<T>(
    v: &mut Vault<T>, c: Coin<T>, owners: vector<address>, amounts: vector<u64>, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::deposit_many(v, c, owners, amounts);
    watch(v, who)
}

public fun commit_batch<T>(
    v: &mut Vault<T>, cap: &OperatorCap, clock: &Clock, seq: u64, part: u64, parts: u64, previous: vector<u8>,
    root: vector<u8>, liabilities: u64, digest: vector<u8>, accounts: vector<address>, amounts: vector<u64>,
    is_debit: vector<bool>, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::commit_batch(
        v, cap, seq, part, parts, previous, root, liabilities, digest, accounts, amounts, is_debit, clock,
    );
    watch(v, who)
}

/// begin, one apply for each half of the entries, finish: as a batch of more than 511 accounts goes.
public fun commit_in_two<T>(
    v: &mut Vault<T>, cap: &OperatorCap, clock: &Clock, seq: u64, part: u64, parts: u64, previous: vector<u8>,
    root: vector<u8>, liabilities: u64, digest: vector<u8>, first: vector<address>,
    first_amounts: vector<u64>, first_debits: vector<bool>, second: vector<address>, second_amounts: vector<u64>,
    second_debits: vector<bool>, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    let mut b = settlement::begin(v, cap, seq, part, parts, previous);
    settlement::apply(v, &mut b, first, first_amounts, first_debits);
    settlement::apply(v, &mut b, second, second_amounts, second_debits);
    settlement::finish(v, b, root, liabilities, digest, clock);
    watch(v, who)
}

/// A batch begun at one vault and applied at another.
public fun apply_elsewhere<T>(
    v: &mut Vault<T>, other: &mut Vault<T>, cap: &OperatorCap, clock: &Clock, seq: u64, previous: vector<u8>,
    root: vector<u8>,
) {
    let mut b = settlement::begin(v, cap, seq, 0, 1, previous);
    settlement::apply(other, &mut b, vector[], vector[], vector[]);
    settlement::finish(v, b, root, 0, root, clock);
}

/// A batch begun at one vault and finished at another.
public fun finish_elsewhere<T>(
    v: &mut Vault<T>, other: &mut Vault<T>, cap: &OperatorCap, clock: &Clock, seq: u64, previous: vector<u8>,
    root: vector<u8>,
) {
    let b = settlement::begin(v, cap, seq, 0, 1, previous);
    settlement::finish(other, b, root, 0, root, clock);
}

public fun withdraw<T>(
    v: &mut Vault<T>, cap: &OperatorCap, owner: address, recipient: address, amount: u64, number: u64,
    who: vector<address>, ctx: &mut TxContext,
): (vector<u8>, vector<vector<u8>>) {
    settlement::withdraw(v, cap, owner, recipient, amount, number, ctx);
    watch(v, who)
}

public fun set_paused<T>(
    v: &mut Vault<T>, cap: &AdminCap, paused: bool, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::set_paused(v, cap, paused);
    watch(v, who)
}

public fun set_operator<T>(
    v: &mut Vault<T>, cap: &AdminCap, operator: ID, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::set_operator(v, cap, operator);
    watch(v, who)
}

public fun migrate<T>(
    v: &mut Vault<T>, cap: &AdminCap, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::migrate(v, cap);
    watch(v, who)
}

/// begin, begin, finish, finish: the second must find its number taken.
public fun finish_twice<T>(
    v: &mut Vault<T>, cap: &OperatorCap, clock: &Clock, seq: u64, first_parts: u64, second_parts: u64,
    previous: vector<u8>, root: vector<u8>,
) {
    let first = settlement::begin(v, cap, seq, 0, first_parts, previous);
    let second = settlement::begin(v, cap, seq, 0, second_parts, previous);
    settlement::finish(v, first, root, 0, root, clock);
    settlement::finish(v, second, root, 0, root, clock);
}

/// The owner's own calls; the sender of that machine is always 0x0.
public fun request_exit<T>(
    v: &mut Vault<T>, clock: &Clock, amount: u64, who: vector<address>, ctx: &TxContext,
): (vector<u8>, vector<vector<u8>>) {
    settlement::request_exit(v, amount, clock, ctx);
    watch(v, who)
}

public fun claim_exit<T>(
    v: &mut Vault<T>, clock: &Clock, who: vector<address>, ctx: &mut TxContext,
): (vector<u8>, vector<vector<u8>>) {
    settlement::claim_exit(v, clock, ctx);
    watch(v, who)
}

public fun row_views<T>(v: &Vault<T>, who: address): (u64, u64, u64, u64, u64) {
    let r = settlement::row_of(v, who);
    (row::balance(&r), row::debt(&r), row::exited(&r), row::exit_amount(&r), row::exit_ready_ms(&r))
}
