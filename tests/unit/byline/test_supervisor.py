"""The supervisor with real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byline.status_file import read_all_statuses, read_status
from byline.supervisor import Child, ChildFailed, Supervisor
from tests.support.waiting import has_ended, until

ROOT = Path(__file__).parents[3]
CHILD = """
import signal, sys, time
from pathlib import Path
from byline.status_file import StatusFile
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
exec(sys.argv[4])
StatusFile(Path(sys.argv[1]), sys.argv[2]).write(ready=True, answer=42)
exec(sys.argv[3])
time.sleep(600)
"""


def child(directory: Path, name: str, then: str = "", before: str = "") -> Child:
    return Child(name, [sys.executable, "-c", CHILD, str(directory), name, then, before], {"PYTHONPATH": str(ROOT)})


async def test_children_become_ready_and_stop_in_reverse_order(tmp_path):
    supervisor = Supervisor(tmp_path)
    note = f"import atexit; atexit.register(lambda: open({str(tmp_path / 'order')!r}, 'a').write(sys.argv[2]))"
    await supervisor.start(child(tmp_path, "a", before=note))
    await supervisor.start_together(child(tmp_path, "b", before=note))
    assert read_status(tmp_path, "a")["answer"] == 42
    assert all(status["alive"] for status in read_all_statuses(tmp_path).values())
    await supervisor.stop()
    assert (tmp_path / "order").read_text() == "ba"


async def test_a_killed_child_is_restarted_and_others_are_left_alone(tmp_path):
    supervisor = Supervisor(tmp_path)
    await supervisor.start_together(child(tmp_path, "a"), child(tmp_path, "b"))
    watching = asyncio.create_task(supervisor.watch())
    first, other = supervisor.children["a"].pid, supervisor.children["b"].pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.children["a"].restarts == 1 and supervisor.children["a"].state == "running")
    assert supervisor.children["a"].pid != first
    assert supervisor.children["b"].pid == other
    await supervisor.stop()
    await watching


async def test_status_three_is_never_restarted(tmp_path):
    supervisor = Supervisor(tmp_path)
    await supervisor.start(child(tmp_path, "a", "time.sleep(0.2); print('journal corrupt', flush=True); sys.exit(3)"))
    watching = asyncio.create_task(supervisor.watch())
    await until(supervisor.failed)
    assert supervisor.children["a"].restarts == 0
    assert "journal corrupt" in supervisor.log_tail("a")
    await supervisor.stop()
    await watching


async def test_a_child_that_ends_before_it_is_ready_is_an_error_with_its_log(tmp_path):
    supervisor = Supervisor(tmp_path)
    with pytest.raises(ChildFailed, match="no such thing"):
        await supervisor.start(Child("a", [sys.executable, "-c", "raise SystemExit('no such thing')"]))
    await supervisor.stop()


async def test_a_child_that_recovers_is_waited_for_as_long_as_it_gets_on(tmp_path):
    supervisor = Supervisor(tmp_path)
    tell = "StatusFile(Path(sys.argv[1]), sys.argv[2]).write(ready=False, recovered_sequence={})"
    steps = f"for step in range(16): time.sleep(0.5); {tell.format('step + 1')}"
    slow = child(tmp_path, "slow", before=steps)
    slow.ready_timeout_s = 5.0
    await supervisor.start(slow)
    stuck = child(tmp_path, "stuck", before=f"{tell.format(7)}\nwhile True: time.sleep(0.5); {tell.format(7)}")
    stuck.ready_timeout_s = 5.0
    with pytest.raises(ChildFailed, match="stuck was not ready after 5 s"):
        await supervisor.start(stuck)
    await supervisor.stop()


async def test_children_die_with_a_killed_supervisor(tmp_path):
    script = (
        "import asyncio, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.unit.byline.test_supervisor import child\n"
        "from byline.supervisor import Supervisor\n"
        "async def main():\n"
        "    s = Supervisor(Path(sys.argv[1])); await s.start(child(Path(sys.argv[1]), 'a'))\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(ROOT)], cwd=ROOT)
    await until(lambda: (read_status(tmp_path, "a") or {}).get("ready"))
    pid = read_status(tmp_path, "a")["pid"]
    process.kill()
    process.wait()
    await until(lambda: has_ended(pid), what="the child to end after its supervisor")
