/// Never published. What the plain probe cannot reach with public functions: the owner's calls take the sender
/// from the transaction, which that machine cannot set, and an opened vault is shared at once. These go through the
/// package's inner functions, so the settlement module beside this one names it as a friend.
module exchange::friend_probe;

use exchange::probe;
use exchange::settlement::{Self, AdminCap, Vault};
use sui::clock::Clock;

public fun open<T>(
    admin: &AdminCap, operator: ID, first_seq: u64, exit_delay_ms: u64, ctx: &mut TxContext,
): vector<u8> {
    let v = settlement::new_vault<T>(admin, operator, first_seq, exit_delay_ms, ctx);
    let bytes = std::bcs::to_bytes(&v);
    settlement::share(v);
    bytes
}

public fun request_exit<T>(
    v: &mut Vault<T>, clock: &Clock, owner: address, amount: u64, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::request_exit_for(v, owner, amount, clock);
    probe::watch(v, who)
}

public fun claim_exit<T>(
    v: &mut Vault<T>, clock: &Clock, owner: address, who: vector<address>, ctx: &mut TxContext,
): (vector<u8>, vector<vector<u8>>) {
    settlement::claim_exit_for(v, owner, clock, ctx);
    probe::watch(v, who)
}

public fun cancel_exit<T>(
    v: &mut Vault<T>, owner: address, who: vector<address>,
): (vector<u8>, vector<vector<u8>>) {
    settlement::cancel_exit_for(v, owner);
    probe::watch(v, who)
}
