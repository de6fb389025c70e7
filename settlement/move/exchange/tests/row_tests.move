/// The arithmetic of a row.
#[test_only]
module exchange::row_tests;

use exchange::row::{Self, Row};

const MAX: u64 = 18446744073709551615;

fun is(r: &Row, balance: u64, debt: u64, exited: u64): bool {
    row::balance(r) == balance && row::debt(r) == debt && row::exited(r) == exited
}

#[test]
fun a_new_row_is_empty_and_covers_nothing() {
    let r = row::empty();
    assert!(is(&r, 0, 0, 0) && row::exit_amount(&r) == 0 && row::exit_ready_ms(&r) == 0, 0);
    assert!(row::covers(&r, 0) && !row::covers(&r, 1), 1);
}

#[test]
fun a_credit_repays_debt_first() {
    let mut r = row::of(0, 30, 40);
    assert!(row::credit(&mut r, 10) == 10 && is(&r, 0, 20, 40), 0);
    assert!(row::credit(&mut r, 50) == 20 && is(&r, 30, 0, 40), 1);
    assert!(row::credit(&mut r, 5) == 0 && is(&r, 35, 0, 40), 2);
}

#[test]
fun a_debit_beyond_the_balance_is_covered_by_what_exits_paid_and_becomes_debt() {
    let mut r = row::of(10, 0, 40);
    assert!(row::covers(&r, 50) && !row::covers(&r, 51), 0);
    assert!(row::debit(&mut r, 4) == 0 && is(&r, 6, 0, 40), 1);
    assert!(row::debit(&mut r, 30) == 24 && is(&r, 0, 24, 40), 2);
    assert!(row::covers(&r, 16) && !row::covers(&r, 17), 3);
    assert!(row::debit(&mut r, 16) == 16 && is(&r, 0, 40, 40), 4);
    assert!(!row::covers(&r, 1), 5);
}

#[test]
fun room_counts_the_debt_that_a_credit_would_repay() {
    assert!(row::has_room(&row::of(MAX - 1, 0, 0), 1) && !row::has_room(&row::of(MAX - 1, 0, 0), 2), 0);
    assert!(row::has_room(&row::of(0, 7, 9), MAX), 1);
    let mut r = row::of(0, 7, 9);
    assert!(row::credit(&mut r, MAX) == 7 && is(&r, MAX - 7, 0, 9), 2);
}

#[test]
fun an_exit_is_asked_and_paid() {
    let mut r = row::of(100, 0, 5);
    row::ask_exit(&mut r, 70, 9);
    assert!(row::exit_amount(&r) == 70 && row::exit_ready_ms(&r) == 9 && is(&r, 100, 0, 5), 0);
    row::pay_exit(&mut r, 70);
    assert!(row::exit_amount(&r) == 0 && row::exit_ready_ms(&r) == 0 && is(&r, 30, 0, 75), 1);
}

#[test]
fun what_exits_have_paid_stops_at_the_largest_number() {
    let mut r = row::of(10, 0, MAX - 3);
    row::pay_exit(&mut r, 10);
    assert!(is(&r, 0, 0, MAX), 0);
}

#[test, expected_failure(arithmetic_error, location = exchange::row)]
fun an_exit_cannot_pay_more_than_the_row_holds() {
    row::pay_exit(&mut row::of(1, 0, 0), 2);
}
