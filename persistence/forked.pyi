from engine.core import Core

__all__ = ["fork_snapshot"]

def fork_snapshot(core: Core, descriptor: int, offset: int) -> int: ...
