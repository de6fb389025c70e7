/// Batch settlement for an off-chain matched market.
///
/// One shared `Vault<T>` per coin type holds the coins of every account and a row per account. The operator nets the
/// trades of a period off chain and commits one numbered batch over all vaults in one programmable transaction.
/// A batch is atomic per transaction, zero-sum per coin, numbered without gaps (so the same batch can never be applied
/// twice), and hash-chained (so a forked history is refused). A batch of more accounts than one transaction may touch
/// comes in parts: the batch number moves on with the last part.
///
/// The operator can move money between rows and pay it out; it can never make a row negative, mint, or stop an exit.
module exchange::settlement;

use std::hash;
use sui::balance::{Self, Balance};
use sui::clock::Clock;
use sui::coin::{Self, Coin};
use sui::event;
use sui::table::{Self, Table};

const VERSION: u64 = 1;
const MIN_EXIT_DELAY_MS: u64 = 3_600_000;
const MAX_EXIT_DELAY_MS: u64 = 1_209_600_000;

const EWrongVersion: u64 = 1;
const EPaused: u64 = 2;
const EWrongCap: u64 = 3;
const EWrongSequence: u64 = 4;
const ELengthMismatch: u64 = 5;
const EInsufficient: u64 = 6;
const ENotConserved: u64 = 7;
const EBadHash: u64 = 8;
const EUnknownAccount: u64 = 9;
const ENoExit: u64 = 10;
const EExitNotReady: u64 = 11;
const EZeroAmount: u64 = 12;
const EBadDelay: u64 = 13;
const EWrongVault: u64 = 14;
const EOverflow: u64 = 15;
const EWrongPrevious: u64 = 16;
const EWithdrawalReplay: u64 = 17;
const EWrongPart: u64 = 18;

/// Opens vaults, names the operator, pauses, migrates. Keep it in a multisig.
public struct AdminCap has key, store { id: UID }

/// Commits batches and pays withdrawals. A vault names the one cap that counts; one cap may serve many vaults.
public struct OperatorCap has key, store { id: UID }

public struct Exit has drop, store { amount: u64, ready_ms: u64 }

public struct Vault<phantom T> has key {
    id: UID,
    version: u64,
    paused: bool,
    admin: ID,
    operator: ID,
    next_seq: u64,
    next_part: u64,
    next_withdrawal: u64,
    exit_delay_ms: u64,
    /// sha2_256(previous || seq || part || merkle_root || trades_digest), 32 zero bytes at first
    chain: vector<u8>,
    last_root: vector<u8>,
    last_commit_ms: u64,
    pool: Balance<T>,
    rows: Table<address, u64>,
    exits: Table<address, Exit>,
}

/// A batch under way: has no abilities, so the transaction that opened it must close it.
public struct Batch {
    vault: ID,
    seq: u64,
    part: u64,
    parts: u64,
    debits: u128,
    credits: u128,
    entries: u64,
}

public struct VaultOpened has copy, drop { vault: ID, admin: ID, operator: ID, first_seq: u64 }
public struct Deposited has copy, drop { vault: ID, owner: address, amount: u64, balance: u64 }
public struct Withdrawn has copy, drop { vault: ID, owner: address, recipient: address, amount: u64, number: u64 }
public struct BatchCommitted has copy, drop {
    vault: ID,
    seq: u64,
    part: u64,
    parts: u64,
    merkle_root: vector<u8>,
    trades_digest: vector<u8>,
    chain: vector<u8>,
    entries: u64,
    volume: u128,
    at_ms: u64,
}
public struct ExitRequested has copy, drop { vault: ID, owner: address, amount: u64, ready_ms: u64 }
public struct ExitCancelled has copy, drop { vault: ID, owner: address }
public struct ExitPaid has copy, drop { vault: ID, owner: address, amount: u64 }
public struct PauseChanged has copy, drop { vault: ID, paused: bool }
public struct OperatorChanged has copy, drop { vault: ID, operator: ID }

// ---------------------------------------------------------------- set-up

/// Publishing gives the publisher both caps.
fun init(ctx: &mut TxContext) {
    transfer::public_transfer(AdminCap { id: object::new(ctx) }, ctx.sender());
    transfer::public_transfer(OperatorCap { id: object::new(ctx) }, ctx.sender());
}

/// Opens the vault of a coin. `first_seq` is the number of the first batch it takes part in.
public fun open<T>(admin: &AdminCap, operator: ID, first_seq: u64, exit_delay_ms: u64, ctx: &mut TxContext) {
    assert!(exit_delay_ms >= MIN_EXIT_DELAY_MS && exit_delay_ms <= MAX_EXIT_DELAY_MS, EBadDelay);
    let id = object::new(ctx);
    event::emit(VaultOpened { vault: object::uid_to_inner(&id), admin: object::id(admin), operator, first_seq });
    transfer::share_object(Vault<T> {
        id,
        version: VERSION,
        paused: false,
        admin: object::id(admin),
        operator,
        next_seq: first_seq,
        next_part: 0,
        next_withdrawal: 0,
        exit_delay_ms,
        chain: zeros(),
        last_root: zeros(),
        last_commit_ms: 0,
        pool: balance::zero(),
        rows: table::new(ctx),
        exits: table::new(ctx),
    });
}

public fun new_operator(_: &AdminCap, ctx: &mut TxContext): OperatorCap { OperatorCap { id: object::new(ctx) } }

/// From now on only this cap counts: the old one is worth nothing.
public fun set_operator<T>(v: &mut Vault<T>, cap: &AdminCap, operator: ID) {
    check_admin(v, cap);
    v.operator = operator;
    event::emit(OperatorChanged { vault: object::id(v), operator });
}

public fun set_paused<T>(v: &mut Vault<T>, cap: &AdminCap, paused: bool) {
    check_admin(v, cap);
    v.paused = paused;
    event::emit(PauseChanged { vault: object::id(v), paused });
}

public fun migrate<T>(v: &mut Vault<T>, cap: &AdminCap) {
    assert!(object::id(cap) == v.admin, EWrongCap);
    assert!(v.version < VERSION, EWrongVersion);
    v.version = VERSION;
}

// ---------------------------------------------------------------- money in, money out

/// Anyone may fund an account. Works while paused: pausing stops the operator, not the owners.
public fun deposit<T>(v: &mut Vault<T>, payment: Coin<T>, owner: address) {
    let amount = coin::value(&payment);
    take_in(v, payment);
    credit_deposit(v, owner, amount);
}

/// One coin for several accounts; the amounts must add up to it exactly.
public fun deposit_many<T>(v: &mut Vault<T>, payment: Coin<T>, owners: vector<address>, amounts: vector<u64>) {
    let total = coin::value(&payment) as u128;
    take_in(v, payment);
    let n = vector::length(&owners);
    assert!(n == vector::length(&amounts), ELengthMismatch);
    let mut sum: u128 = 0;
    let mut i = 0;
    while (i < n) {
        let amount = *vector::borrow(&amounts, i);
        credit_deposit(v, *vector::borrow(&owners, i), amount);
        sum = sum + (amount as u128);
        i = i + 1;
    };
    assert!(sum == total, ENotConserved);
}

/// The operator pays out a withdrawal that the owner asked for off chain. `number` is the vault's own withdrawal
/// counter: a second try of the same payment aborts.
public fun withdraw<T>(
    v: &mut Vault<T>,
    cap: &OperatorCap,
    owner: address,
    recipient: address,
    amount: u64,
    number: u64,
    ctx: &mut TxContext,
) {
    check_operator(v, cap);
    assert!(amount > 0, EZeroAmount);
    assert!(number == v.next_withdrawal, EWithdrawalReplay);
    v.next_withdrawal = number + 1;
    debit(&mut v.rows, owner, amount);
    event::emit(Withdrawn { vault: object::id(v), owner, recipient, amount, number });
    transfer::public_transfer(coin::take(&mut v.pool, amount, ctx), recipient);
}

// ---------------------------------------------------------------- batches

/// Opens part `part` of `parts` of batch `seq`. `previous` is the chain value the operator believes is current: a fork
/// of the operator (two settlers, a restored backup) aborts here.
public fun begin<T>(
    v: &mut Vault<T>,
    cap: &OperatorCap,
    seq: u64,
    part: u64,
    parts: u64,
    previous: vector<u8>,
): Batch {
    check_operator(v, cap);
    assert!(seq == v.next_seq, EWrongSequence);
    assert!(part == v.next_part && part < parts, EWrongPart);
    assert!(previous == v.chain, EWrongPrevious);
    Batch { vault: object::id(v), seq, part, parts, debits: 0, credits: 0, entries: 0 }
}

/// Applies net entries; call it again for more than fit in one pure argument (16 KiB).
/// `is_debit[i]` says whether `amounts[i]` leaves (true) or enters (false) `accounts[i]`.
public fun apply<T>(
    v: &mut Vault<T>,
    b: &mut Batch,
    accounts: vector<address>,
    amounts: vector<u64>,
    is_debit: vector<bool>,
) {
    assert!(b.vault == object::id(v), EWrongVault);
    let n = vector::length(&accounts);
    assert!(n == vector::length(&amounts) && n == vector::length(&is_debit), ELengthMismatch);
    let mut i = 0;
    while (i < n) {
        let who = *vector::borrow(&accounts, i);
        let amount = *vector::borrow(&amounts, i);
        assert!(amount > 0, EZeroAmount);
        if (*vector::borrow(&is_debit, i)) {
            debit(&mut v.rows, who, amount);
            b.debits = b.debits + (amount as u128);
        } else {
            credit(&mut v.rows, who, amount);
            b.credits = b.credits + (amount as u128);
        };
        i = i + 1;
    };
    b.entries = b.entries + n;
}

public fun finish<T>(
    v: &mut Vault<T>,
    b: Batch,
    merkle_root: vector<u8>,
    trades_digest: vector<u8>,
    clock: &Clock,
) {
    let Batch { vault, seq, part, parts, debits, credits, entries } = b;
    assert!(vault == object::id(v), EWrongVault);
    assert!(debits == credits, ENotConserved);
    assert!(vector::length(&merkle_root) == 32 && vector::length(&trades_digest) == 32, EBadHash);
    let mut m = v.chain;
    push_u64(&mut m, seq);
    push_u64(&mut m, part);
    vector::append(&mut m, merkle_root);
    vector::append(&mut m, trades_digest);
    v.chain = hash::sha2_256(m);
    v.last_root = merkle_root;
    v.last_commit_ms = clock.timestamp_ms();
    if (part + 1 == parts) {
        v.next_seq = seq + 1;
        v.next_part = 0;
    } else {
        v.next_part = part + 1;
    };
    event::emit(BatchCommitted {
        vault,
        seq,
        part,
        parts,
        merkle_root,
        trades_digest,
        chain: v.chain,
        entries,
        volume: debits,
        at_ms: v.last_commit_ms,
    });
}

/// begin + apply + finish for entries that fit in one set of arguments.
public fun commit_batch<T>(
    v: &mut Vault<T>,
    cap: &OperatorCap,
    seq: u64,
    part: u64,
    parts: u64,
    previous: vector<u8>,
    merkle_root: vector<u8>,
    trades_digest: vector<u8>,
    accounts: vector<address>,
    amounts: vector<u64>,
    is_debit: vector<bool>,
    clock: &Clock,
) {
    let mut b = begin(v, cap, seq, part, parts, previous);
    apply(v, &mut b, accounts, amounts, is_debit);
    finish(v, b, merkle_root, trades_digest, clock);
}

// ---------------------------------------------------------------- the owner's way out

/// Asks for the money back without the operator. Nothing is taken now: the row still backs trades already matched, so
/// a request can never make a batch abort.
public fun request_exit<T>(v: &mut Vault<T>, amount: u64, clock: &Clock, ctx: &TxContext) {
    request_exit_for(v, ctx.sender(), amount, clock)
}

public(package) fun request_exit_for<T>(v: &mut Vault<T>, owner: address, amount: u64, clock: &Clock) {
    assert!(v.version == VERSION, EWrongVersion);
    assert!(amount > 0, EZeroAmount);
    assert!(v.rows.contains(owner), EUnknownAccount);
    let ready_ms = clock.timestamp_ms() + v.exit_delay_ms;
    if (v.exits.contains(owner)) { let _ = v.exits.remove(owner); };
    v.exits.add(owner, Exit { amount, ready_ms });
    event::emit(ExitRequested { vault: object::id(v), owner, amount, ready_ms });
}

public fun cancel_exit<T>(v: &mut Vault<T>, ctx: &TxContext) { cancel_exit_for(v, ctx.sender()) }

public(package) fun cancel_exit_for<T>(v: &mut Vault<T>, owner: address) {
    assert!(v.exits.contains(owner), ENoExit);
    let _ = v.exits.remove(owner);
    event::emit(ExitCancelled { vault: object::id(v), owner });
}

/// Pays a ripe exit: the asked amount or what the row still holds, whichever is less. Works while paused. Anyone may
/// send it; the coin goes to the owner.
public fun claim_exit<T>(v: &mut Vault<T>, owner: address, clock: &Clock, ctx: &mut TxContext) {
    assert!(v.version == VERSION, EWrongVersion);
    assert!(v.exits.contains(owner), ENoExit);
    let Exit { amount, ready_ms } = v.exits.remove(owner);
    assert!(clock.timestamp_ms() >= ready_ms, EExitNotReady);
    let row = balance_of(v, owner);
    let pay = if (amount < row) amount else row;
    if (pay > 0) {
        debit(&mut v.rows, owner, pay);
        transfer::public_transfer(coin::take(&mut v.pool, pay, ctx), owner);
    };
    event::emit(ExitPaid { vault: object::id(v), owner, amount: pay });
}

// ---------------------------------------------------------------- views

public fun balance_of<T>(v: &Vault<T>, owner: address): u64 {
    if (v.rows.contains(owner)) *v.rows.borrow(owner) else 0
}

public fun has_account<T>(v: &Vault<T>, owner: address): bool { v.rows.contains(owner) }
public fun next_seq<T>(v: &Vault<T>): u64 { v.next_seq }
public fun next_withdrawal<T>(v: &Vault<T>): u64 { v.next_withdrawal }
public fun chain<T>(v: &Vault<T>): vector<u8> { v.chain }
public fun last_root<T>(v: &Vault<T>): vector<u8> { v.last_root }
public fun pool_value<T>(v: &Vault<T>): u64 { balance::value(&v.pool) }
public fun is_paused<T>(v: &Vault<T>): bool { v.paused }
public fun exit_of<T>(v: &Vault<T>, owner: address): (u64, u64) {
    if (!v.exits.contains(owner)) return (0, 0);
    let e = v.exits.borrow(owner);
    (e.amount, e.ready_ms)
}

// ---------------------------------------------------------------- inside

fun check_admin<T>(v: &Vault<T>, cap: &AdminCap) {
    assert!(v.version == VERSION, EWrongVersion);
    assert!(object::id(cap) == v.admin, EWrongCap);
}

fun check_operator<T>(v: &Vault<T>, cap: &OperatorCap) {
    assert!(v.version == VERSION, EWrongVersion);
    assert!(!v.paused, EPaused);
    assert!(object::id(cap) == v.operator, EWrongCap);
}

fun take_in<T>(v: &mut Vault<T>, payment: Coin<T>) {
    assert!(v.version == VERSION, EWrongVersion);
    balance::join(&mut v.pool, coin::into_balance(payment));
}

fun credit_deposit<T>(v: &mut Vault<T>, owner: address, amount: u64) {
    assert!(amount > 0, EZeroAmount);
    let balance = credit(&mut v.rows, owner, amount);
    event::emit(Deposited { vault: object::id(v), owner, amount, balance });
}

fun credit(rows: &mut Table<address, u64>, who: address, amount: u64): u64 {
    if (!rows.contains(who)) {
        rows.add(who, amount);
        return amount
    };
    let r = rows.borrow_mut(who);
    assert!(*r <= 18446744073709551615 - amount, EOverflow);
    *r = *r + amount;
    *r
}

fun debit(rows: &mut Table<address, u64>, who: address, amount: u64) {
    assert!(rows.contains(who), EUnknownAccount);
    let r = rows.borrow_mut(who);
    assert!(*r >= amount, EInsufficient);
    *r = *r - amount;
}

fun zeros(): vector<u8> { x"0000000000000000000000000000000000000000000000000000000000000000" }

fun push_u64(out: &mut vector<u8>, n: u64) {
    let mut k: u8 = 0;
    while (k < 8) {
        vector::push_back(out, (((n >> (8 * k)) & 0xff) as u8));
        k = k + 1;
    };
}
