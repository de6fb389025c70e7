"""The supervisor with real child processes."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byline import operator
from byline.request_file import RequestFile
from byline.settings import load_settings
from byline.status_file import StatusFile, read_all_statuses, read_status
from byline.supervisor import Child, ChildFailed, Supervisor
from engine.messages.errors import Refused
from tests.support.waiting import has_ended, until

ROOT = Path(__file__).parents[3]
CHILD = """
import signal, sys, time
from pathlib import Path
from byline.request_file import RequestFile
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


async def test_what_cannot_be_started_for_want_of_memory_is_tried_again(tmp_path, monkeypatch):
    """As a fork that the kernel refuses: there is no process then that could die."""
    supervisor = Supervisor(tmp_path)
    await supervisor.start(child(tmp_path, "a"))
    watching = asyncio.create_task(supervisor.watch())
    refusals, real = [OSError(errno.EAGAIN, "no process"), OSError(errno.ENOMEM, "no memory")], subprocess.Popen

    def popen(*arguments, **more):
        if refusals:
            raise refusals.pop()
        return real(*arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", popen)
    os.kill(supervisor.children["a"].pid, signal.SIGKILL)
    await until(lambda: supervisor.children["a"].restarts == 3 and supervisor.children["a"].state == "running")
    assert not refusals and read_all_statuses(tmp_path)["a"]["alive"]
    await supervisor.stop()
    await watching


async def test_a_moment_without_descriptors_ends_no_watch(tmp_path, monkeypatch, caplog):
    supervisor = Supervisor(tmp_path)
    await supervisor.start(child(tmp_path, "a"))

    def none_left(path, **more):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", none_left)
        watching = asyncio.create_task(supervisor.watch())
        await until(lambda: "event=not_looked_after process=a" in caplog.text)
        assert "Too many open files" in supervisor.log_tail("a")
    os.kill(supervisor.children["a"].pid, signal.SIGKILL)
    await until(lambda: supervisor.children["a"].restarts == 1 and supervisor.children["a"].state == "running")
    await supervisor.stop()
    await watching


async def test_one_that_dies_again_and_again_is_tried_for_ever_with_longer_pauses(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("byline.supervisor.BACKOFF_S", (0.0, 0.01, 0.02))
    monkeypatch.setattr("byline.supervisor.TOLD_S", 0.02)
    supervisor, lacks = Supervisor(tmp_path), tmp_path / "no space"
    await supervisor.start(child(tmp_path, "a", before=f"sys.exit(1) if Path({str(lacks)!r}).exists() else 0"))
    watching = asyncio.create_task(supervisor.watch())
    lacks.touch()
    os.kill(supervisor.children["a"].pid, signal.SIGKILL)
    await until(lambda: supervisor.children["a"].restarts >= 10)
    assert not supervisor.failed() and "event=dies_again process=a" in caplog.text
    lacks.unlink()
    one = supervisor.children["a"]
    await until(lambda: one.state == "running" and one.pid)
    await supervisor.stop()
    await watching


async def test_an_operator_starts_one_again_that_stayed_down_and_one_that_runs(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.touch()
    supervisor = Supervisor(tmp_path)
    is_broken = f"sys.exit(3) if Path({str(broken)!r}).exists() else 0"
    await supervisor.start_if_it_can(child(tmp_path, "a", before=is_broken))
    assert [one.name for one in supervisor.failed()] == ["a"], "and nothing is raised: the others go on"
    watching = asyncio.create_task(supervisor.watch())
    asked = RequestFile(tmp_path, "restart-a")
    (tmp_path / "run").mkdir(exist_ok=True)

    async def restart():
        return await asyncio.to_thread(asked.ask, "", wait_s=30.0, unanswered="nobody answers")

    (tmp_path / "journal").mkdir()
    StatusFile(tmp_path, "earlier").write(ready=True)
    settings = load_settings({}, data_directory=tmp_path)
    monkeypatch.setattr(operator, "RESTART_WAIT_S", 1e9)
    for name in ("nope", "earlier"):
        with pytest.raises(Refused, match=f"name: '{name}' names no process: use one of a$"):
            await asyncio.to_thread(operator.request_restart, settings, name)
    assert await asyncio.to_thread(operator.request_restart, settings, "a") == "failed"
    await until(lambda: supervisor.children["a"].restarts == 1 and supervisor.failed(), what="status 3 at once")
    assert await restart() == "failed"
    await until(lambda: supervisor.children["a"].restarts == 2 and supervisor.failed(), what="status 3 again")
    broken.unlink()
    assert await restart() == "failed"
    await until(lambda: supervisor.children["a"].state == "running" and supervisor.children["a"].pid)
    first = supervisor.children["a"].pid
    assert await restart() == "running"
    one = supervisor.children["a"]
    await until(lambda: one.pid not in (None, first) and one.state == "running")
    await supervisor.stop()
    await watching


async def test_a_stop_does_not_wait_for_the_end_of_a_pause(tmp_path, monkeypatch):
    monkeypatch.setattr("byline.supervisor.BACKOFF_S", (10_000.0,))
    supervisor = Supervisor(tmp_path)
    await supervisor.start(child(tmp_path, "a"))
    watching = asyncio.create_task(supervisor.watch())
    os.kill(supervisor.children["a"].pid, signal.SIGKILL)
    await until(lambda: supervisor.children["a"].state == "waiting")
    await supervisor.stop()
    await watching


async def test_a_child_that_ends_before_it_is_ready_is_an_error_with_its_log(tmp_path):
    supervisor = Supervisor(tmp_path)
    with pytest.raises(ChildFailed, match="no such thing"):
        await supervisor.start(Child("a", [sys.executable, "-c", "raise SystemExit('no such thing')"]))
    await supervisor.stop()


async def test_a_child_that_reads_much_is_waited_for_as_long_as_it_gets_on(tmp_path):
    supervisor = Supervisor(tmp_path)
    tell = "StatusFile(Path(sys.argv[1]), sys.argv[2]).write(ready=False, progress={})"
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
