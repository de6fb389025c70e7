"""The bare picows echo that order entry is held to: a compiled listener that sends each frame back, and nothing else."""

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport


cdef class Echo(WSListener):
    """One connection."""

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
