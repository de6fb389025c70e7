"""Token buckets against a model that counts tokens, and the judgement of records."""

from __future__ import annotations

import random

import pytest

from gateway.guard import Allowance


def test_a_bucket_equals_a_model_that_counts() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        most, per_ns = chance.choice([1, 3, 100]), chance.choice([60_000_000_000, 1_000, 700])
        each = per_ns // most
        bucket = Allowance("t", most, 0, per_ns)
        now, tokens_ns = 10**18, most * each  # tokens × each
        for _ in range(2_000):
            passed = chance.choice([0, 1, each // 2, each, each * 3, per_ns * 2])
            now += passed
            tokens_ns = min(most * each, tokens_ns + passed)
            assert bucket.requests_left(now) == tokens_ns // each
            if chance.random() < 0.1:
                bucket.refund()
                tokens_ns = min(most * each, tokens_ns + each)
            else:
                taken = bucket.take_request(now)
                assert taken == (tokens_ns >= each)
                tokens_ns -= each * taken


def test_no_limit_is_no_limit() -> None:
    free = Allowance("free", 0, 0, 1)
    assert all(free.take_request(0) and free.take_message(0) for _ in range(10_000))
    assert free.requests_left(0) is None and free.messages_left(0) is None


def test_a_limit_beyond_the_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="nanosecond"):
        Allowance("t", 2_000, 0, 1_000)
