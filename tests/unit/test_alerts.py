"""ops/alerts.yml: each alert is told past its threshold and only there, and the runbook has its row.

`tests/integration/test_exchange.py` holds every series that is asked for to what a running exchange tells.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promql import Labels, Samples, evaluate, read, seconds

ROOT = Path(__file__).parents[2]
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "ops" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
}  # fmt: skip
STEP_S = 15
END_S = 1_500
Series = Mapping[str, str]
"""Names with labels, and values as promtool reads them: `a+bxn` is a, and n more, each b above the one before."""


def steady(value: float) -> str:
    return f"{value}+0x100"


def growing(by: float) -> str:
    return f"0+{by}x100"


def buckets(name: str, *counts: tuple[str, float]) -> Series:
    """`name` up to `le=`; each bucket with what it grows by."""
    return {f'{name}le="{bound}"}}': growing(count) for bound, count in counts}


FAILED, COMPLETED = (f'platform_events_total{{type="payment.{what}"}}' for what in ("failed", "completed"))
SLOW, ORDERS = "http_request_duration_seconds_bucket{", 'byline_core_stage_seconds_bucket{stage="out",'
LOOP = "event_loop_lag_seconds_bucket{"
ANSWERED, REFUSED = (f'http_requests_total{{method="GET",route="/v1/works",status="{code}"}}' for code in (200, 503))
PENDING, DURABLE = "byline_core_pending", "byline_core_durable_sequence"


def of(name: str, fires: float, *quiet: float) -> list[Series]:
    return [{name: steady(value)} for value in (fires, *quiet)]


CASES: dict[str, list[Series]] = {
    "ExchangeNotSeen": [{'byline_process_up{process="api"}': steady(1)}, *of('byline_process_up{process="core"}', 0)],
    "CoreDown": [*of('byline_process_up{process="core"}', 0, 1), *of('byline_process_up{process="chain"}', 0)],
    "JournalFailed": of("byline_core_journal_errno", 5, 0),
    "JournalFull": of("byline_core_journal_full", 1, 0),
    "JournalStalls": [
        {PENDING: steady(1), DURABLE: steady(1_000)}, {PENDING: steady(1), DURABLE: growing(1)},
        {PENDING: steady(0), DURABLE: steady(1_000)},
    ],
    "ErrorRate": [{ANSWERED: growing(94), REFUSED: growing(6)}, {ANSWERED: growing(96), REFUSED: growing(4)}],
    "SlowAnswers": [
        buckets(SLOW, ("1.0", 90), ("2.0", 94), ("5.0", 100), ("+Inf", 100)),
        buckets(SLOW, ("1.0", 90), ("2.0", 96), ("5.0", 100), ("+Inf", 100)),
    ],
    "PaymentsFail": [
        {FAILED: growing(1), COMPLETED: growing(3)}, {FAILED: growing(1), COMPLETED: growing(5)},
        {FAILED: "0+0x80 1+0x20", COMPLETED: steady(7)},
    ],
    "PaymentJobsFailed": [
        *of('jobs{queue="payments",state="failed"}', 1, 0), *of('jobs{queue="notifications",state="failed"}', 1),
    ],
    "MoneyStuck": [*of('money_commands{state="stuck"}', 1, 0), *of('money_commands{state="ordered"}', 9)],
    "BooksDiffer": of("books_differ", 1, 0),
    "RegistryUnavailable": of("registry_available", 0, 1),
    "ChainUnavailable": of("chain_available", 0, 1),
    "SettlementHalted": of("settlement_halted", 1, 0),
    "SettlementStands": of("settlement_lag_seconds", 3_601, 3_600),
    "SettlementLags": of("settlement_lag_seconds", 61, 60),
    "ProcessDown": [*of('byline_process_up{process="chain"}', 0, 1), *of('byline_process_up{process="core"}', 0)],
    "ProcessSilent": of('byline_process_silent_seconds{process="core"}', 31, 30),
    "BackupAway": of("byline_backup_reachable", 0, 1),
    "BackupLags": of("byline_backup_recovery_point_s", 1.1, 1),
    "DiskAlmostFull": of("byline_api_disk_free_bytes", 2**30 - 1, 2**30),
    "DiskFills": [
        {"byline_api_disk_free_bytes": steady(free), "byline_api_disk_bytes": steady(1_000)} for free in (99, 101)
    ],
    "OrdersQueue": [
        buckets(ORDERS, ("0.131072", 90), ("0.262144", 98), ("0.524288", 100), ("+Inf", 100)),
        buckets(ORDERS, ("0.131072", 199), ("0.262144", 200), ("0.524288", 200), ("+Inf", 200)),
    ],
    "OrdersRefusedBusy": [{"byline_core_refused_busy_total": growing(count)} for count in (1.1 * STEP_S, 14)],
    "LoopLate": [buckets(LOOP, ("0.2", 98), ("0.5", 100), ("+Inf", 100)),
                 buckets(LOOP, ("0.2", 199), ("0.5", 200), ("+Inf", 200))],
    "EventsWait": of("outbox_delay_seconds", 61, 60),
    "EventsGivenUp": [*of('outbox_events{state="failed"}', 1, 0), *of('outbox_events{state="waiting"}', 9)],
    "JobsWait": of('job_delay_seconds{queue="notifications"}', 121, 120),
    "JobsFailed": [
        *of('jobs{queue="notifications",state="failed"}', 1, 0), *of('jobs{queue="notifications",state="queued"}', 1),
    ],
    "ProjectionLags": of("projection_lag_seq", 10_001, 10_000),
    "FeedsLag": of("byline_marketdata_lag", 10_001, 10_000),
    "AccountsFill": [
        {"byline_core_accounts": steady(count), "byline_core_accounts_max": steady(100)} for count in (71, 69)
    ],
    "RefsFill": [{"byline_core_refs": steady(count), "byline_core_refs_max": steady(100)} for count in (71, 69)],
}  # fmt: skip
"""Of each alert, series that fire it and then such that do not."""


def samples(series: Series) -> Samples:
    found = {}
    for name, notation in series.items():
        values: list[float] = []
        for part in notation.split():
            first, step, more = map(float, re.fullmatch(r"([\d.]+)\+([\d.]+)x(\d+)", part).groups())
            values += [first + step * index for index in range(int(more) + 1)]
        labels = frozenset(re.findall(r'(\w+)="([^"]*)"', name))
        found[name.partition("{")[0], labels] = [(index * STEP_S, value) for index, value in enumerate(values)]
    return found


def told(alert: str, series: Series, at: int) -> set[Labels]:
    """The labels with which the alert fires at that time: its condition has held at each look for as long as it
    waits."""
    tree, waits, given = read(RULES[alert]["expr"]), seconds(RULES[alert].get("for", "0s")), samples(series)
    looks = range(max(0, int(at - waits)), at + 1, STEP_S)
    held = [set(evaluate(tree, given, look)) for look in looks if at >= waits]
    return set.intersection(*held) if held else set()


def test_each_alert_has_its_cases() -> None:
    assert list(CASES) == list(RULES)


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_is_told_past_its_threshold_for_as_long_as_it_waits_and_only_there(alert: str) -> None:
    fires, *quiet = CASES[alert]
    assert len(told(alert, fires, END_S)) == 1
    assert quiet and [told(alert, series, END_S) for series in quiet] == [set()] * len(quiet)
    if "for" in RULES[alert]:
        assert told(alert, fires, int(seconds(RULES[alert]["for"])) - STEP_S) == set()


def test_the_numbers_and_severities_that_were_agreed() -> None:
    agreed = {"ErrorRate": "immediate", "SlowAnswers": "warning", "PaymentsFail": "critical", "MoneyStuck": "critical",
              "RegistryUnavailable": "urgent", "ChainUnavailable": "urgent"}  # fmt: skip
    assert {alert: RULES[alert]["labels"]["severity"] for alert in agreed} == agreed
    assert RULES["ErrorRate"]["expr"].endswith("> 0.05") and RULES["SlowAnswers"]["expr"].endswith("> 2")
    assert {rule["labels"]["severity"] for rule in RULES.values()} == {"immediate", "critical", "urgent", "warning"}


def test_each_alert_points_to_its_row_of_the_runbook_and_each_row_is_of_an_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| (\w+) \| ', page, re.MULTILINE)
    assert rows == [(name.lower(), name, rule["labels"]["severity"]) for name, rule in RULES.items()]
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


@pytest.mark.parametrize("wrong", ["up[", "rate(up[5x])", "avg(up)", "up >", "(up", "up up", "rate(up[5m]", "up{a~b}"])
def test_what_the_evaluator_does_not_know_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        tree = read(wrong)
        evaluate(tree, {("up", frozenset()): [(0, 1.0), (15, 1.0)]}, 15)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not on this machine")
def test_promtool_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text((ROOT / "ops" / "alerts.yml").read_text())
    tests: list[tuple[set[str], dict[str, Any]]] = []
    for alert, series in ((alert, series) for alert, cases in CASES.items() for series in cases):
        names = {name.partition("{")[0] for name in series}
        if all(names & taken for taken, _ in tests):  # a test has a database of its own, which costs: few of them
            tests.append((set(), {"interval": f"{STEP_S}s", "input_series": [], "alert_rule_test": []}))
        taken, test = next(test for test in tests if not names & test[0])
        taken |= names
        test["input_series"] += [{"series": name, "values": values} for name, values in series.items()]
        expected = [as_promtool(RULES[alert], labels) for labels in told(alert, series, END_S)]
        asked = {"eval_time": f"{END_S}s", "alertname": alert, "exp_alerts": expected}
        test["alert_rule_test"].append(asked)
    file = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test for _, test in tests]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(file))
    done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def as_promtool(rule: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    of = dict(labels)
    notes = {name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: of[match[1]], text)
             for name, text in rule["annotations"].items()}  # fmt: skip
    return {"exp_labels": of | rule["labels"], "exp_annotations": notes}
