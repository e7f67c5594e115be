#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, scripts that start, ask, command and stop the daemon break: --daemonize, --pidfile, help, signals, order, exits, messages.
# labels: quick interop
# requires: nbdinfo
# timeout: 120
import os
import signal
import socket
import subprocess
import time
from patience import patience
from qmp import Program, Qmp

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
CWD = os.getcwd()


def run(*arguments, code=0):
    result = subprocess.run([DAEMON, *arguments], capture_output=True, text=True, timeout=patience(30))
    assert result.returncode == code, (arguments, result)
    assert "usage" not in result.stderr.lower(), result.stderr
    return result.stdout if code == 0 else result.stderr


def help_texts():
    text = run("--help")
    for option in ("blockdev", "chardev", "export", "monitor", "nbd-server", "object", "daemonize", "pidfile", "trace"):
        assert f"--{option}" in text, option
    assert run("-h") == text and "version" in run("-V")
    assert "qcow2" in run("--blockdev", "help") and "cache-size" in run("--blockdev", "qcow2,help")
    assert "num-queues" in run("--export", "type=vhost-user-blk,help") and "vhost-user-blk" in run("--export", "help")
    assert "socket" in run("--chardev", "help") and "wait" in run("--chardev", "socket,help")
    assert "max-connections" in run("--nbd-server", "help") and "mode" in run("--monitor", "?")
    assert "main-loop" in run("--object", "help") and "thread-pool-max" in run("--object", "main-loop,help")


def refusals():
    for arguments, words in (
            (["--export", "foo,help"], ["foo", "--export help"]), (["--object", "unicorn,id=s"], ["unicorn", "main-loop"]),
            (["--object", "main-loop,id=m,thread-pool-min=9,thread-pool-max=4"], ["thread-pool-min 9"]),
            (["--object", "main-loop,id=m", "--object", "main-loop,id=n"], ["'m'", "'n'"]),
            (["--export", "nbd,id=e,node-name=none"], ["--export", "'none'"]), (["stray"], ["stray"]), (["--no-such"], ["--help"]),
            (["--blockdev", "null-co"], ["node-name"]), (["--blockdev", "file,node-name=f,filename=/does/not/exist"], ["/does/not/exist"]),
            (["--blockdev", "{\"driver\":"], ["--blockdev"]), (["--nbd-server", "addr.type=unix"], ["path"]),
            (["--nbd-server", "addr.type=inet,addr.host=localhost,addr.port=99999999"], ["99999999"]),
            (["--blockdev", "null-co,node-name=n,size=1M", "--export", "vhost-user-blk,id=v,node-name=n,addr.type=inet,addr.host=h,addr.port=1"], ["unix"]),
            (["--monitor", "m"], ["m"]), (["--pidfile", "/nowhere/pid", "--daemonize"], ["/nowhere/pid"])):
        message = run(*arguments, code=1)
        for word in words:
            assert word in message, (arguments, message)


def workers(pid):
    return sum(open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8").read() == "worker\n" for task in os.listdir(f"/proc/{pid}/task"))


def in_the_background():
    run("--object", "main-loop,id=m,thread-pool-min=3", "--blockdev", "null-co,node-name=n,size=1M", "--nbd-server", f"addr.type=unix,addr.path={CWD}/bg.sock",
        "--export", "nbd,id=e,node-name=n", "--pidfile", f"{CWD}/bg.pid", "--daemonize")
    pid = int(open("bg.pid").read())
    try:
        # It is up when the command has returned.
        assert subprocess.check_output(["nbdinfo", "--size", f"nbd+unix:///n?socket={CWD}/bg.sock"], text=True).strip() == "1048576"
        assert workers(pid) >= 3  # the main-loop object's
        assert "bg.pid" in run("--pidfile", "bg.pid", code=1)  # in use by another
    finally:
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 10
    while os.path.exists("bg.pid"):
        assert time.monotonic() < end, "the pid file stays"
        time.sleep(0.02)
    while os.path.exists("bg.sock"):
        assert time.monotonic() < end, "the socket stays"
        time.sleep(0.02)


def inherited_socket():
    """A listening socket that is handed over, blocking as such sockets are; the daemon must not block in accept."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("fd.sock")
    listening.listen(5)
    os.set_inheritable(listening.fileno(), True)
    with Program([DAEMON, "--blockdev", "null-co,node-name=n,size=1M", "--nbd-server", f"addr.type=fd,addr.str={listening.fileno()}",
                  "--export", "nbd,id=e,node-name=n", "--chardev", "socket,id=m,path=fd.qmp,server=on,wait=off", "--monitor", "m"],
                 close_fds=False):
        qmp = Qmp.connect("fd.qmp")
        for _ in range(3):
            assert subprocess.check_output(["nbdinfo", "--size", f"nbd+unix:///n?socket={CWD}/fd.sock"], text=True).strip() == "1048576"
            assert qmp.command("query-block-exports")[0]["id"] == "e"
    listening.close()


def ends_with_clients():
    """SIGTERM, SIGINT, SIGHUP and `quit` while clients are connected and requests are in flight."""
    for end in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "quit"):
        with Program([DAEMON, "--blockdev", "null-aio,node-name=n,size=1M,latency-ns=300000000", "--nbd-server", "addr.type=unix,addr.path=end.sock",
                      "--export", "nbd,id=e,node-name=n", "--export", "vhost-user-blk,id=v,node-name=n,addr.type=unix,addr.path=v.sock",
                      "--chardev", "socket,id=m,path=end.qmp,server=on,wait=off", "--monitor", "m"]) as daemon:
            qmp = Qmp.connect("end.qmp")
            client, front = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
            client.connect("end.sock")
            front.connect("v.sock")
            client.sendall(bytes((0, 0, 0, 3)) + b"IHAVEOPT" + bytes((0, 0, 0, 1, 0, 0, 0, 1)) + b"n")
            for i in range(10):
                client.sendall(bytes.fromhex("25609513") + bytes(4) + bytes(7) + bytes((i,)) + bytes(8) + bytes((0, 0, 2, 0)))
            time.sleep(0.1)
            if end == "quit":
                qmp.command("quit")
            else:
                daemon.send_signal(end)
            assert daemon.wait(patience(10)) == 0, end
        assert not os.path.exists("end.sock") and not os.path.exists("v.sock")


def exports_by_command():
    with Program([DAEMON, "--chardev", "socket,id=m,path=x.qmp,server=on,wait=off", "--monitor", "m"]):
        qmp = Qmp.connect("x.qmp")
        address = {"addr": {"type": "unix", "data": {"path": "x.sock"}}}
        qmp.command("blockdev-add", {"driver": "null-co", "node-name": "n", "size": 1 << 20})
        export = {"type": "nbd", "id": "e", "node-name": "n", "name": ""}
        assert "not running" in str(qmp.error("block-export-add", export))
        qmp.command("nbd-server-start", address)
        assert "already running" in str(qmp.error("nbd-server-start", address))
        qmp.command("block-export-add", export)
        assert "already" in str(qmp.error("block-export-add", export))
        assert "already has an export" in str(qmp.error("block-export-add", {**export, "id": "f"}))
        assert "in use" in str(qmp.error("blockdev-del", {"node-name": "n"}))
        assert qmp.command("query-block-exports") == [{"id": "e", "type": "nbd", "node-name": "n", "shutting-down": False}]
        # The empty name is the default export.
        assert subprocess.check_output(["nbdinfo", "--size", f"nbd+unix://?socket={CWD}/x.sock"], text=True).strip() == "1048576"
        qmp.command("block-export-del", {"id": "e"})
        assert qmp.event("BLOCK_EXPORT_DELETED")["data"] == {"id": "e"}
        assert "not found" in str(qmp.error("block-export-del", {"id": "e"}))
        qmp.command("blockdev-del", {"node-name": "n"})
        qmp.command("nbd-server-stop")
        assert "not running" in str(qmp.error("nbd-server-stop"))
        assert not os.path.exists("x.sock")


for step in (help_texts, refusals, exports_by_command, inherited_socket, ends_with_clients, in_the_background):
    step()
