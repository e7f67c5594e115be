# SPDX-License-Identifier: Apache-2.0
"""A plain NBD client for tests: one message at a time, so that a test can stop, dribble or lie anywhere between them.

    nbd = Nbd("socket", "export")
    error = nbd.write(0, data)
"""
import socket
import struct

from patience import patience

READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE = 1, 2
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED = 1, 2, 3, 6, 7, 8
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def head(kind, offset=0, length=0, cookie=1, flags=0):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, kind, cookie, offset, length)


class Nbd:
    """`name` None: connected, and nothing said yet."""

    def __init__(self, path, name=None, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(patience(timeout))
        self.sock.connect(path)
        if name is not None:
            self.handshake(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError("the server has hung up")
            data += more
        return bytes(data)

    def handshake(self, name):
        greeting = self.exactly(18)
        assert greeting[:16] == b"NBDMAGICIHAVEOPT", greeting
        self.sock.sendall(struct.pack(">I", 3) + option(OPT_EXPORT_NAME, name.encode()))
        self.size, self.flags = struct.unpack(">QH", self.exactly(10))

    def send(self, kind, offset=0, length=0, cookie=1, flags=0, data=b""):
        self.sock.sendall(head(kind, offset, length, cookie, flags) + data)

    def reply(self, length=0):
        """(error, cookie, data) of a simple reply; `length` is what a read asked for."""
        magic, error, cookie = struct.unpack(">IIQ", self.exactly(16))
        assert magic == REPLY_MAGIC, hex(magic)
        return error, cookie, self.exactly(length) if not error else b""

    def read(self, offset, length):
        self.send(READ, offset, length)
        error, _, data = self.reply(length)
        return error, data

    def simple(self, kind, offset=0, length=0, flags=0, data=b""):
        self.send(kind, offset, length, flags=flags, data=data)
        return self.reply()[0]

    def write(self, offset, data, flags=0):
        return self.simple(WRITE, offset, len(data), flags, data)
