"""picows is pinned, and what we use of its private side is still there."""

from importlib.metadata import version
from pathlib import Path

import picows


def test_f64_picows_is_the_version_whose_private_write_we_use() -> None:
    assert version("picows") == "2.3.1"
    interface = (Path(picows.__file__).parent / "picows.pxd").read_text()
    assert "cdef inline NoResult _fast_write(self, char* ptr, Py_ssize_t sz) except NoResult.EXC" in interface
    assert "object _tr_get_write_buffer_size\n" in interface and "int _socket\n" in interface


def test_only_one_module_touches_the_private_side() -> None:
    for path in Path("gateway").rglob("*.py*"):
        if path.suffix in (".py", ".pyx", ".pxd") and path.stem != "transport":
            text = path.read_text()
            assert not any(name in text for name in ("_fast_write", "_tr_get_write_buffer_size", "._socket")), path
