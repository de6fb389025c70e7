"""The write to many sockets, and the versions on whose ways it relies."""

import socket
from array import array
from importlib.metadata import version

from marketdata.fan import Fan


def test_versions_that_tell_of_a_lost_connection_before_they_close_the_socket():
    assert version("picows") == "2.3.1" and version("aiofastnet") == "1.2.0"


def test_clear_slots_get_all_others_are_told():
    fan, pairs = Fan(), [socket.socketpair() for _ in range(4)]
    for near, far in pairs:
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        far.setblocking(False)
    slots = array("i", [fan.add(near.fileno()) for near, _ in pairs])
    fan.set_clear(slots[1], False)
    fan.remove(slots[2])
    assert fan.send(slots, b"abc", 0, 99) == [(1, 0)]
    assert pairs[0][1].recv(9) == b"abc" == pairs[3][1].recv(9)
    big = bytes(1 << 20)
    [(first, taken), (second, none)] = fan.send(slots, big, 0, 2)
    assert first == 0 and 0 < taken < len(big) and (second, none) == (1, 0)
    pairs[3][1].close()
    assert fan.send(slots, b"x", 3, 4) in ([], [(3, 0)])
    assert fan.send(slots, b"x", 3, 4) == [(3, 0)]  # a broken pipe is an answer, not a signal
    for near, far in pairs:
        near.close()
        far.close()


def test_slot_is_not_given_out_again_before_the_flush_is_over():
    fan = Fan()
    near, far = socket.socketpair()
    first = fan.add(near.fileno())
    fan.remove(first)
    second = fan.add(near.fileno())
    assert second != first
    fan.recycle()
    assert fan.add(near.fileno()) == first and fan.is_clear(first)
    assert [fan.add(near.fileno()) for _ in range(600)] == list(range(2, 602))
    near.close()
    far.close()
