/// Batch settlement for an off-chain matched market.
///
/// One shared `Vault<T>` per coin type holds the coins of every account and a row per account. The operator nets the
/// trades of a period off chain and commits one numbered batch over all vaults in one programmable transaction.
/// A batch is atomic per transaction, zero-sum per coin, numbered without gaps (so the same batch can never be applied
/// twice), and hash-chained (so a forked history is refused). A batch of more accounts than one transaction may touch
/// comes in parts: the batch number moves on with the last part.
///
/// The operator can move money between rows and pay it out; it can never mint, stop an exit, or overdraw a row (but for
/// what an exit took out behind a batch's back, see `row`).
/// An owner can take money out without the operator; no exit, asked or paid, can make a batch fail.
/// Invariant: the rows' balances add up to pool + deficit, and deficit is the sum of the rows' debts.
module exchange::settlement;

use exchange::row::{Self, Row};
use std::hash;
use sui::balance::{Self, Balance};
use sui::clock::Clock;
use sui::coin::{Self, Coin};
use sui::event;
use sui::table::{Self, Table};

const VERSION: u64 = 1;
const MIN_EXIT_DELAY_MS: u64 = 3_600_000;
const MAX_EXIT_DELAY_MS: u64 = 1_209_600_000;
const MAX_REFERENCE_BYTES: u64 = 64;

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
const EBadReference: u64 = 19;
const ENothingHeld: u64 = 20;

/// Opens vaults, names the operator, pauses, migrates. Keep it in a multisig.
public struct AdminCap has key, store { id: UID }

/// Commits batches and pays withdrawals. A vault names the one cap that counts; one cap may serve many vaults.
public struct OperatorCap has key, store { id: UID }

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
    /// sha2_256(previous || seq || part || merkle_root || liabilities || trades_digest), 32 zero bytes at first
    chain: vector<u8>,
    last_root: vector<u8>,
    /// what the operator says it owes in this coin, under `last_root`, and what the vault held then
    last_liabilities: u64,
    last_pool: u64,
    last_commit_ms: u64,
    deficit: u128,
    pool: Balance<T>,
    rows: Table<address, Row>,
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
public struct Deposited has copy, drop {
    vault: ID,
    owner: address,
    amount: u64,
    balance: u64,
    reference: vector<u8>,
}
public struct Withdrawn has copy, drop { vault: ID, owner: address, recipient: address, amount: u64, number: u64 }
/// Nothing was paid: an exit had emptied the row (or the pool).
public struct WithdrawalSkipped has copy, drop {
    vault: ID,
    owner: address,
    recipient: address,
    amount: u64,
    number: u64,
}
public struct BatchCommitted has copy, drop {
    vault: ID,
    seq: u64,
    part: u64,
    parts: u64,
    merkle_root: vector<u8>,
    liabilities: u64,
    trades_digest: vector<u8>,
    chain: vector<u8>,
    entries: u64,
    volume: u128,
    pool: u64,
    deficit: u128,
    at_ms: u64,
}
public struct ExitRequested has copy, drop { vault: ID, owner: address, amount: u64, ready_ms: u64 }
public struct ExitCancelled has copy, drop { vault: ID, owner: address }
public struct ExitPaid has copy, drop { vault: ID, owner: address, amount: u64 }
/// A batch took `debt` more than the row still held after an exit.
public struct ExitShortfall has copy, drop { vault: ID, owner: address, debt: u64 }
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
    share(new_vault<T>(admin, operator, first_seq, exit_delay_ms, ctx))
}

public(package) fun new_vault<T>(
    admin: &AdminCap,
    operator: ID,
    first_seq: u64,
    exit_delay_ms: u64,
    ctx: &mut TxContext,
): Vault<T> {
    assert!(exit_delay_ms >= MIN_EXIT_DELAY_MS && exit_delay_ms <= MAX_EXIT_DELAY_MS, EBadDelay);
    let id = object::new(ctx);
    event::emit(VaultOpened { vault: object::uid_to_inner(&id), admin: object::id(admin), operator, first_seq });
    Vault<T> {
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
        last_liabilities: 0,
        last_pool: 0,
        last_commit_ms: 0,
        deficit: 0,
        pool: balance::zero(),
        rows: table::new(ctx),
    }
}

public(package) fun share<T>(v: Vault<T>) { transfer::share_object(v) }

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
/// `reference` says off chain whom a deposit into a shared row is for; it may be empty.
public fun deposit<T>(v: &mut Vault<T>, payment: Coin<T>, owner: address, reference: vector<u8>) {
    assert!(vector::length(&reference) <= MAX_REFERENCE_BYTES, EBadReference);
    let amount = coin::value(&payment);
    take_in(v, payment);
    credit_deposit(v, owner, amount, reference);
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
        credit_deposit(v, *vector::borrow(&owners, i), amount, vector[]);
        sum = sum + (amount as u128);
        i = i + 1;
    };
    assert!(sum == total, ENotConserved);
}

/// The operator pays out a withdrawal that the owner asked for off chain. `number` is the vault's own withdrawal
/// counter: a second try of the same payment aborts. If a forced exit has taken the money first, the number moves on
/// and `WithdrawalSkipped` says that nothing was paid: withdrawals travel with batches, and no exit may stop a batch.
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
    assert!(v.rows.contains(owner), EUnknownAccount);
    let r = v.rows.borrow_mut(owner);
    assert!(row::covers(r, amount), EInsufficient);
    if (row::balance(r) < amount || balance::value(&v.pool) < amount) {
        event::emit(WithdrawalSkipped { vault: object::id(v), owner, recipient, amount, number });
        return
    };
    let _ = row::debit(r, amount);
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
            debit(v, who, amount);
            b.debits = b.debits + (amount as u128);
        } else {
            let _ = credit(v, who, amount);
            b.credits = b.credits + (amount as u128);
        };
        i = i + 1;
    };
    b.entries = b.entries + n;
}

/// `liabilities` is what the operator owes in this coin in all, under `merkle_root`. It is kept, not judged: anyone can
/// hold it against the pool, and no exit may make a batch fail.
public fun finish<T>(
    v: &mut Vault<T>,
    b: Batch,
    merkle_root: vector<u8>,
    liabilities: u64,
    trades_digest: vector<u8>,
    clock: &Clock,
) {
    let Batch { vault, seq, part, parts, debits, credits, entries } = b;
    assert!(vault == object::id(v), EWrongVault);
    // Several batches can be begun in one transaction; a number is taken by the first to finish.
    assert!(seq == v.next_seq, EWrongSequence);
    assert!(part == v.next_part, EWrongPart);
    assert!(debits == credits, ENotConserved);
    assert!(vector::length(&merkle_root) == 32 && vector::length(&trades_digest) == 32, EBadHash);
    let mut m = v.chain;
    push_u64(&mut m, seq);
    push_u64(&mut m, part);
    vector::append(&mut m, merkle_root);
    push_u64(&mut m, liabilities);
    vector::append(&mut m, trades_digest);
    v.chain = hash::sha2_256(m);
    v.last_root = merkle_root;
    v.last_liabilities = liabilities;
    v.last_pool = balance::value(&v.pool);
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
        liabilities,
        trades_digest,
        chain: v.chain,
        entries,
        volume: debits,
        pool: v.last_pool,
        deficit: v.deficit,
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
    liabilities: u64,
    trades_digest: vector<u8>,
    accounts: vector<address>,
    amounts: vector<u64>,
    is_debit: vector<bool>,
    clock: &Clock,
) {
    let mut b = begin(v, cap, seq, part, parts, previous);
    apply(v, &mut b, accounts, amounts, is_debit);
    finish(v, b, merkle_root, liabilities, trades_digest, clock);
}

// ---------------------------------------------------------------- the owner's way out

/// Asks for the money back without the operator. Nothing is taken now: the row still backs trades already matched. A
/// second request takes the place of the first and waits anew.
public fun request_exit<T>(v: &mut Vault<T>, amount: u64, clock: &Clock, ctx: &TxContext) {
    request_exit_for(v, ctx.sender(), amount, clock)
}

public(package) fun request_exit_for<T>(v: &mut Vault<T>, owner: address, amount: u64, clock: &Clock) {
    assert!(v.version == VERSION, EWrongVersion);
    assert!(amount > 0, EZeroAmount);
    assert!(v.rows.contains(owner), EUnknownAccount);
    let ready_ms = clock.timestamp_ms() + v.exit_delay_ms;
    row::ask_exit(v.rows.borrow_mut(owner), amount, ready_ms);
    event::emit(ExitRequested { vault: object::id(v), owner, amount, ready_ms });
}

public fun cancel_exit<T>(v: &mut Vault<T>, ctx: &TxContext) { cancel_exit_for(v, ctx.sender()) }

public(package) fun cancel_exit_for<T>(v: &mut Vault<T>, owner: address) {
    assert_asked(v, owner);
    row::ask_exit(v.rows.borrow_mut(owner), 0, 0);
    event::emit(ExitCancelled { vault: object::id(v), owner });
}

/// Pays a ripe exit: the asked amount or what the row still holds, whichever is less. Works while paused. The owner
/// alone sends it: whoever else could would choose the moment when the row holds least. While nothing can be paid it
/// aborts, and the request stays as it is.
public fun claim_exit<T>(v: &mut Vault<T>, clock: &Clock, ctx: &mut TxContext) {
    claim_exit_for(v, ctx.sender(), clock, ctx)
}

public(package) fun claim_exit_for<T>(v: &mut Vault<T>, owner: address, clock: &Clock, ctx: &mut TxContext) {
    assert!(v.version == VERSION, EWrongVersion);
    assert_asked(v, owner);
    let pool = balance::value(&v.pool);
    let r = v.rows.borrow_mut(owner);
    assert!(clock.timestamp_ms() >= row::exit_ready_ms(r), EExitNotReady);
    let asked = row::exit_amount(r);
    let held = if (row::balance(r) < pool) row::balance(r) else pool;
    let amount = if (asked < held) asked else held;
    assert!(amount > 0, ENothingHeld);
    row::pay_exit(r, amount);
    transfer::public_transfer(coin::take(&mut v.pool, amount, ctx), owner);
    event::emit(ExitPaid { vault: object::id(v), owner, amount });
}

// ---------------------------------------------------------------- views

public fun balance_of<T>(v: &Vault<T>, owner: address): u64 {
    if (v.rows.contains(owner)) row::balance(v.rows.borrow(owner)) else 0
}

public fun row_of<T>(v: &Vault<T>, owner: address): Row {
    assert!(v.rows.contains(owner), EUnknownAccount);
    *v.rows.borrow(owner)
}

public fun has_account<T>(v: &Vault<T>, owner: address): bool { v.rows.contains(owner) }
public fun next_seq<T>(v: &Vault<T>): u64 { v.next_seq }
public fun next_withdrawal<T>(v: &Vault<T>): u64 { v.next_withdrawal }
public fun chain<T>(v: &Vault<T>): vector<u8> { v.chain }
public fun last_root<T>(v: &Vault<T>): vector<u8> { v.last_root }
public fun last_liabilities<T>(v: &Vault<T>): u64 { v.last_liabilities }
public fun deficit<T>(v: &Vault<T>): u128 { v.deficit }
public fun pool_value<T>(v: &Vault<T>): u64 { balance::value(&v.pool) }
public fun is_paused<T>(v: &Vault<T>): bool { v.paused }

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

fun assert_asked<T>(v: &Vault<T>, owner: address) {
    assert!(v.rows.contains(owner) && row::exit_amount(v.rows.borrow(owner)) > 0, ENoExit);
}

fun credit_deposit<T>(v: &mut Vault<T>, owner: address, amount: u64, reference: vector<u8>) {
    assert!(amount > 0, EZeroAmount);
    let balance = credit(v, owner, amount);
    event::emit(Deposited { vault: object::id(v), owner, amount, balance, reference });
}

fun credit<T>(v: &mut Vault<T>, who: address, amount: u64): u64 {
    if (!v.rows.contains(who)) v.rows.add(who, row::empty());
    let r = v.rows.borrow_mut(who);
    assert!(row::has_room(r, amount), EOverflow);
    let repaid = row::credit(r, amount);
    let balance = row::balance(r);
    v.deficit = v.deficit - (repaid as u128);
    balance
}

fun debit<T>(v: &mut Vault<T>, who: address, amount: u64) {
    assert!(v.rows.contains(who), EUnknownAccount);
    let r = v.rows.borrow_mut(who);
    assert!(row::covers(r, amount), EInsufficient);
    let debt = row::debit(r, amount);
    if (debt > 0) {
        v.deficit = v.deficit + (debt as u128);
        event::emit(ExitShortfall { vault: object::id(v), owner: who, debt });
    };
}

fun zeros(): vector<u8> { x"0000000000000000000000000000000000000000000000000000000000000000" }

fun push_u64(out: &mut vector<u8>, n: u64) {
    let mut k: u8 = 0;
    while (k < 8) {
        vector::push_back(out, (((n >> (8 * k)) & 0xff) as u8));
        k = k + 1;
    };
}
