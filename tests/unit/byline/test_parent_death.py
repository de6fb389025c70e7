"""Processes that end with whoever started them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import has_ended, until

ROOT = Path(__file__).parents[3]
PARENT = """
import os, signal, subprocess, sys, time
from byline.parent_death import dying_with_parent

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job of a shell's background
prepare = dying_with_parent(signal.Signals(int(sys.argv[1])))
parent = os.getpid()

def late():
    print(os.getpid(), flush=True)
    while sys.argv[2] == "late" and os.getppid() == parent:
        time.sleep(0.01)
    prepare()

subprocess.Popen(["sleep", "600"], preexec_fn=late)
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("when", ["started", "late"])
async def test_a_child_ends_with_its_parent_also_if_that_died_while_it_was_begun(sent, when):
    argv = [sys.executable, "-c", PARENT, str(int(sent)), when]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        if when == "started":
            assert parent.stdout.readline() == "started\n"
        parent.kill()
    await until(lambda: has_ended(child), what=f"the end of {child}")
