"""Counts the frames that the `websockets` library says it sent."""

import json
import logging

from websockets.frames import Frame, Opcode

NAMES = {
    Opcode.TEXT: "text",
    Opcode.BINARY: "binary",
    Opcode.CONT: "continuation",
    Opcode.PING: "ping",
    Opcode.PONG: "pong",
    Opcode.CLOSE: "close",
}


class SentFrames(logging.Handler):
    """Listens to the library's debug log, which has every frame it writes."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.counts = dict.fromkeys(NAMES.values(), 0)
        self.logger = logging.getLogger("peer")
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.addHandler(self)

    def emit(self, record):
        if record.args and isinstance(record.args[0], Frame) and record.msg.startswith(">"):
            self.counts[NAMES[record.args[0].opcode]] += 1

    def print(self):
        print(json.dumps(self.counts), flush=True)
