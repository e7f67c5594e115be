# SPDX-License-Identifier: Apache-2.0
"""Files that are disks: a daemon with a FUSE export, for tests. Skips the test where the machine has no FUSE for us."""
import errno
import os
import shutil
import subprocess
import sys
import time

from qmp import Qmp

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")


def need_fuse():
    """FUSE needs a device that we may open, and the program that mounts."""
    reason = None
    if not os.path.exists("/dev/fuse"):
        reason = "there is no /dev/fuse"
    elif not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = "/dev/fuse cannot be opened by this user"
    elif not shutil.which("fusermount3"):
        reason = "there is no fusermount3 (package fuse3)"
    if reason:
        print(f"skipped: {reason}")
        sys.exit(77)


def is_mounted(path):
    return any(line.split()[1] == os.path.abspath(path) for line in open("/proc/self/mounts"))


class Server:
    """A daemon with one monitor; `kill` is how crashes come. Leaves no mount behind, whatever happens."""

    def __init__(self, *options, name="q.sock"):
        if os.path.exists(name):
            os.unlink(name)
        self.mounts = []
        self.process = subprocess.Popen([DAEMON, *options, "--chardev", f"socket,id=m,path={name},server=on,wait=off", "--monitor", "m"])
        self.qmp = Qmp.connect(name)

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.stop(check=reason[0] is None)

    def export(self, node, mountpoint, **options):
        if not is_mounted(mountpoint) and not os.path.exists(mountpoint):
            open(mountpoint, "w").close()
        self.qmp.command("block-export-add", {"type": "fuse", "id": options.pop("id", "e"), "node-name": node, "mountpoint": mountpoint, **options})
        self.mounts.append(mountpoint)

    def remove(self, id="e", mode="safe"):
        self.qmp.command("block-export-del", {"id": id, "mode": mode})
        end = time.monotonic() + 10
        while any(export["id"] == id for export in self.qmp.command("query-block-exports")):
            assert time.monotonic() < end, "the export does not go away"
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, check=True):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                check and sys.exit("the daemon does not end")
        left = [path for path in self.mounts if is_mounted(path)]
        for path in left:
            subprocess.run(["fusermount3", "-u", "-z", path], check=False)
        if check:
            assert self.process.returncode == 0, f"the daemon ended with status {self.process.returncode}"
            assert not left, f"still mounted after the daemon's end: {left}"


GONE = (errno.ENOTCONN, errno.ECONNABORTED)  # what a file says whose daemon is not there


def fails(code, function, *arguments):
    """The call fails with this errno value (or one of a tuple) and no other."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        function(*arguments)
    except OSError as error:
        assert error.errno in codes, f"{function.__name__} failed with '{error}', not with '{os.strerror(codes[0])}'"
        return
    raise AssertionError(f"{function.__name__}{arguments[1:]} was expected to fail: {os.strerror(codes[0])}")
