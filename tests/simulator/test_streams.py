from __future__ import annotations

import asyncio

from proxy.simulator.server.streams import CutStream, FrameStream, NumberedStream


class Recorder(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


def test_frames_come_in_a_cycle_between_the_opening_and_the_last() -> None:
    transport = Recorder()
    stream = FrameStream(transport, b"<", list(map(bytes, zip(b"abcdefgh", strict=True))), b">")
    stream.open()
    for _ in range(10):
        stream.token()
    stream.finish()
    assert transport.sent == b"<abcdefghab>"


def test_numbered_events_count_on_from_the_first_number() -> None:
    transport = Recorder()
    stream = NumberedStream(transport, lambda index, number: b"%d:%d" % (index, number), 4, b"", chunked=True)
    stream.open()
    for _ in range(9):
        stream.token()
    assert transport.sent.startswith(b"3\r\n0:4\r\n3\r\n1:5\r\n") and transport.sent.endswith(b"4\r\n0:12\r\n")


def test_nothing_is_written_to_a_closed_connection() -> None:
    transport = Recorder()
    stream = FrameStream(transport, b"<", [b"a"] * 8, b">")
    transport.close()
    stream.open()
    stream.token()
    stream.finish()
    assert transport.sent == b""


def test_a_cut_stream_ends_the_connection_after_its_tokens() -> None:
    for tokens_before_the_last, sent in ((5, b"<aa"), (1, b"<a")):
        transport = Recorder()
        stream = CutStream(FrameStream(transport, b"<", [b"a"] * 8, b">"), transport, 2)
        stream.open()
        for _ in range(tokens_before_the_last):
            stream.token()
        stream.finish()
        assert (transport.sent, transport.closing) == (sent, True)
