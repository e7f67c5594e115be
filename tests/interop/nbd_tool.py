#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, spindle-nbd does not serve an image as its options say, does not end with its last client, or lists a server wrongly.
# labels: full interop
# requires: qemu-nbd qemu-io qemu-img nbdinfo nbdcopy
# timeout: 120
import atexit
import os
import signal
import socket
import subprocess
import time

from image import BIN, check, content, equal, img, io, run
from patience import patience

NBD = os.path.join(BIN, "spindle-nbd")


def uri(path, name=""):
    return f"nbd+unix:///{name}?socket={os.path.abspath(path)}"


def wait_for(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, f"waited for {what}")
        time.sleep(0.02)


class Server:
    def __init__(self, *words, path="sock", **options):
        if os.path.exists(path):
            os.unlink(path)
        self.process = subprocess.Popen([NBD, "-k", path, *words], stderr=subprocess.PIPE, **options)
        atexit.register(self.process.kill)
        wait_for(lambda: os.path.exists(path) or self.process.poll() is not None, "the server's socket")

    def ended(self, status=0):
        try:
            _, error = self.process.communicate(timeout=patience(20))
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("FAILED: the server does not end") from None
        equal((self.process.returncode, error), (status, b""), "end of the server")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.ended()


img("create", "-q", "-f", "raw", "a.raw", "8M")
io("a.raw", "write -P 5 1M 2M")
img("convert", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2")

# Lists are the same, whoever serves and whoever asks. Our server has what it has: its flags may be more.
subprocess.run(["qemu-nbd", "-f", "raw", "-x", "e", "-D", "some text", "-t", "-e", "4", "--fork", "--pid-file=pid", "-k", os.path.abspath("theirs"), "a.raw"], check=True)
ours, theirs = run(NBD, "-L", "-k", "theirs").out, run("qemu-nbd", "-L", "-k", os.path.abspath("theirs")).out
equal(ours, theirs, "-L of the peer's server")
os.kill(int(content("pid")), signal.SIGTERM)
server = Server("-f", "qcow2", "-x", "e", "-D", "some text", "-t", "-e", "4", "-A", "a.qcow2")
listing = run("qemu-nbd", "-L", "-k", os.path.abspath("sock")).out
equal(run(NBD, "-L", "-k", "sock").out, listing, "-L of our server")
for line in (" export: 'e'", "  description: some text", "  size:  8388608", "   qemu:allocation-depth", "   base:allocation"):
    check(line in listing.splitlines(), f"'{line}' in\n{listing}")
check(" multi " in listing, listing)
check('"export-size": 8388608' in run("nbdinfo", "--json", uri("sock", "e")).out, "nbdinfo")
run("nbdcopy", uri("sock", "e"), "copy.raw")
run("qemu-img", "compare", "-f", "raw", "-F", "raw", "copy.raw", "a.raw")
server.stop()
img("check", "-q", "a.qcow2")

# Without -t it ends with its last client; asking what there is does not count as one.
server = Server("-f", "qcow2", "a.qcow2")
check(" multi " not in run("qemu-nbd", "-L", "-k", os.path.abspath("sock")).out, "one client only, and told of several")
time.sleep(0.2)
check(server.process.poll() is None, "ended by a client that only asked")
run("qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", uri("sock"))
server.ended()
io("a.qcow2", "read -P 7 0 64k", form="qcow2")

# -r, -s, -l, -o, --image-opts
server = Server("-r", "-f", "qcow2", "-t", "a.qcow2")
check("readonly" in run("qemu-nbd", "-L", "-k", os.path.abspath("sock")).out, "-r")
run("qemu-io", "-f", "raw", "-c", "write 0 64k", uri("sock"), status=1)
server.stop()
before = content("a.qcow2")
server = Server("-s", "-f", "qcow2", "-t", "a.qcow2")
run("qemu-io", "-f", "raw", "-c", "write -P 8 0 1M", "-c", "flush", uri("sock"))
run("qemu-io", "-f", "raw", "-c", "read -P 8 0 1M", "-c", "read -P 5 1M 1M", uri("sock"))
server.stop()
equal(content("a.qcow2"), before, "the image under -s")
img("snapshot", "-c", "then", "a.qcow2")
io("a.qcow2", "write -P 9 0 64k", form="qcow2")
server = Server("-l", "then", "-f", "qcow2", "-t", "a.qcow2")
run("qemu-io", "-r", "-f", "raw", "-c", "read -P 7 0 64k", uri("sock"))
server.stop()
server = Server("-o", "1M", "-f", "raw", "-t", "a.raw")
equal(run("nbdinfo", "--size", uri("sock")).out.strip(), str(7 << 20), "size behind -o")
run("qemu-io", "-f", "raw", "-c", "read -P 5 0 2M", "-c", "write -P 3 2M 64k", uri("sock"))
server.stop()
io("a.raw", "read -P 3 3M 64k")
server = Server("-t", "--image-opts", "driver=qcow2,file.filename=a.qcow2")
run("qemu-io", "-f", "raw", "-c", "read -P 9 0 64k", uri("sock"))
server.stop()

# --fork returns when a client can connect; the pid file goes with the server.
run(NBD, "--fork", "--pid-file=pid", "-k", "sock", "-f", "qcow2", "a.qcow2")
check(int(content("pid")) > 1, "pid file")
run("qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", uri("sock"))
wait_for(lambda: not os.path.exists("pid"), "the end of the server")

# Socket activation.
listener = socket.socket(socket.AF_UNIX)
listener.bind("passed")
listener.listen(5)
shell = f'exec 3<&{listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
process = subprocess.Popen(["bash", "-c", shell, "shell", NBD, "-f", "qcow2", "a.qcow2"], pass_fds=[listener.fileno()], stderr=subprocess.PIPE)
atexit.register(process.kill)
run("qemu-io", "-r", "-f", "raw", "-c", "read -P 9 0 64k", uri("passed"))
_, error = process.communicate(timeout=patience(20))
equal((process.returncode, error), (0, b""), "socket activation")

for words, text in ((["-e", "x", "a.raw"], "Invalid shared device number 'x'"), ([], "Expecting one image file name"),
                    (["-L", "a.raw"], "List mode"), (["-k", "s", "-p", "1", "a.raw"], "exclude each other"),
                    (["-f", "raw", "-k", "s", "-o", "9M", "a.raw"], "has to be smaller than the image size"),
                    (["--tls-authz=x", "-k", "s", "-f", "raw", "a.raw"], "tls-creds"),
                    (["-c", "/dev/null", "a.raw"], "not a device of the kernel"), (["-k", "s", "nothing"], "nothing")):
    result = run(NBD, *words, status=1)
    check(text in result.err, f"wanted '{text}': {result}")
