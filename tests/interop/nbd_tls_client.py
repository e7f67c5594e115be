#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, our NBD client takes a TLS server for one that it is not, or refuses the right one; or what goes through TLS is lost,
# late or wrong: with our server, qemu-nbd's and nbdkit's.
# labels: full interop
# requires: certtool psktool qemu-nbd nbdkit cmp
# timeout: 240
import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

from image import BIN, check, equal, img, img_json, io, run, write_file
from patience import patience
from qmp import Program, Qmp
from tls import CA, CLIENT, SERVER, certificate

NBD = os.path.join(BIN, "spindle-nbd")
SIZE = 16 << 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(*words, port):
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    end = time.monotonic() + patience(20)
    while True:
        check(time.monotonic() < end and process.poll() is None, f"{words[0]} does not start")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                if probe.recv(1):
                    return process
        except OSError:
            pass
        time.sleep(0.05)


certificate("ca", "ca", None, cn='"our authority"', **CA)
certificate("other-ca", "ca", None, cn='"another authority"', **CA)
certificate("localhost", "server", "ca", cn="localhost", dns_name="localhost", ip_address="127.0.0.1", **SERVER)
certificate("store", "server", "ca", cn="store.example", dns_name="store.example", **SERVER)
certificate("client", "client", "ca", cn="alice", **CLIENT)
certificate("lost", "client", "other-ca", cn="alice", **CLIENT)
os.makedirs("keys")
run("psktool", "-u", "alice", "-p", "keys/keys.psk")
for directory in ("localhost", "store"):  # nbdkit and qemu-nbd want the authority's file beside theirs, which is there
    check(os.path.exists(f"{directory}/ca-cert.pem"), directory)
write_file("disk.raw", random.Random(4).randbytes(SIZE))

X509 = ["--object", "tls-creds-x509,id=c,endpoint=client,dir=client"]
UNVERIFIED = ["--object", "tls-creds-x509,id=c,endpoint=client,dir=client,verify-peer=off"]
LOST = ["--object", "tls-creds-x509,id=c,endpoint=client,dir=lost"]


def place(port, tls_hostname=None):
    name = f",file.tls-hostname={tls_hostname}" if tls_hostname else ""
    return f"driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,file.server.port={port},file.tls-creds=c{name}"


def commands(kind, directory, port):
    creds = ["--object", f"tls-creds-x509,id=t,endpoint=server,dir={os.path.abspath(directory)}", "--tls-creds", "t"]
    return {"ours": [NBD, "-t", "-e", "8", "-f", "raw", "-b", "127.0.0.1", "-p", port, *creds, "disk.raw"],
            "qemu-nbd": ["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-b", "127.0.0.1", "-p", port, *creds, "disk.raw"],
            "nbdkit": ["nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "--tls=require", "--tls-verify-peer",
                       f"--tls-certificates={os.path.abspath(directory)}", "file", "disk.raw"]}[kind]


for kind in ("ours", "qemu-nbd", "nbdkit"):
    print("==", kind)
    port = free_port()
    server = serve(*commands(kind, "localhost", port), port=port)
    # The name that we connect to, another one, none that is right, no authority that we know.
    equal(img_json("info", *X509, "--image-opts", place(port))["virtual-size"], SIZE, "by the address that the certificate has")
    img("info", *X509, "--image-opts", place(port, tls_hostname="localhost"))
    result = img("info", *X509, "--image-opts", place(port, tls_hostname="store.example"), status=1)
    check("certificate" in result.err, f"another name is accepted, or not said: {result}")
    img("info", *UNVERIFIED, "--image-opts", place(port, tls_hostname="store.example"))
    result = img("info", *LOST, "--image-opts", place(port), status=1)
    check("certificate" in result.err, f"{result}")
    # Data: whole, in pieces, both ways, many requests at once.
    img("convert", *X509, "--image-opts", place(port), "-O", "raw", "copy.raw")
    run("cmp", "copy.raw", "disk.raw")
    img("convert", "-n", *X509, "--image-opts", "--target-image-opts", "driver=raw,file.filename=copy.raw", place(port))
    run("cmp", "copy.raw", "disk.raw")
    img("bench", *X509, "-q", "-c", "2000", "-d", "64", "--image-opts", place(port))
    aio = [word for n in range(1, 60) for word in ("-c", f"aio_write -P {n} {n * 70001} 30000")]
    run(os.path.join(BIN, "spindle-io"), *X509, "--image-opts", "-c", "write -P 7 1M 3M", "-c", "flush", "-c", "read -P 7 1M 3M", *aio, "-c", "aio_flush",
        "-c", "read -P 59 4130059 30000", place(port))
    shutil.copy("copy.raw", "disk.raw")
    # The list.
    words = ["-L", "-b", "127.0.0.1", "-p", str(port), *X509, "--tls-creds", "c"]
    check("exports available: 1" in run(NBD, *words).out, "-L")
    check("size:  16777216" in run(NBD, *words, "--tls-hostname", "localhost").out, "-L with a name")
    result = run(NBD, *words, "--tls-hostname", "store.example", status=1)
    check("certificate" in result.err, f"{result}")
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=patience(20))
    # A tunnel's end: the address is not the name.
    port = free_port()
    server = serve(*commands(kind, "store", port), port=port)
    result = img("info", *X509, "--image-opts", place(port), status=1)
    check("certificate" in result.err, f"{result}")
    img("info", *X509, "--image-opts", place(port, tls_hostname="store.example"))
    check("size:" in run(NBD, "-L", "-b", "127.0.0.1", "-p", str(port), *X509, "--tls-creds", "c", "--tls-hostname", "store.example").out, "-L")
    server.kill()
    server.wait()

print("== credentials that libnbd does not know: a key behind a password, none at all, a choice of algorithms")
shutil.copytree("client", "locked")
run("certtool", "--to-p8", "--load-privkey", "client/client-key.pem", "--password", "open sesame", "--outfile", "locked/client-key.pem")
port = free_port()
server = serve(*commands("ours", "localhost", port), port=port)
secret = ["--object", "secret,id=p,data=open sesame"]
img("info", *secret, "--object", "tls-creds-x509,id=c,endpoint=client,dir=locked,passwordid=p", "--image-opts", place(port))
img("info", "--object", "tls-creds-x509,id=c,endpoint=client,dir=client,priority=NORMAL:-VERS-ALL:+VERS-TLS1.2", "--image-opts", place(port))
result = img("info", "--object", "tls-creds-x509,id=c,endpoint=client,dir=client", "--object", "tls-creds-psk,id=k,endpoint=client,dir=keys,username=alice",
             "--image-opts", place(port).replace("tls-creds=c", "tls-creds=k"), status=1)
check("TLS" in result.err, f"a key where a certificate is wanted: {result}")
server.kill()
for peer in (NBD, "qemu-nbd"):
    port = free_port()
    server = serve(peer, "-t", "-f", "raw", "-b", "127.0.0.1", "-p", port, "--object", "tls-creds-anon,id=t,endpoint=server", "--tls-creds", "t", "disk.raw", port=port)
    img("info", "--object", "tls-creds-anon,id=c,endpoint=client", "--image-opts", place(port))
    check("size:" in run(NBD, "-L", "-b", "127.0.0.1", "-p", str(port), "--object", "tls-creds-anon,id=c,endpoint=client", "--tls-creds", "c").out, "-L, anonymous")
    server.kill()
    server.wait()

print("== mistakes")
for words, text in ((["--image-opts", "driver=nbd,server.type=unix,server.path=x,tls-hostname=h"], "tls-creds is missing"),
                    ([*X509, "--image-opts", "driver=nbd,server.type=unix,server.path=x,tls-creds=c"], "tls-hostname")):
    result = img("info", *words, status=1)
    check(text in result.err, f"wanted '{text}': {result}")
result = run(NBD, "-k", "s", "--tls-hostname", "h", "-f", "raw", "disk.raw", status=1)
check("--tls-hostname" in result.err, f"{result}")
port = free_port()
server = serve(NBD, "-t", "-f", "raw", "-b", "127.0.0.1", "-p", port, "disk.raw", port=port)
result = img("info", *X509, "--image-opts", place(port), status=1)
check("does not start TLS" in result.err, f"a server without TLS: {result}")
server.kill()
server.wait()
with socket.create_server(("127.0.0.1", 0)) as listener:  # no NBD at all, an end in the middle of the greeting, a lie
    for answer in (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 20, b"NBDMAGIC", b"NBDMAGICIHAVEOPT\0\3" + b"\0" * 20):
        def lie(answer=answer):
            connection, _ = listener.accept()
            try:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1 << 16)
            except OSError:
                pass  # the client has gone already
            connection.close()
        thread = threading.Thread(target=lie, daemon=True)
        thread.start()
        img("info", *X509, "--image-opts", place(listener.getsockname()[1]), status=1)
        thread.join()

print("== a server that goes and comes back; slow and broken ways; QMP goes on")
port = free_port()
server = serve(*commands("ours", "localhost", port), port=port)


class Way:
    """Carries bytes between a client and the server in pieces of its own choosing, until it is cut."""

    def __init__(self, piece, pause):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.piece, self.pause, self.sockets = piece, pause, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                near.close()
                continue
            self.sockets += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, target):
        try:
            while data := source.recv(self.piece):
                target.sendall(data)
                if self.pause:
                    time.sleep(self.pause)
        except OSError:
            pass
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


slow = Way(1000, 0.0002)  # no record of TLS arrives in one piece
img("convert", *X509, "--image-opts", place(slow.port), "-O", "raw", "copy.raw")
run("cmp", "copy.raw", "disk.raw")
tiny = Way(1, 0)
img("info", *X509, "--image-opts", place(tiny.port))

way = Way(1 << 16, 0)
with Program([os.path.join(BIN, "spindle-storage-daemon"), "--chardev", "socket,id=m,path=qmp,server=on,wait=off", "--monitor", "m", *X509]):
    qmp = Qmp.connect("qmp")
    target = {"type": "inet", "host": "127.0.0.1", "port": str(way.port)}
    qmp.command("blockdev-add", {"driver": "nbd", "node-name": "n", "server": target, "tls-creds": "c", "reconnect-delay": 60})
    qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "again"}}, "max-connections": 0})
    qmp.command("block-export-add", {"type": "nbd", "id": "e", "node-name": "n", "name": "n", "writable": True})
    again = f"nbd+unix:///n?socket={os.path.abspath('again')}"
    writer = subprocess.Popen([os.path.join(BIN, "spindle-io"), "-f", "raw", *[word for n in range(200) for word in ("-c", f"write -P {n + 1} {n * 65536} 64k")], "-c", "flush",
                               again], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for _ in range(6):
        time.sleep(0.15)
        way.cut()
    server.kill()
    server.wait()
    start = time.monotonic()
    equal(len(qmp.command("query-named-block-nodes")), 1, "nodes")
    check(time.monotonic() - start < patience(5), "QMP waits for a server behind TLS")
    server = serve(*commands("ours", "localhost", port), port=port)
    out, _ = writer.communicate(timeout=patience(60))
    check(writer.returncode == 0, f"writes did not survive: {out.decode()}")
    io(again, *[f"read -P {n + 1} {n * 65536} 64k" for n in range(200)])
    # Another server, with a certificate for somebody else, is not taken for the one that is away.
    server.kill()
    server.wait()
    server = serve(*commands("ours", "store", port), port=port)
    qmp.command("block-export-del", {"id": "e", "mode": "hard"})
    qmp.command("blockdev-del", {"node-name": "n"})
    try:
        qmp.command("blockdev-add", {"driver": "nbd", "node-name": "n", "server": target, "tls-creds": "c"})
        raise SystemExit("FAILED: the wrong server is accepted")
    except Exception as error:  # pylint: disable=broad-except
        check("certificate" in str(error), f"{error}")
    # A server that says nothing keeps nobody from ending.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        qmp.send({"execute": "blockdev-add", "arguments": {"driver": "nbd", "node-name": "s", "tls-creds": "c",
                                                           "server": {"type": "inet", "host": "127.0.0.1", "port": str(silent.getsockname()[1])}}})
        silent.accept()
server.kill()
print("good")
