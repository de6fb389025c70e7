from decimal import Decimal

from byline.genesis import TOKENS, genesis_commands
from byline.traders import ACCOUNT_COUNT, MAX_OPEN_PER_ACCOUNT, Crowd, funding_commands


def test_same_seed_gives_same_decisions():
    first, second = Crowd(3, "a"), Crowd(3, "a")
    assert [first.next_action() for _ in range(2000)] == [second.next_action() for _ in range(2000)]


def test_decisions_are_valid_commands_and_open_orders_stay_bounded():
    crowd = Crowd(5, "s")
    markets = {token.market: token for token in TOKENS}
    placed: dict[int, set[str]] = {number: set() for number in range(1, ACCOUNT_COUNT + 1)}
    seen = set()
    for _ in range(20_000):
        action = crowd.next_action()
        command = action.command
        if command["op"] == "cancel":
            placed[action.trader].remove(command["client_id"])
            continue
        assert command["client_id"] not in seen
        seen.add(command["client_id"])
        token = markets[command["market"]]
        assert Decimal(command["size"]) % Decimal(token.lot) == 0 and Decimal(command["size"]) > 0
        if "price" in command:
            assert Decimal(command["price"]) % Decimal(token.tick) == 0 and Decimal(command["price"]) > 0
        if command["type"] == "limit" and command.get("tif") != "ioc":
            placed[action.trader].add(command["client_id"])
        assert len(placed[action.trader]) <= MAX_OPEN_PER_ACCOUNT


def test_a_closed_order_is_never_canceled():
    crowd = Crowd(9, "s")
    for _ in range(3000):
        action = crowd.next_action()
        if action.command["op"] == "place":
            crowd.closed(action.trader, action.command["client_id"])
        assert action.command["op"] == "place"


def test_funding_has_one_ref_per_deposit_and_only_known_assets():
    deposits = [command for command in funding_commands() if command["op"] == "deposit"]
    assert len({command["ref"] for command in deposits}) == len(deposits) == ACCOUNT_COUNT * (1 + len(TOKENS))
    listed = {command["asset"] for command in genesis_commands() if command["op"] == "asset"}
    assert {command["asset"] for command in deposits} == listed


def test_no_order_trades_far_from_the_fair_price_whatever_the_book_holds():
    """A market order that found no makers took a bid of 0.01 in a market of 48."""
    crowd = Crowd(7, "s")
    start = {token.market: Decimal(token.start_price) for token in TOKENS}
    swept = 0
    for _ in range(20_000):
        command = crowd.next_action().command
        if command["op"] == "place":
            assert command["type"] == "limit"
            off = Decimal(command["price"]) / start[command["market"]] - 1
            taken = command.get("tif") == "ioc"
            swept += taken and abs(off) * start[command["market"]] > Decimal("0.1")
            # Who sells takes no bid below the order's own limit, who buys no ask above it.
            if taken or not command.get("post_only"):
                worst = off if command["side"] == "buy" else -off
                assert worst < Decimal("0.5"), command
    assert swept > 100
