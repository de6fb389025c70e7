/// Never published. The rights modules' calls, each returning the BCS of every object it made or changed and of the
/// table entries it was asked about (no bytes: not there). Made objects are shared or given away as the published
/// function does it, through the package's inner functions.
module exchange::rights_probe;

use exchange::copyright_registry::{Self as registry, ArbiterCap, Registry, Work, WorkCap};
use exchange::license::{Self, License, Offer};
use exchange::royalty::{Self, Till};
use std::bcs;
use std::string::String;
use sui::clock::Clock;
use sui::coin::Coin;

public fun register(
    r: &mut Registry, clock: &Clock, content_hash: vector<u8>, title: String, uri: String, creators: vector<address>,
    shares_bps: vector<u64>, ctx: &mut TxContext,
): (vector<u8>, vector<u8>, vector<u8>) {
    let (work, cap) = registry::new_work(r, content_hash, title, uri, creators, shares_bps, clock, ctx);
    let (a, b) = (bcs::to_bytes(&work), bcs::to_bytes(&cap));
    registry::share(work);
    transfer::public_transfer(cap, @0x0);
    (bcs::to_bytes(r), a, b)
}

public fun set_disputed(r: &Registry, cap: &ArbiterCap, w: &mut Work, disputed: bool): vector<u8> {
    registry::set_disputed(r, cap, w, disputed);
    bcs::to_bytes(w)
}

public fun set_shares(w: &mut Work, cap: &WorkCap, creators: vector<address>, shares_bps: vector<u64>): vector<u8> {
    registry::set_shares(w, cap, creators, shares_bps);
    bcs::to_bytes(w)
}

public fun make_offer<T>(
    w: &Work, cap: &WorkCap, terms_uri: String, terms_hash: vector<u8>, price: u64, duration_ms: u64, supply: u64,
    transferable: bool, revocable: bool, ctx: &mut TxContext,
): vector<u8> {
    let o = license::new_offer<T>(
        w, cap, terms_uri, terms_hash, price, duration_ms, supply, transferable, revocable, ctx,
    );
    let bytes = bcs::to_bytes(&o);
    license::share(o);
    bytes
}

public fun close_offer<T>(o: &mut Offer<T>, w: &Work, cap: &WorkCap): vector<u8> {
    license::close_offer(o, w, cap);
    bcs::to_bytes(o)
}

public fun buy<T>(
    o: &mut Offer<T>, w: &mut Work, t: &mut Till<T>, payment: Coin<T>, clock: &Clock, to: address,
    ctx: &mut TxContext,
): (vector<u8>, vector<u8>, vector<u8>, vector<u8>, vector<u64>) {
    let l = license::sell(o, w, t, payment, to, clock, ctx);
    let bytes = bcs::to_bytes(&l);
    license::give(l, to);
    (bcs::to_bytes(o), bcs::to_bytes(w), bcs::to_bytes(t), bytes, dues(t, registry::creators(w)))
}

public fun issue(
    w: &mut Work, cap: &WorkCap, clock: &Clock, to: address, terms_hash: vector<u8>, duration_ms: u64,
    transferable: bool, revocable: bool, ctx: &mut TxContext,
): (vector<u8>, vector<u8>) {
    let l = license::grant(w, cap, to, terms_hash, duration_ms, transferable, revocable, clock, ctx);
    let bytes = bcs::to_bytes(&l);
    license::give(l, to);
    (bcs::to_bytes(w), bytes)
}

public fun revoke(w: &mut Work, cap: &WorkCap, clock: &Clock, license: ID): (vector<u8>, u64) {
    license::revoke(w, cap, license, clock);
    (bcs::to_bytes(w), registry::revoked_ms(w, license))
}

public fun hand_over(l: License, to: address): vector<u8> {
    let bytes = bcs::to_bytes(&l);
    license::hand_over(l, to);
    bytes
}

public fun open_till<T>(ctx: &mut TxContext): vector<u8> {
    let t = royalty::new_till<T>(ctx);
    let bytes = bcs::to_bytes(&t);
    royalty::share(t);
    bytes
}

public fun pay<T>(t: &mut Till<T>, w: &Work, payment: Coin<T>): (vector<u8>, vector<u64>) {
    royalty::pay(t, w, payment);
    (bcs::to_bytes(t), dues(t, registry::creators(w)))
}

public fun claim<T>(t: &mut Till<T>, payee: address, ctx: &mut TxContext): vector<u8> {
    royalty::claim(t, payee, ctx);
    bcs::to_bytes(t)
}

// The published functions whose inner ones the probes above call, as they are.

public fun plain_register(
    r: &mut Registry, clock: &Clock, content_hash: vector<u8>, title: String, uri: String, creators: vector<address>,
    shares_bps: vector<u64>, ctx: &mut TxContext,
) {
    let cap = registry::register(r, content_hash, title, uri, creators, shares_bps, clock, ctx);
    transfer::public_transfer(cap, @0x0);
}

public fun plain_buy<T>(
    o: &mut Offer<T>, w: &mut Work, t: &mut Till<T>, payment: Coin<T>, clock: &Clock, to: address,
    ctx: &mut TxContext,
) {
    license::buy(o, w, t, payment, to, clock, ctx);
}

public fun plain_issue(
    w: &mut Work, cap: &WorkCap, clock: &Clock, to: address, terms_hash: vector<u8>, duration_ms: u64,
    transferable: bool, revocable: bool, ctx: &mut TxContext,
) {
    license::issue(w, cap, to, terms_hash, duration_ms, transferable, revocable, clock, ctx);
}

fun dues<T>(t: &Till<T>, who: vector<address>): vector<u64> {
    let mut out = vector[];
    let mut i = 0;
    while (i < vector::length(&who)) {
        vector::push_back(&mut out, royalty::due_of(t, *vector::borrow(&who, i)));
        i = i + 1;
    };
    out
}
