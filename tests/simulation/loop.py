"""Virtual time: one heap of steps for the whole world, and an asyncio loop for each simulated process on top of it.

A step is one callback of one owner; steps run in the order (time, number given), so a world is the same every time it
is told the same. Between two steps anything may be crashed: a dead owner's steps are passed over, as if its process had
been killed at that `await`. There is no selector, no thread and no real clock: time moves to the next step.

`VirtualLoop` offers what the production code uses of a loop and nothing else; what it lacks raises NotImplementedError.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from asyncio import events
from collections.abc import Callable
from typing import Any

__all__ = ["Schedule", "VirtualLoop"]

Step = Callable[[], object]


class Schedule:
    """The heap. `now_ns` is the world's monotonic time, in ns since its beginning."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._heap: list[tuple[int, int, VirtualLoop | None, Step]] = []
        self._given = 0
        self.after_step: Callable[[VirtualLoop], None] | None = None
        """Called after each step of a process: whoever drives its disk looks here what it has published."""
        self.crash_at_step: tuple[int, Callable[[], None]] | None = None
        """Crash when that many steps of processes have run."""
        self.process_steps = 0

    def at(self, when_ns: int, step: Step, owner: VirtualLoop | None = None) -> None:
        """Run `step` at `when_ns`, or now if that has passed, as long as its owner lives."""
        number = self._given = self._given + 1  # read once: a task collected as garbage meanwhile gives one too
        heapq.heappush(self._heap, (max(when_ns, self.now_ns), number, owner, step))

    def later(self, delay_ns: int, step: Step, owner: VirtualLoop | None = None) -> None:
        self.at(self.now_ns + delay_ns, step, owner)

    def run(self, until_ns: int, is_over: Callable[[], bool] | None = None) -> None:
        """Run steps up to `until_ns`, or until `is_over` says so after one of them."""
        heap, before = self._heap, events._get_running_loop()
        try:
            while heap and heap[0][0] <= until_ns:
                when, _, owner, step = heapq.heappop(heap)
                if owner is not None and not owner.is_alive:
                    continue
                self.now_ns = when
                if owner is None:
                    step()
                else:
                    owner.run_step(step)
                if is_over is not None and is_over():
                    return
        finally:
            events._set_running_loop(before)
        self.now_ns = max(self.now_ns, until_ns)

    def ran(self, owner: VirtualLoop) -> None:
        """A step of a process is over."""
        self.process_steps += 1
        if self.after_step is not None:
            self.after_step(owner)
        if self.crash_at_step is not None and self.process_steps >= self.crash_at_step[0]:
            (_, crash), self.crash_at_step = self.crash_at_step, None
            crash()


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop of one simulated process. `kill` ends it between two steps, without any clean-up of its tasks."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.schedule = schedule
        self.name = name
        self.is_alive = True
        self.faults: list[str] = []
        """Exceptions that reached the loop: production code should let none through."""
        self.readers: dict[int, events.Handle] = {}
        self.listen: Callable[..., Any] | None = None
        """Takes (protocol_factory, host, port): gives the server that `create_server` answers."""
        self._tasks: list[asyncio.Task[Any]] = []

    def run_step(self, step: Step) -> None:
        events._set_running_loop(self)
        step()
        if self.is_alive:
            self.schedule.ran(self)

    def kill(self) -> None:
        """Its process is gone: nothing of it runs any more."""
        self.is_alive = False
        self.readers.clear()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:  # type: ignore[arg-type]
                coroutine.close()  # it never ran, so nothing of it runs now
        self._tasks.clear()

    def wake_reader(self, descriptor: int) -> None:
        """The descriptor is readable."""
        handle = self.readers.get(descriptor)
        if handle is not None:
            self.schedule.later(0, handle._run, self)

    # ------------------------------------------------------------ asyncio.AbstractEventLoop

    def time(self) -> float:
        return self.schedule.now_ns / 1e9

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.is_alive

    def is_closed(self) -> bool:
        return not self.is_alive

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self.schedule.later(0, lambda: None if handle._cancelled else handle._run(), self)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        self.schedule.at(round(when * 1e9), lambda: None if handle._cancelled else handle._run(), self)
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Its step stays in the heap and does nothing."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 256:
            self._tasks = [one for one in self._tasks if not one.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context.get('message')}: {type(error).__name__}: {error}")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        self.readers[int(fd)] = events.Handle(callback, args, self, None)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(int(fd), None) is not None

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert self.listen is not None, "this process has no network"
        return self.listen(protocol_factory, host, port)
