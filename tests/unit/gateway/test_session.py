"""The session without any network: every transition, every refusal."""

import itertools
import json
from typing import Any

import pytest

import gateway.session
from byline.client import generate_key, public_key, sign_in_signature
from gateway.keys import ApiKey, Scope
from gateway.session import (
    TRANSITIONS,
    Ask,
    Close,
    CommandRefused,
    Event,
    IllegalTransition,
    Send,
    Session,
    SessionTerms,
    SignedIn,
    State,
    Submit,
)

KEY, OTHER = generate_key(), generate_key()


class Keys:
    def __init__(self, scopes: Scope = Scope.TRADE | Scope.READ) -> None:
        self.scopes = scopes

    def find(self, key: str) -> ApiKey | None:
        return ApiKey(key, ("alice", "house"), self.scopes, "") if key == public_key(KEY) else None


def encode(command: dict[str, Any]) -> bytes:
    if command.get("price") == "bad":
        raise CommandRefused("bad_price", "price", "a number")
    return json.dumps(command).encode()


def session(scopes: Scope = Scope.TRADE | Scope.READ, signed_in: bool = True) -> Session:
    nonces = (f"{n:064x}" for n in itertools.count(1))
    is_house = {"house"}.__contains__
    terms = SessionTerms("local", 1, Keys(scopes), encode, lambda: next(nonces), lambda: 5, is_house)
    made = Session(terms)
    hello = json.loads(made.connect()[0].payload)
    if signed_in:
        outputs = tell(made, sign_in(hello["nonce"]))
        assert isinstance(outputs[0], SignedIn)
    return made


def sign_in(signed: str, signer: Any = KEY, **changes: Any) -> dict[str, Any]:
    return {
        "op": "sign_in",
        "key": public_key(signer),
        "signature": sign_in_signature(signer, "local", 1, signed),
        "nonce": signed,
    } | changes


def tell(made: Session, value: Any) -> list[Any]:
    return list(made.receive(1, value if isinstance(value, bytes) else json.dumps(value).encode()))


def errors(outputs: list[Any]) -> list[dict[str, Any]]:
    bodies = [json.loads(output.payload) for output in outputs if isinstance(output, Send)]
    return [body for body in bodies if body.get("type") == "error"]


@pytest.mark.parametrize(
    ("state", "event"), [pair for pair in itertools.product(State, Event) if pair not in TRANSITIONS]
)
def test_illegal_event_raises_and_changes_nothing(state: State, event: Event) -> None:
    made = session(signed_in=False)
    made.state = state
    with pytest.raises(IllegalTransition):
        made._move(event)
    assert made.state is state


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signature": "00" * 64}, "bad_signature"),
        ({"signature": 5}, "malformed"),
        ({"key": public_key(OTHER)}, "bad_signature"),
        ({"nonce": f"{9:064x}"}, "nonce_used"),
    ],
)
def test_bad_sign_in_is_named_and_spends_the_nonce(changes: dict[str, Any], code: str) -> None:
    made = session(signed_in=False)
    outputs = tell(made, sign_in(f"{1:064x}", **changes))
    assert errors(outputs)[0]["code"] == code
    assert json.loads(outputs[-1].payload)["nonce"] == f"{2:064x}"
    assert errors(tell(made, sign_in(f"{1:064x}")))[0]["code"] == "nonce_used"
    assert made.state is State.GREETED


def test_replayed_signature_of_an_older_nonce_fails() -> None:
    made = session(signed_in=False)
    tell(made, sign_in(f"{1:064x}", signer=OTHER))
    replay = sign_in(f"{1:064x}")
    del replay["nonce"]
    assert errors(tell(made, replay))[0]["code"] == "bad_signature"


def test_f71_no_answer_and_no_work_tells_which_keys_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong signature under a living key, and under one that nobody has; a right one under one that nobody has."""
    work: list[list[str]] = []
    real = gateway.session.verify_sign_in

    def verify(key: str, signature: str, message: bytes) -> bool:
        work[-1].append(f"verify {len(key)} {len(signature)} {message!r}")
        return real(key, signature, message)

    monkeypatch.setattr(gateway.session, "verify_sign_in", verify)
    told = []
    for named, signer in ((KEY, OTHER), (OTHER, KEY), (OTHER, OTHER)):
        work.append([])
        made = session(signed_in=False)
        attempts = [sign_in(f"{number:064x}", signer, key=public_key(named)) for number in (1, 2, 3)]
        told.append([tell(made, attempt) for attempt in attempts])
    assert told[0] == told[1] == told[2] and errors(told[0][0])[0]["code"] == "bad_signature"
    assert work[0] == work[1] == work[2] and len(work[0]) == 3, "one of each attempt, and the same"


def test_third_failure_ends_the_session() -> None:
    made = session(signed_in=False)
    for _ in range(2):
        tell(made, sign_in("0", signer=OTHER))
    outputs = tell(made, sign_in("0", signer=OTHER))
    assert outputs[-1] == Close(1008, "too many failed sign-ins")
    assert tell(made, {"op": "ping"}) == []


def test_commands_before_sign_in_are_refused() -> None:
    made = session(signed_in=False)
    assert errors(tell(made, {"op": "place", "rid": 1}))[0] == {
        "rid": 1, "type": "error", "code": "not_signed_in", "field": "op", "message": "sign in first",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (b'{"rid":7,"op":"place","price":1.0}', ["price"]),
        (b'{"rid":7,"op":"quote","quote_id":"q","bid":{"price":"1","size":2e1}}', ["bid.size"]),
        (b'{"rid":7,"op":"transfer","ref":"r","legs":[{"amount":"1"},{"amount":0.5}]}', ["legs.amount"]),
        (b'[{"op":"open_orders"},{"rid":7,"op":"place","price":0.1},{"op":"balances"}]', ["price"]),
    ],
)
def test_a_number_that_is_not_whole_is_named_and_refuses_its_own_command_alone(frame: bytes, fields: list[str]) -> None:
    outputs = tell(session(), frame)
    found = errors(outputs)
    assert [(error["rid"], error["code"], error["field"]) for error in found] == [(7, "malformed", *fields)]
    assert "whole" in found[0]["rule"]
    if frame.startswith(b"["):
        assert [output.what for output in outputs if isinstance(output, Ask)] == ["open_orders", "balances"]


def test_an_empty_array_and_an_item_that_is_no_object_are_answered() -> None:
    assert [error["code"] for error in errors(tell(session(), b"[]"))] == ["bad_json"]
    [error] = errors(tell(session(), b'[{"op":"open_orders"},5]'))
    assert (error["code"], error["field"], error["rule"]) == ("bad_json", "[1]", "an object")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", "bad_json"), (b"7", "bad_json"),
        (b'{"op":"place","op":"cancel"}', "bad_json"), (b'{"size":NaN}', "bad_json"),
        (b'{"op":"place","price":1.5}', "malformed"),
        (b'{"op":"place","\\ud800":1}', "bad_json"), (b'{"op":"open_orders","account":"\\uDFFF"}', "bad_json"),
        (b'{"op":"transfer","legs":[{"to":{"\\ud83d":[]}}]}', "bad_json"), (b'{"op":"\\ud83d\\ude00"}', "unknown_op"),
        (b"[" * 60_000, "bad_json"), (b'{"n":' + b"9" * 5000 + b"}", "bad_json"),
        (b"{}", "malformed"), (b'{"op":7}', "malformed"),
        (b'{"op":"fly"}', "unknown_op"), (b'{"op":"tick"}', "forbidden"),
        (b'{"op":"cut"}', "forbidden"), (b'{"op":"place","rid":-1}', "bad_rid"),
        (b'{"op":"place","rid":"a\\"b"}', "bad_rid"),
        (b'{"op":"place","price":"bad"}', "bad_price"), (b'{"op":"status"}', "forbidden"),
        (b"[" + b",".join([b"{}"] * 1001) + b"]", "too_many_commands"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_named_and_never_submitted(payload: bytes, code: str) -> None:
    outputs = tell(session(), payload)
    assert errors(outputs)[0]["code"] == code
    assert not [output for output in outputs if isinstance(output, Submit)]


@pytest.mark.parametrize(
    ("arguments", "options", "code"),
    [
        ((2, b"x"), {}, 1003), ((0, b"x"), {}, 1002), ((2, b"x"), {"is_final": False}, 1003),
        ((1, b"{}"), {"has_reserved_bits": True}, 1002), ((1, b"\xff{}"), {}, 1007),
    ],
)  # fmt: skip
def test_protocol_faults_close_with_their_code(
    arguments: tuple[int, bytes], options: dict[str, bool], code: int
) -> None:
    made = session()
    outputs = list(made.receive(*arguments, **options))
    assert isinstance(outputs[-1], Close) and outputs[-1].code == code
    assert tell(made, {"op": "place"}) == []


def test_each_command_of_an_array_is_answered_for_itself() -> None:
    outputs = tell(session(), [{"op": "place", "rid": 1}, 5, {"op": "fly", "rid": 2}, {"op": "cancel", "rid": 3}])
    assert [type(output).__name__ for output in outputs] == ["Submit", "Send", "Send", "Submit"]
    assert json.loads(outputs[0].record)["account"] == "alice"
    assert [outputs[0].is_cancel, outputs[3].is_cancel] == [False, True]


@pytest.mark.parametrize(
    ("scopes", "command", "allowed"),
    [
        (Scope.TRADE, {"op": "place", "account": "bob"}, False),
        (Scope.TRADE, {"op": "mass_cancel"}, True),
        (Scope.TRADE, {"op": "mass_cancel", "account": "bob"}, False),
        (Scope.TRADE, {"op": "withdraw"}, False),
        (Scope.TRADE, {"op": "deposit", "account": "alice"}, False),
        (Scope.TRADE, {"op": "kill", "account": "bob"}, False),
        (Scope.TRADE, {"op": "kill"}, True),
        (Scope.TRADE, {"op": "rearm"}, True),
        (Scope.TRADE, {"op": "poison"}, True),
        (Scope.TRADE, {"op": "cancel_after", "at": 5}, True),
        (Scope.TRADE, {"op": "rearm", "account": "bob"}, False),
        (Scope.TRADE, {"op": "poison", "account": "bob"}, False),
        (Scope.TRADE, {"op": "phase"}, False),
        (Scope.TRADE, {"op": "uncross"}, False),
        (Scope.CANCEL_ONLY, {"op": "kill"}, True),
        (Scope.CANCEL_ONLY, {"op": "cancel_after", "at": 5}, True),
        (Scope.CANCEL_ONLY, {"op": "rearm"}, False),
        (Scope.CANCEL_ONLY, {"op": "poison"}, False),
        (Scope.OPERATOR, {"op": "uncross"}, True),
        (Scope.CANCEL_ONLY, {"op": "cancel"}, True),
        (Scope.CANCEL_ONLY, {"op": "place"}, False),
        (Scope.READ, {"op": "cancel"}, False),
        (Scope.WITHDRAW, {"op": "withdraw"}, True),
        (Scope.WITHDRAW, {"op": "withdraw", "force": True}, False),
        (Scope.TRANSFER, {"op": "transfer", "legs": [{"from": "alice", "to": "bob"}]}, True),
        (Scope.TRANSFER, {"op": "transfer", "legs": [{"from": "bob", "to": "alice"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "legs": [{"from": "alice", "to": "system:fees"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "from": "bob", "shares": []}, False),
        (Scope.TRANSFER, {"op": "transfer", "legs": [{"from": "alice", "to": "house"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "legs": [{"from": "house", "to": "alice"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "from": "alice", "shares": [{"to": "bob"}, {"to": "house"}]}, False),
        (Scope.WITHDRAW, {"op": "withdraw", "account": "house"}, False),
        (Scope.WITHDRAW, {"op": "withdraw", "place": "house"}, False),
        (Scope.WITHDRAW, {"op": "withdraw", "ref": "wd:1"}, False),
        (Scope.TRANSFER, {"op": "transfer", "ref": "exit:D:0", "legs": [{"from": "alice", "to": "bob"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "ref": "dep:sui:D:0", "legs": [{"from": "alice", "to": "bob"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "ref": "launch:I:mint", "legs": [{"from": "alice", "to": "bob"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "ref": "lic:I", "legs": [{"from": "alice", "to": "bob"}]}, False),
        (Scope.TRANSFER, {"op": "transfer", "ref": "cover:I", "legs": [{"from": "alice", "to": "bob"}]}, False),
        (Scope.OPERATOR, {"op": "transfer", "ref": "dep:sui:D:0", "legs": [{"from": "alice", "to": "bob"}]}, True),
        (Scope.OPERATOR, {"op": "deposit", "account": "bob"}, True),
    ],
)
def test_f70_scopes_decide_which_commands_pass(scopes: Scope, command: dict[str, Any], allowed: bool) -> None:
    outputs = tell(session(scopes), command)
    assert isinstance(outputs[0], Submit) is allowed
    if not allowed:
        assert errors(outputs)[0]["code"] == "forbidden"
