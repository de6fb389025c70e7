/// Never published. The owner's two calls take the sender from the transaction, which that machine cannot set: these
/// go through the package's inner functions, so the settlement module beside this one names it as a friend.
module exchange::exit_probe;

use exchange::probe;
use exchange::settlement::{Self, Vault};
use sui::clock::Clock;

public fun request_exit<T>(
    v: &mut Vault<T>, clock: &Clock, owner: address, amount: u64, who: vector<address>,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::request_exit_for(v, owner, amount, clock);
    probe::watch(v, who)
}

public fun cancel_exit<T>(
    v: &mut Vault<T>, owner: address, who: vector<address>,
): (vector<u8>, vector<u64>, vector<u64>, vector<u64>) {
    settlement::cancel_exit_for(v, owner);
    probe::watch(v, who)
}
