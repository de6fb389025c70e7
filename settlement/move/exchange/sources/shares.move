/// Shares in basis points, and the exact split of an amount by them. Pure.
module exchange::shares;

const BPS: u64 = 10_000;

/// Every share is above zero and together they are the whole.
public fun are_whole(shares: &vector<u64>): bool {
    let mut sum = 0;
    let mut i = 0;
    while (i < vector::length(shares)) {
        let share = *vector::borrow(shares, i);
        if (share == 0 || share > BPS) return false;
        sum = sum + share;
        i = i + 1;
    };
    sum == BPS
}

public fun are_distinct(who: &vector<address>): bool {
    let n = vector::length(who);
    let mut i = 0;
    while (i < n) {
        let mut j = i + 1;
        while (j < n) {
            if (vector::borrow(who, i) == vector::borrow(who, j)) return false;
            j = j + 1;
        };
        i = i + 1;
    };
    true
}

/// Largest remainder: everyone gets the floor of the exact part, and the units left over go one each to the largest
/// remainders, ties to the earlier. The parts add up to `amount`. Needs `are_whole`.
public fun split(amount: u64, shares: &vector<u64>): vector<u64> {
    let n = vector::length(shares);
    let mut parts = vector[];
    let mut rests = vector[];
    let mut left = amount;
    let mut i = 0;
    while (i < n) {
        let exact = (amount as u128) * (*vector::borrow(shares, i) as u128);
        let part = ((exact / (BPS as u128)) as u64);
        vector::push_back(&mut parts, part);
        vector::push_back(&mut rests, exact % (BPS as u128));
        left = left - part;
        i = i + 1;
    };
    while (left > 0) {
        let mut best = 0;
        let mut k = 1;
        while (k < n) {
            if (*vector::borrow(&rests, k) > *vector::borrow(&rests, best)) best = k;
            k = k + 1;
        };
        let part = vector::borrow_mut(&mut parts, best);
        *part = *part + 1;
        *vector::borrow_mut(&mut rests, best) = 0;
        left = left - 1;
    };
    parts
}
