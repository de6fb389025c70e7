/// Shares and the exact split.
#[test_only]
module exchange::shares_tests;

use exchange::shares;

fun total(parts: &vector<u64>): u64 {
    let mut sum = 0;
    let mut i = 0;
    while (i < vector::length(parts)) {
        sum = sum + *vector::borrow(parts, i);
        i = i + 1;
    };
    sum
}

#[test]
fun shares_are_whole_or_not() {
    assert!(shares::are_whole(&vector[10_000]) && shares::are_whole(&vector[1, 9_999]), 0);
    assert!(!shares::are_whole(&vector[]) && !shares::are_whole(&vector[9_999]), 1);
    assert!(!shares::are_whole(&vector[0, 10_000]) && !shares::are_whole(&vector[10_001]), 2);
    assert!(!shares::are_whole(&vector[18446744073709551615, 10_001]), 3);
}

#[test]
fun names_are_distinct_or_not() {
    assert!(shares::are_distinct(&vector[]) && shares::are_distinct(&vector[@0x1, @0x2, @0x3]), 0);
    assert!(!shares::are_distinct(&vector[@0x1, @0x2, @0x1]), 1);
}

#[test]
fun a_third_each_leaves_one_unit_to_the_largest_remainder() {
    assert!(shares::split(100, &vector[3_334, 3_333, 3_333]) == vector[34, 33, 33], 0);
    assert!(shares::split(1, &vector[3_333, 3_334, 3_333]) == vector[0, 1, 0], 1);
    assert!(shares::split(2, &vector[3_333, 3_334, 3_333]) == vector[1, 1, 0], 2);
}

#[test]
fun a_tie_goes_to_the_earlier() {
    assert!(shares::split(1, &vector[5_000, 5_000]) == vector[1, 0], 0);
    assert!(shares::split(3, &vector[2_500, 2_500, 2_500, 2_500]) == vector[1, 1, 1, 0], 1);
}

#[test]
fun nothing_is_lost_of_the_largest_amount() {
    let most = 18446744073709551615;
    let parts = shares::split(most, &vector[1, 3_333, 6_666]);
    assert!(total(&parts) == most, 0);
    assert!(shares::split(0, &vector[10_000]) == vector[0], 1);
}
