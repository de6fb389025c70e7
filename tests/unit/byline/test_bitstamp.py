import gzip

import pytest

from byline.feed import bitstamp
from engine.messages.errors import PartMissing

ROWS = """id,timestamp,exchange_timestamp,price,volume,action,direction
1,0,0,78318.0,1.53453667,created,bid
2,0,0,78320.0,1e-08,created,ask
3,0,0,39999.0,1.0,created,bid
4,0,0,78319.0,0.0,created,bid
1,1,1,78318.0,1.0,changed,bid
1,2,2,78317.0,0.9,changed,bid
2,3,3,78320.0,0.0,deleted,ask
3,3,3,39999.0,0.0,deleted,bid
1,4,4,78317.0,0.0,deleted,bid
1,5,5,78317.0,0.0,deleted,bid
"""


def test_conversion_follows_its_rule(tmp_path):
    capture = tmp_path / "c.csv.gz"
    capture.write_bytes(gzip.compress(ROWS.encode()))
    commands = [(c.op, c.client_id, c.side, c.price, c.size) for c in bitstamp.convert(capture)]
    assert commands == [
        ("place", "1.0", "buy", "78318", "1.53453667"),
        ("place", "2.0", "sell", "78320", "0.00000001"),
        ("cancel", "1.0", "", "", ""),
        ("place", "1.1", "buy", "78317", "0.9"),
        ("cancel", "2.0", "", "", ""),
        ("cancel", "1.1", "", "", ""),
    ]


def test_a_file_with_another_digest_is_not_taken(tmp_path, monkeypatch):
    target = tmp_path / "bitstamp-btcusd-2026-05-02.csv.gz"
    target.write_bytes(gzip.compress(ROWS.encode()))
    monkeypatch.setattr(bitstamp, "PACKAGE", "ob-analytics==0.0.0.nothing")
    with pytest.raises(PartMissing, match="cannot download"):
        bitstamp.fetch_capture(tmp_path)
