"""Histograms of the stages, and what /metrics makes of them."""

import json

from prometheus_client.parser import text_string_to_metric_families

from marketdata.stages import BOUNDS_US, STAGES, Stages
from platform_api.metrics import Metrics


class Told:
    def __init__(self, stages):
        self.stages = stages

    def read(self):
        told = json.loads(json.dumps(self.stages.told()))
        return {"marketdata": {"ready": True, "alive": True, "lag": 3, "stages": told}}


def test_quantiles_are_bounds_and_what_is_beyond_the_last_is_told():
    stages = Stages()
    histogram = stages.histograms["flush"]
    assert histogram.quantile_us(0.5) is None
    for microseconds in (0, 16, 17, 900, 900, 900, 900, 900, 5_000, 10**9):
        histogram.observe(microseconds / 1e6)
    stages.observe("flush", -5.0)  # clocks that do not agree
    assert histogram.count == 11 and sum(histogram.counts) == 11
    assert histogram.quantile_us(0.5) == 1024 and histogram.quantile_us(0.99) == -1
    assert histogram.counts[0] == 3 and histogram.counts[-1] == 1


def test_metrics_are_a_histogram_that_prometheus_reads():
    stages = Stages()
    for microseconds in (10, 20, 700, 10**9):
        stages.observe("write", microseconds / 1e6)
    families = {family.name: family for family in text_string_to_metric_families(Metrics(Told(stages)).text().decode())}
    family = families["byline_marketdata_stage_seconds"]
    assert family.type == "histogram" and families["byline_marketdata_lag"].samples[0].value == 3
    samples = {
        (s.name.removeprefix(family.name), s.labels["stage"], s.labels.get("le")): s.value for s in family.samples
    }
    assert {stage for _, stage, _ in samples} == set(STAGES)
    assert samples["_count", "write", None] == 4 == samples["_bucket", "write", "+Inf"]
    assert samples["_bucket", "write", "1.6e-05"] == 1 and samples["_bucket", "write", "3.2e-05"] == 2
    assert samples["_bucket", "write", str(BOUNDS_US[-1] / 1e6)] == 3
    assert abs(samples["_sum", "write", None] - 1000.00073) < 1e-3 and samples["_count", "read", None] == 0
