"""The smoke size of the core's bench: all five workloads against the generator's reference book."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import bench_engine, workload


def test_smoke_run_agrees_with_the_reference_book() -> None:
    rows = bench_engine.run(smoke=True, seed=20260801)
    assert {row.case.split()[0] for row in rows} == {"W1", "W2", "W3", "W4", "W5"}


def test_workload_file_reads_back(tmp_path: Path) -> None:
    made = workload.generate("W3", smoke=True)
    workload.write(tmp_path / "w3.lobw", made)
    preload, records = workload.read(tmp_path / "w3.lobw")
    assert preload == made.preload and np.array_equal(records, made.records)
    (tmp_path / "short.lobw").write_bytes((tmp_path / "w3.lobw").read_bytes()[:-1])
    with pytest.raises(ValueError, match="header"):
        workload.read(tmp_path / "short.lobw")
