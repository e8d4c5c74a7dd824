"""A decode process: bytes in through a socket, what they gave out through it, pixels through shared memory.

It is started as a program, not forked and not through `multiprocessing`: nothing of the parent's threads is copied, the
user's script is not imported again, and nothing is pickled. It ends when the socket closes, however the parent ended.
Memory is shared by an open file without a name, which the kernel frees with the last process that holds it.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import sys
from typing import Any

import numpy as np

from curate.crops import Crop
from curate.engine.examine import Terms, examine

_LENGTH = struct.Struct("<Q")
_FIRST = b"P6 9 9 255 " + bytes(range(243))  # the smallest image that makes every kernel load


def send(link: socket.socket, message: bytes) -> None:
    """Send one message. Raises OSError when the other end is gone, TimeoutError after the socket's time-out."""
    link.sendall(_LENGTH.pack(len(message)))
    link.sendall(message)


def receive(link: socket.socket) -> bytes | None:
    """Return the next message, None when the other end is gone. Raises OSError, TimeoutError."""
    head = _read(link, _LENGTH.size)
    return None if head is None else _read(link, _LENGTH.unpack(head)[0])


def _read(link: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = link.recv_into(view[got:])
        if not count:
            return None
        got += count
    return bytes(data)


def serve(link: socket.socket, memory: int) -> None:
    """Examine what comes until the other end closes. The first message holds the terms; the answer to it is `{}`.

    An image that takes more than twice its time ends the process, in case the parent is no longer there to do it.
    Raises what examining raises beyond refusals, after telling the parent.
    """
    first = receive(link)
    if first is None:
        return
    given: dict[str, Any] = json.loads(first)
    crop, asked = Crop(**given["crop"]), Terms.from_dict(given["terms"])
    block = np.frombuffer(mmap.mmap(memory, 3 * crop.height * crop.width), dtype=np.uint8)
    examine(_FIRST, asked, crop)
    send(link, b"{}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libtiff and others have to say about every damaged file
    while (data := receive(link)) is not None:
        signal.setitimer(signal.ITIMER_REAL, 2 * given["seconds"])
        try:
            found = examine(data, asked, crop)
        except MemoryError:  # the state of the machine, not of the image: tried again when nothing else is decoded
            os._exit(1)
        except Exception as error:
            send(link, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            raise
        signal.setitimer(signal.ITIMER_REAL, 0)
        if found.crop is not None:
            block[:] = found.crop.reshape(-1)
        send(link, json.dumps({"found": found.as_dict(), "cut": found.crop is not None}).encode())


def main() -> None:
    """Serve as sys.argv says: the numbers of the open socket and of the open file behind the shared memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which closes the socket
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    link, memory = int(sys.argv[-2]), int(sys.argv[-1])
    try:
        serve(socket.socket(fileno=link), memory)
    except (BrokenPipeError, ConnectionResetError):
        return
