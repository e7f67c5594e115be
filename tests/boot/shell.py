#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a person at a terminal does not get a usable shell in the guest: echo, Ctrl-C, window of input, or the way out.
# labels: boot
# requires: qemu-img
# timeout: 300
#
# A pseudo-terminal plays the person. Ctrl-C must reach the guest and not end the emulator; Ctrl-A X must end it, with everything
# the guest had synced in the image.
import os
import pty
import subprocess
import sys
import time

source = os.environ["SPINDLE_SRC"]
guest = os.environ.get("SPINDLE_GUEST", source + "/build/guest")
if not os.path.exists(guest + "/made-by"):
    print("missing requirement: the guest in", guest, "made by tools/guest/build")
    sys.exit(1 if os.environ.get("CI") else 77)


class Terminal:
    def __init__(self, command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        self.seen = b""

    def expect(self, text, seconds=120 * int(os.environ.get("SPINDLE_TIMEOUT_FACTOR", "1"))):
        """Waits for text and drops everything up to it. What was seen before it is returned."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end:
                sys.exit(f"no {text!r} within {seconds} s; the terminal shows:\n{self.seen.decode(errors='replace')[-3000:]}")
            os.set_blocking(self.fd, False)
            try:
                self.seen += os.read(self.fd, 65536).replace(b"\r", b"") # how line ends pass two terminals is nobody's business
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                sys.exit(f"the session ended before {text!r}; the terminal showed:\n{self.seen.decode(errors='replace')[-3000:]}")
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, data):
        """Not faster than a person who is in a hurry: the guest's serial port holds 16 bytes."""
        for byte in data:
            os.write(self.fd, bytes([byte]))
            time.sleep(0.002)

    def end(self):
        os.set_blocking(self.fd, True)
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start():
    return Terminal([source + "/tools/guest/run", "-s", "2", "-a", "quiet", "disk/disk.qcow2"])


subprocess.run([source + "/tools/guest/disk", "disk"], check=True)

terminal = start()
terminal.expect(b"/ # ")
terminal.type(b"echo $((6 * 7))-answer; nproc\r")
terminal.expect(b"42-answer\n2\n")
terminal.expect(b"/ # ")
terminal.type(b"sleep 1000\r")
terminal.expect(b"sleep 1000\n")
time.sleep(0.5)
terminal.type(b"\x03")
terminal.expect(b"/ # ", 20)
terminal.type(b"echo kept > /root/note; sync; echo don''e\r")
terminal.expect(b"done\n")
terminal.type(b"\x01x")
status = terminal.end()
if status != 0:
    sys.exit(f"Ctrl-A X ended with code {status}")

terminal = start()
terminal.expect(b"/ # ")
terminal.type(b"cat /root/note\r")
terminal.expect(b"kept\n")
terminal.expect(b"/ # ")
terminal.type(b"poweroff\r")
status = terminal.end()
if status != 0:
    sys.exit(f"poweroff ended with code {status}")
