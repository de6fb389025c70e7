from picows import WSFrame, WSListener, WSTransport

class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None: ...
