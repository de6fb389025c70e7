"""The event log over many small files: everything comes back whole, from any sequence, after a cut and a rebuild."""

import random
from pathlib import Path

import numpy as np

from engine.messages import layout
from persistence.event_log import EventLogReader, EventLogWriter, log_state


def events(seq, n):
    e=np.zeros(n,layout.EVENT); e["kind"]=5; e["sequence"]=seq; e["index"]=np.arange(n); e["slots"]=1
    # an extension that looks like anything but a head
    if n>=4:
        e["slots"][n-3]=3; e[n-2:].view(np.uint8)[:]=seq%251
    return e


def test_every_event_comes_back_from_any_position(tmp_path: Path) -> None:
    root = tmp_path / "events"
    random.seed(1)
    w=EventLogWriter(root,b"i"*16,b"b"*16,file_slots=2048)
    r=EventLogReader(root)
    want = []
    got = []
    for s in range(1,20001):
        n=random.choice([0,1,1,2,5]) if s%3000 else 5000
        e=events(s,n)
    assert w.append(e.view(np.uint8) if n else b"",s)==0
        want.append(e)
        if s%7==0: w.publish(s)
        if s%100==0: got.append(r.read(random.choice([1,10,10000])))
    w.publish(20000)
    while True:
        a=r.read(777)
        if not len(a): break
        got.append(a)
    W=np.concatenate(want)
    G=np.concatenate(got)
    assert W.tobytes()==G.tobytes(), (len(W),len(G))
    for k in range(2000):
        a=random.randrange(0,20001)
        r.seek(a)
    x=r.read(1)
        nz=[s for s in range(a+1,min(a+40,20001)) if len(want[s-1])]
        if nz: assert x.tobytes().startswith(want[nz[0]-1].tobytes()),(a,nz[0])
    w.append(events(20001,5).view(np.uint8),20001)
    w.close()
    assert log_state(root) == (b'i' * 16, b'b' * 16, 2, 20000)
    w=EventLogWriter(root,b"i"*16,b"b"*16,keep_sequence=20000,file_slots=2048)
    b=np.concatenate([events(s,2) for s in range(20001,20050)])
    assert w.append_batch(b.view(np.uint8),20001,20060)==0
    r.seek(20000)
    assert r.read().tobytes()==b.tobytes()
    assert len(r.read())==0 and r.after_sequence==20060, r.after_sequence
    w.close()
    w=EventLogWriter(root,b"j"*16,b"b"*16,file_slots=2048)
    assert len(r.read())==0
    w.append_batch(b"",1,20060)
    w.append_batch(events(20061,3).view(np.uint8),20061,20061)
    assert len(r.read())==3
    w.close()
