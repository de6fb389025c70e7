"""Where the C structs of types.pxd put their fields, for comparing them with layout.py and codes.py."""

from engine.types cimport *

__all__ = ["NUMBERS", "OFFSETS", "SIZES"]


def _offsets():
    # {layout dtype: {field: byte offset}}, read off a struct on the stack.
    cdef AssetRecord of_asset
    cdef MarketRecord of_market
    cdef MarketTerms of_market_extra
    cdef AccountRecord of_account
    cdef AccountExtra of_account_extra
    cdef DirectRecord of_withdraw
    cdef TransferRecord of_transfer
    cdef PostRecord of_post
    cdef PlaceRecord of_place
    cdef CancelRecord of_cancel
    cdef ReplaceRecord of_replace
    cdef MassCancelRecord of_mass_cancel
    cdef MarketOnlyRecord of_phase
    cdef CancelAfterRecord of_cancel_after
    cdef PoisonRecord of_poison
    cdef MoneyMeta of_money_meta
    cdef RefSlot of_ref_slot
    cdef AcceptedEvent of_accepted
    cdef RejectedEvent of_rejected
    cdef DuplicateEvent of_duplicate
    cdef DoneAssetEvent of_done_asset
    cdef DoneMarketEvent of_done_market
    cdef DoneAccountEvent of_done_account
    cdef TradeEvent of_trade
    cdef CanceledEvent of_canceled
    cdef ReplacedEvent of_replaced
    cdef TriggeredEvent of_triggered
    cdef RefreshedEvent of_refreshed
    cdef PhaseChangedEvent of_phase_changed
    cdef UncrossedEvent of_uncrossed
    cdef PreventedEvent of_prevented
    cdef BalanceEvent of_balance
    cdef MoneyEvent of_money_event
    cdef CutEvent of_cut
    cdef Record of_command
    cdef Event of_event
    cdef Part of_part
    cdef Leg of_leg
    return {
        "ASSET": {
            "name": <char*>&of_asset.name - <char*>&of_asset,
            "scale": <char*>&of_asset.scale - <char*>&of_asset,
            "settled": <char*>&of_asset.settled - <char*>&of_asset,
        },
        "MARKET": {
            "name": <char*>&of_market.name - <char*>&of_market,
            "base": <char*>&of_market.base - <char*>&of_market,
            "quote": <char*>&of_market.quote - <char*>&of_market,
            "mask": <char*>&of_market.mask - <char*>&of_market,
            "phase": <char*>&of_market.phase - <char*>&of_market,
        },
        "MARKET_EXTRA": {
            "tick": <char*>&of_market_extra.tick - <char*>&of_market_extra,
            "lot": <char*>&of_market_extra.lot - <char*>&of_market_extra,
            "min_size": <char*>&of_market_extra.min_size - <char*>&of_market_extra,
            "max_size": <char*>&of_market_extra.max_size - <char*>&of_market_extra,
            "max_price": <char*>&of_market_extra.max_price - <char*>&of_market_extra,
            "reference_price": <char*>&of_market_extra.reference_price - <char*>&of_market_extra,
            "pause_ns": <char*>&of_market_extra.pause_ns - <char*>&of_market_extra,
            "entry_band_ppm": <char*>&of_market_extra.entry_band_ppm - <char*>&of_market_extra,
            "exec_band_ppm": <char*>&of_market_extra.exec_band_ppm - <char*>&of_market_extra,
            "taker_ppm": <char*>&of_market_extra.taker_ppm - <char*>&of_market_extra,
            "maker_ppm": <char*>&of_market_extra.maker_ppm - <char*>&of_market_extra,
            "tick_decimals": <char*>&of_market_extra.tick_decimals - <char*>&of_market_extra,
            "lot_decimals": <char*>&of_market_extra.lot_decimals - <char*>&of_market_extra,
        },
        "ACCOUNT": {
            "name": <char*>&of_account.name - <char*>&of_account,
            "mask": <char*>&of_account.mask - <char*>&of_account,
            "taker_ppm": <char*>&of_account.taker_ppm - <char*>&of_account,
            "maker_ppm": <char*>&of_account.maker_ppm - <char*>&of_account,
            "max_open_orders": <char*>&of_account.max_open_orders - <char*>&of_account,
            "status": <char*>&of_account.status - <char*>&of_account,
            "overdraft": <char*>&of_account.overdraft - <char*>&of_account,
        },
        "ACCOUNT_EXTRA": {
            "row": <char*>&of_account_extra.row - <char*>&of_account_extra,
            "stp_group": <char*>&of_account_extra.stp_group - <char*>&of_account_extra,
        },
        "WITHDRAW": {
            "ref": <char*>&of_withdraw.ref - <char*>&of_withdraw,
            "account": <char*>&of_withdraw.account - <char*>&of_withdraw,
            "asset": <char*>&of_withdraw.asset - <char*>&of_withdraw,
            "amount": <char*>&of_withdraw.amount - <char*>&of_withdraw,
            "not_after": <char*>&of_withdraw.not_after - <char*>&of_withdraw,
            "place": <char*>&of_withdraw.place - <char*>&of_withdraw,
            "part_count": <char*>&of_withdraw.part_count - <char*>&of_withdraw,
            "leg_count": <char*>&of_withdraw.leg_count - <char*>&of_withdraw,
        },
        "TRANSFER": {
            "ref": <char*>&of_transfer.ref - <char*>&of_transfer,
            "expires_at": <char*>&of_transfer.expires_at - <char*>&of_transfer,
            "not_after": <char*>&of_transfer.not_after - <char*>&of_transfer,
            "part_count": <char*>&of_transfer.part_count - <char*>&of_transfer,
            "leg_count": <char*>&of_transfer.leg_count - <char*>&of_transfer,
        },
        "POST": {
            "ref": <char*>&of_post.ref - <char*>&of_post,
            "not_after": <char*>&of_post.not_after - <char*>&of_post,
        },
        "PLACE": {
            "account": <char*>&of_place.account - <char*>&of_place,
            "market": <char*>&of_place.market - <char*>&of_place,
            "client_id": <char*>&of_place.client_id - <char*>&of_place,
            "price": <char*>&of_place.price - <char*>&of_place,
            "size": <char*>&of_place.size - <char*>&of_place,
            "stop_price": <char*>&of_place.stop_price - <char*>&of_place,
            "display_size": <char*>&of_place.display_size - <char*>&of_place,
            "expires_at": <char*>&of_place.expires_at - <char*>&of_place,
            "session": <char*>&of_place.session - <char*>&of_place,
            "side": <char*>&of_place.side - <char*>&of_place,
            "type": <char*>&of_place.type - <char*>&of_place,
            "tif": <char*>&of_place.tif - <char*>&of_place,
            "stp": <char*>&of_place.stp - <char*>&of_place,
        },
        "CANCEL": {
            "account": <char*>&of_cancel.account - <char*>&of_cancel,
            "spare": <char*>&of_cancel.spare - <char*>&of_cancel,
            "client_id": <char*>&of_cancel.client_id - <char*>&of_cancel,
        },
        "REPLACE": {
            "account": <char*>&of_replace.account - <char*>&of_replace,
            "spare": <char*>&of_replace.spare - <char*>&of_replace,
            "client_id": <char*>&of_replace.client_id - <char*>&of_replace,
            "price": <char*>&of_replace.price - <char*>&of_replace,
            "size": <char*>&of_replace.size - <char*>&of_replace,
            "stop_price": <char*>&of_replace.stop_price - <char*>&of_replace,
            "new_client_id": <char*>&of_replace.new_client_id - <char*>&of_replace,
        },
        "MASS_CANCEL": {
            "account": <char*>&of_mass_cancel.account - <char*>&of_mass_cancel,
            "market": <char*>&of_mass_cancel.market - <char*>&of_mass_cancel,
            "session": <char*>&of_mass_cancel.session - <char*>&of_mass_cancel,
            "side": <char*>&of_mass_cancel.side - <char*>&of_mass_cancel,
            "given": <char*>&of_mass_cancel.given - <char*>&of_mass_cancel,
        },
        "PHASE": {
            "market": <char*>&of_phase.market - <char*>&of_phase,
            "phase": <char*>&of_phase.phase - <char*>&of_phase,
            "reference_price": <char*>&of_phase.reference_price - <char*>&of_phase,
        },
        "CANCEL_AFTER": {
            "account": <char*>&of_cancel_after.account - <char*>&of_cancel_after,
            "spare": <char*>&of_cancel_after.spare - <char*>&of_cancel_after,
            "at": <char*>&of_cancel_after.at - <char*>&of_cancel_after,
        },
        "POISON": {
            "account": <char*>&of_poison.account - <char*>&of_poison,
            "spare": <char*>&of_poison.spare - <char*>&of_poison,
            "client_id": <char*>&of_poison.client_id - <char*>&of_poison,
        },
        "MONEY_META": {
            "code": <char*>&of_money_meta.code - <char*>&of_money_meta,
            "memo": <char*>&of_money_meta.memo - <char*>&of_money_meta,
        },
        "REF_SLOT": {
            "ref": <char*>&of_ref_slot.ref - <char*>&of_ref_slot,
            "not_after": <char*>&of_ref_slot.not_after - <char*>&of_ref_slot,
        },
        "ACCEPTED": {
            "order_id": <char*>&of_accepted.order_id - <char*>&of_accepted,
            "client_id": <char*>&of_accepted.client_id - <char*>&of_accepted,
            "price": <char*>&of_accepted.price - <char*>&of_accepted,
            "size": <char*>&of_accepted.size - <char*>&of_accepted,
            "hold": <char*>&of_accepted.hold - <char*>&of_accepted,
            "stop_price": <char*>&of_accepted.stop_price - <char*>&of_accepted,
            "display_size": <char*>&of_accepted.display_size - <char*>&of_accepted,
            "expires_at": <char*>&of_accepted.expires_at - <char*>&of_accepted,
            "side": <char*>&of_accepted.side - <char*>&of_accepted,
            "type": <char*>&of_accepted.type - <char*>&of_accepted,
            "tif": <char*>&of_accepted.tif - <char*>&of_accepted,
            "flags": <char*>&of_accepted.flags - <char*>&of_accepted,
        },
        "REJECTED": {
            "order_id": <char*>&of_rejected.order_id - <char*>&of_rejected,
            "text": <char*>&of_rejected.text - <char*>&of_rejected,
            "flags": <char*>&of_rejected.flags - <char*>&of_rejected,
        },
        "DUPLICATE": {
            "order_id": <char*>&of_duplicate.order_id - <char*>&of_duplicate,
            "text": <char*>&of_duplicate.text - <char*>&of_duplicate,
            "filled": <char*>&of_duplicate.filled - <char*>&of_duplicate,
            "status": <char*>&of_duplicate.status - <char*>&of_duplicate,
            "flags": <char*>&of_duplicate.flags - <char*>&of_duplicate,
        },
        "DONE_ASSET": {
            "name": <char*>&of_done_asset.name - <char*>&of_done_asset,
            "scale": <char*>&of_done_asset.scale - <char*>&of_done_asset,
            "settled": <char*>&of_done_asset.settled - <char*>&of_done_asset,
        },
        "DONE_MARKET": {
            "name": <char*>&of_done_market.name - <char*>&of_done_market,
            "base": <char*>&of_done_market.base - <char*>&of_done_market,
            "quote": <char*>&of_done_market.quote - <char*>&of_done_market,
            "k": <char*>&of_done_market.k - <char*>&of_done_market,
            "u": <char*>&of_done_market.u - <char*>&of_done_market,
            "phase": <char*>&of_done_market.phase - <char*>&of_done_market,
        },
        "DONE_ACCOUNT": {
            "name": <char*>&of_done_account.name - <char*>&of_done_account,
            "taker_ppm": <char*>&of_done_account.taker_ppm - <char*>&of_done_account,
            "maker_ppm": <char*>&of_done_account.maker_ppm - <char*>&of_done_account,
            "max_open_orders": <char*>&of_done_account.max_open_orders - <char*>&of_done_account,
            "mask": <char*>&of_done_account.mask - <char*>&of_done_account,
            "status": <char*>&of_done_account.status - <char*>&of_done_account,
            "overdraft": <char*>&of_done_account.overdraft - <char*>&of_done_account,
        },
        "TRADE": {
            "taker_account": <char*>&of_trade.taker_account - <char*>&of_trade,
            "aggressor": <char*>&of_trade.aggressor - <char*>&of_trade,
            "buyer": <char*>&of_trade.buyer - <char*>&of_trade,
            "trade_id": <char*>&of_trade.trade_id - <char*>&of_trade,
            "price": <char*>&of_trade.price - <char*>&of_trade,
            "size": <char*>&of_trade.size - <char*>&of_trade,
            "notional": <char*>&of_trade.notional - <char*>&of_trade,
            "maker_order_id": <char*>&of_trade.maker_order_id - <char*>&of_trade,
            "maker_leaves": <char*>&of_trade.maker_leaves - <char*>&of_trade,
            "maker_fee": <char*>&of_trade.maker_fee - <char*>&of_trade,
            "taker_order_id": <char*>&of_trade.taker_order_id - <char*>&of_trade,
            "taker_leaves": <char*>&of_trade.taker_leaves - <char*>&of_trade,
            "taker_fee": <char*>&of_trade.taker_fee - <char*>&of_trade,
            "released": <char*>&of_trade.released - <char*>&of_trade,
        },
        "CANCELED": {
            "order_id": <char*>&of_canceled.order_id - <char*>&of_canceled,
            "client_id": <char*>&of_canceled.client_id - <char*>&of_canceled,
            "leaves": <char*>&of_canceled.leaves - <char*>&of_canceled,
            "released": <char*>&of_canceled.released - <char*>&of_canceled,
        },
        "REPLACED": {
            "order_id": <char*>&of_replaced.order_id - <char*>&of_replaced,
            "client_id": <char*>&of_replaced.client_id - <char*>&of_replaced,
            "price": <char*>&of_replaced.price - <char*>&of_replaced,
            "size": <char*>&of_replaced.size - <char*>&of_replaced,
            "leaves": <char*>&of_replaced.leaves - <char*>&of_replaced,
            "hold": <char*>&of_replaced.hold - <char*>&of_replaced,
            "released": <char*>&of_replaced.released - <char*>&of_replaced,
            "priority_kept": <char*>&of_replaced.priority_kept - <char*>&of_replaced,
            "stop_price": <char*>&of_replaced.stop_price - <char*>&of_replaced,
        },
        "TRIGGERED": {
            "order_id": <char*>&of_triggered.order_id - <char*>&of_triggered,
            "stop_price": <char*>&of_triggered.stop_price - <char*>&of_triggered,
            "trigger_price": <char*>&of_triggered.trigger_price - <char*>&of_triggered,
            "trigger_sequence": <char*>&of_triggered.trigger_sequence - <char*>&of_triggered,
        },
        "REFRESHED": {
            "order_id": <char*>&of_refreshed.order_id - <char*>&of_refreshed,
            "display_size": <char*>&of_refreshed.display_size - <char*>&of_refreshed,
        },
        "PHASE_CHANGED": {
            "phase": <char*>&of_phase_changed.phase - <char*>&of_phase_changed,
            "reference_price": <char*>&of_phase_changed.reference_price - <char*>&of_phase_changed,
        },
        "UNCROSSED": {
            "price": <char*>&of_uncrossed.price - <char*>&of_uncrossed,
            "size": <char*>&of_uncrossed.size - <char*>&of_uncrossed,
            "imbalance": <char*>&of_uncrossed.imbalance - <char*>&of_uncrossed,
        },
        "PREVENTED": {
            "taker_account": <char*>&of_prevented.taker_account - <char*>&of_prevented,
            "mode": <char*>&of_prevented.mode - <char*>&of_prevented,
            "price": <char*>&of_prevented.price - <char*>&of_prevented,
            "size": <char*>&of_prevented.size - <char*>&of_prevented,
            "maker_order_id": <char*>&of_prevented.maker_order_id - <char*>&of_prevented,
            "maker_leaves": <char*>&of_prevented.maker_leaves - <char*>&of_prevented,
            "maker_released": <char*>&of_prevented.maker_released - <char*>&of_prevented,
            "taker_order_id": <char*>&of_prevented.taker_order_id - <char*>&of_prevented,
            "taker_leaves": <char*>&of_prevented.taker_leaves - <char*>&of_prevented,
            "taker_released": <char*>&of_prevented.taker_released - <char*>&of_prevented,
        },
        "BALANCE": {
            "available": <char*>&of_balance.available - <char*>&of_balance,
            "held": <char*>&of_balance.held - <char*>&of_balance,
            "cause": <char*>&of_balance.cause - <char*>&of_balance,
        },
        "MONEY_EVENT": {
            "ref": <char*>&of_money_event.ref - <char*>&of_money_event,
            "code": <char*>&of_money_event.code - <char*>&of_money_event,
            "leg_count": <char*>&of_money_event.leg_count - <char*>&of_money_event,
            "cause": <char*>&of_money_event.cause - <char*>&of_money_event,
            "has_memo": <char*>&of_money_event.has_memo - <char*>&of_money_event,
        },
        "CUT": {
            "batch": <char*>&of_cut.batch - <char*>&of_cut,
            "first_sequence": <char*>&of_cut.first_sequence - <char*>&of_cut,
            "last_sequence": <char*>&of_cut.last_sequence - <char*>&of_cut,
            "hash_low": <char*>&of_cut.hash_low - <char*>&of_cut,
            "hash_high": <char*>&of_cut.hash_high - <char*>&of_cut,
        },
        "COMMAND": {
            "crc32c": <char*>&of_command.crc32c - <char*>&of_command,
            "kind": <char*>&of_command.kind - <char*>&of_command,
            "slots": <char*>&of_command.slots - <char*>&of_command,
            "flags": <char*>&of_command.flags - <char*>&of_command,
            "sequence": <char*>&of_command.sequence - <char*>&of_command,
            "ts": <char*>&of_command.ts - <char*>&of_command,
            "chain": <char*>&of_command.chain - <char*>&of_command,
        },
        "EVENT": {
            "sequence": <char*>&of_event.sequence - <char*>&of_event,
            "ts": <char*>&of_event.ts - <char*>&of_event,
            "index": <char*>&of_event.index - <char*>&of_event,
            "account": <char*>&of_event.account - <char*>&of_event,
            "market": <char*>&of_event.market - <char*>&of_event,
            "kind": <char*>&of_event.kind - <char*>&of_event,
            "slots": <char*>&of_event.slots - <char*>&of_event,
            "reason": <char*>&of_event.reason - <char*>&of_event,
            "op": <char*>&of_event.op - <char*>&of_event,
        },
        "PART": {
            "source": <char*>&of_part.source - <char*>&of_part,
            "asset": <char*>&of_part.asset - <char*>&of_part,
            "amount": <char*>&of_part.amount - <char*>&of_part,
            "target": <char*>&of_part.target - <char*>&of_part,
            "weight": <char*>&of_part.weight - <char*>&of_part,
            "leg": <char*>&of_part.leg - <char*>&of_part,
            "is_share": <char*>&of_part.is_share - <char*>&of_part,
        },
        "LEG": {
            "source": <char*>&of_leg.source - <char*>&of_leg,
            "asset": <char*>&of_leg.asset - <char*>&of_leg,
            "amount": <char*>&of_leg.amount - <char*>&of_leg,
            "target": <char*>&of_leg.target - <char*>&of_leg,
        },
    }


OFFSETS = _offsets()
SIZES = {
    "ASSET": sizeof(AssetRecord),
    "MARKET": sizeof(MarketRecord),
    "MARKET_EXTRA": sizeof(MarketTerms),
    "ACCOUNT": sizeof(AccountRecord),
    "ACCOUNT_EXTRA": sizeof(AccountExtra),
    "WITHDRAW": sizeof(DirectRecord),
    "TRANSFER": sizeof(TransferRecord),
    "POST": sizeof(PostRecord),
    "PLACE": sizeof(PlaceRecord),
    "CANCEL": sizeof(CancelRecord),
    "REPLACE": sizeof(ReplaceRecord),
    "MASS_CANCEL": sizeof(MassCancelRecord),
    "PHASE": sizeof(MarketOnlyRecord),
    "CANCEL_AFTER": sizeof(CancelAfterRecord),
    "POISON": sizeof(PoisonRecord),
    "MONEY_META": sizeof(MoneyMeta),
    "REF_SLOT": sizeof(RefSlot),
    "ACCEPTED": sizeof(AcceptedEvent),
    "REJECTED": sizeof(RejectedEvent),
    "DUPLICATE": sizeof(DuplicateEvent),
    "DONE_ASSET": sizeof(DoneAssetEvent),
    "DONE_MARKET": sizeof(DoneMarketEvent),
    "DONE_ACCOUNT": sizeof(DoneAccountEvent),
    "TRADE": sizeof(TradeEvent),
    "CANCELED": sizeof(CanceledEvent),
    "REPLACED": sizeof(ReplacedEvent),
    "TRIGGERED": sizeof(TriggeredEvent),
    "REFRESHED": sizeof(RefreshedEvent),
    "PHASE_CHANGED": sizeof(PhaseChangedEvent),
    "UNCROSSED": sizeof(UncrossedEvent),
    "PREVENTED": sizeof(PreventedEvent),
    "BALANCE": sizeof(BalanceEvent),
    "MONEY_EVENT": sizeof(MoneyEvent),
    "CUT": sizeof(CutEvent),
    "COMMAND": sizeof(Record),
    "EVENT": sizeof(Event),
    "PART": sizeof(Part),
    "LEG": sizeof(Leg),
    "Order": sizeof(Order),
    "OrderDetail": sizeof(OrderDetail),
    "Terms": sizeof(Terms),
    "Level": sizeof(Level),
    "IdNode": sizeof(IdNode),
}
NUMBERS = {
    "CommandKind": {
        "ASSET": DO_ASSET,
        "MARKET": DO_MARKET,
        "ACCOUNT": DO_ACCOUNT,
        "DEPOSIT": DO_DEPOSIT,
        "WITHDRAW": DO_WITHDRAW,
        "TRANSFER": DO_TRANSFER,
        "POST": DO_POST,
        "VOID": DO_VOID,
        "WITHDRAW_SETTLED": DO_WITHDRAW_SETTLED,
        "WITHDRAW_FAILED": DO_WITHDRAW_FAILED,
        "PLACE": DO_PLACE,
        "CANCEL": DO_CANCEL,
        "REPLACE": DO_REPLACE,
        "MASS_CANCEL": DO_MASS_CANCEL,
        "PHASE": DO_PHASE,
        "UNCROSS": DO_UNCROSS,
        "KILL": DO_KILL,
        "REARM": DO_REARM,
        "CANCEL_AFTER": DO_CANCEL_AFTER,
        "POISON": DO_POISON,
        "TICK": DO_TICK,
        "CUT": DO_CUT,
        "MALFORMED": DO_MALFORMED,
    },
    "EventKind": {
        "ACCEPTED": EV_ACCEPTED,
        "REJECTED": EV_REJECTED,
        "DUPLICATE": EV_DUPLICATE,
        "DONE": EV_DONE,
        "TRADE": EV_TRADE,
        "CANCELED": EV_CANCELED,
        "REPLACED": EV_REPLACED,
        "TRIGGERED": EV_TRIGGERED,
        "REFRESHED": EV_REFRESHED,
        "PREVENTED": EV_PREVENTED,
        "BALANCE": EV_BALANCE,
        "TRANSFERRED": EV_TRANSFERRED,
        "PENDED": EV_PENDED,
        "POSTED": EV_POSTED,
        "VOIDED": EV_VOIDED,
        "PHASE_CHANGED": EV_PHASE_CHANGED,
        "UNCROSSED": EV_UNCROSSED,
        "CUT": EV_CUT,
    },
    "CancelReason": {
        "USER": WHY_USER,
        "MASS": WHY_MASS,
        "IOC": WHY_IOC,
        "FOK": WHY_FOK,
        "MARKET": WHY_MARKET,
        "STP": WHY_STP,
        "EXPIRED": WHY_EXPIRED,
        "OCO": WHY_OCO,
        "KILLED": WHY_KILLED,
        "FROZEN": WHY_FROZEN,
        "CLOSED": WHY_CLOSED,
        "SESSION": WHY_SESSION,
        "BAND": WHY_BAND,
        "BUDGET": WHY_BUDGET,
        "FUNDS": WHY_FUNDS,
        "REPLACED": WHY_REPLACED,
        "FILLS_LIMIT": WHY_FILLS_LIMIT,
    },
    "Side": {
        "BUY": BUY,
        "SELL": SELL,
    },
    "Aggressor": {
        "BUY": BUY,
        "SELL": SELL,
        "NONE": AGGRESSOR_NONE,
    },
    "Phase": {
        "CONTINUOUS": CONTINUOUS,
        "PREOPEN": PREOPEN,
        "AUCTION": AUCTION,
        "CANCEL_ONLY": PHASE_CANCEL_ONLY,
        "HALT": HALT,
        "CLOSED": CLOSED,
    },
    "PhaseReason": {
        "COMMAND": BY_COMMAND,
        "UNCROSS": BY_UNCROSS,
        "BAND": BY_BAND,
        "PAUSE": BY_PAUSE,
    },
    "OrderType": {
        "LIMIT": LIMIT,
        "MARKET": MARKET_ORDER,
        "STOP": STOP,
        "STOP_LIMIT": STOP_LIMIT,
    },
    "TimeInForce": {
        "DEFAULT": TIF_DEFAULT,
        "GTC": GTC,
        "IOC": IOC,
        "FOK": FOK,
        "GTD": GTD,
    },
    "SelfTrade": {
        "CANCEL_NEWEST": CANCEL_NEWEST,
        "CANCEL_OLDEST": CANCEL_OLDEST,
        "CANCEL_BOTH": CANCEL_BOTH,
        "DECREMENT": DECREMENT,
        "NONE": STP_NONE,
    },
    "AccountStatus": {
        "ACTIVE": ACTIVE,
        "CANCEL_ONLY": CANCEL_ONLY,
        "FROZEN": FROZEN,
    },
    "Overdraft": {
        "NEVER": NEVER,
        "FORCED": FORCED,
        "OPEN": OPEN_OVERDRAFT,
    },
    "OrderStatus": {
        "WAITING": STATUS_WAITING,
        "OPEN": STATUS_OPEN,
        "FILLED": STATUS_FILLED,
        "CANCELED": STATUS_CANCELED,
    },
    "RefStatus": {
        "POSTED": REF_POSTED,
        "PENDING": REF_PENDING,
        "VOIDED": REF_VOIDED,
    },
    "RejectCode": {
        "BAD_REF": BAD_REF,
        "UNKNOWN_ACCOUNT": UNKNOWN_ACCOUNT,
        "DUPLICATE": DUPLICATE,
        "POISONED": POISONED,
        "UNKNOWN_MARKET": UNKNOWN_MARKET,
        "UNKNOWN_ASSET": UNKNOWN_ASSET,
        "FROZEN": REJECT_FROZEN,
        "CANCEL_ONLY": REJECT_CANCEL_ONLY,
        "KILLED": KILLED,
        "UNKNOWN_ORDER": UNKNOWN_ORDER,
        "PHASE": REJECT_PHASE,
        "BAD_VALUE": BAD_VALUE,
        "EXISTS": EXISTS,
        "BAD_TYPE": BAD_TYPE,
        "BAD_TIF": BAD_TIF,
        "BAD_PRICE": BAD_PRICE,
        "BAD_SIZE": BAD_SIZE,
        "BAD_DISPLAY": BAD_DISPLAY,
        "BAD_STOP": BAD_STOP,
        "BAD_AMOUNT": BAD_AMOUNT,
        "BAD_EXPIRY": BAD_EXPIRY,
        "BAND": BAND,
        "TOO_MANY_ORDERS": TOO_MANY_ORDERS,
        "BAD_OCO": BAD_OCO,
        "INSUFFICIENT_FUNDS": INSUFFICIENT_FUNDS,
        "WOULD_CROSS": WOULD_CROSS,
        "NO_LIQUIDITY": NO_LIQUIDITY,
        "CROSSED": CROSSED,
        "EXPIRED": EXPIRED,
        "BAD_ACCOUNT": BAD_ACCOUNT,
        "BAD_LEGS": BAD_LEGS,
        "TOO_LARGE": TOO_LARGE,
        "BUSY": BUSY,
        "MALFORMED": REJECT_MALFORMED,
    },
}
