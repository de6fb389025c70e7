/// One account's row in a vault, and its arithmetic. Knows no coins and no tables.
///
/// Invariants: `balance` and `debt` are never both above zero; `debt <= exited`.
///
/// A row goes below zero in one case only: its owner took money out by a forced exit, and a batch that was netted
/// before takes the same money again. The batch must not fail for that (others' trades are in it), so the row keeps a
/// `debt`, at most what exits ever paid to it. What comes in later repays the debt first.
module exchange::row;

const MAX: u64 = 18446744073709551615;

public struct Row has copy, drop, store {
    balance: u64,
    debt: u64,
    /// all that forced exits have paid to the owner
    exited: u64,
    /// the exit asked for; 0: none
    exit_amount: u64,
    exit_ready_ms: u64,
}

public fun balance(r: &Row): u64 { r.balance }
public fun debt(r: &Row): u64 { r.debt }
public fun exited(r: &Row): u64 { r.exited }
public fun exit_amount(r: &Row): u64 { r.exit_amount }
public fun exit_ready_ms(r: &Row): u64 { r.exit_ready_ms }

public(package) fun empty(): Row { Row { balance: 0, debt: 0, exited: 0, exit_amount: 0, exit_ready_ms: 0 } }

/// Whether `amount` more can be written into the row.
public(package) fun has_room(r: &Row, amount: u64): bool { amount <= r.debt || r.balance <= MAX - (amount - r.debt) }

/// Adds `amount`, debt first; how much of it repaid debt. Needs `has_room`.
public(package) fun credit(r: &mut Row, amount: u64): u64 {
    let repaid = min(amount, r.debt);
    r.debt = r.debt - repaid;
    r.balance = r.balance + (amount - repaid);
    repaid
}

/// Whether a batch may take `amount`: the row holds it, or exits that the batch did not know of took it away.
public(package) fun covers(r: &Row, amount: u64): bool {
    amount <= r.balance || amount - r.balance <= r.exited - r.debt
}

/// Takes `amount`; how much of it became debt. Needs `covers`.
public(package) fun debit(r: &mut Row, amount: u64): u64 {
    let paid = min(amount, r.balance);
    r.balance = r.balance - paid;
    r.debt = r.debt + (amount - paid);
    amount - paid
}

public(package) fun ask_exit(r: &mut Row, amount: u64, ready_ms: u64) {
    r.exit_amount = amount;
    r.exit_ready_ms = ready_ms;
}

/// Takes `amount` out by a forced exit. Needs `amount <= balance`. `exited` stops at the largest number: an exit must
/// not fail because many went before it.
public(package) fun pay_exit(r: &mut Row, amount: u64) {
    r.balance = r.balance - amount;
    r.exited = if (r.exited > MAX - amount) MAX else r.exited + amount;
    ask_exit(r, 0, 0);
}

fun min(a: u64, b: u64): u64 { if (a < b) a else b }

#[test_only]
public fun of(balance: u64, debt: u64, exited: u64): Row {
    Row { balance, debt, exited, exit_amount: 0, exit_ready_ms: 0 }
}
