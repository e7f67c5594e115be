#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, machines do not stop, go on, reset, or end as their guests and managers ask.
# labels: quick
# requires: riscv64-linux-gnu-gcc
# timeout: 120
"""Bare guests (life.S) that switch themselves off, fail, reset or run for ever; QMP, the human monitor, signals, options."""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

from patience import patience
from qmp import Qmp

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(os.environ["SPINDLE_BIN"], "spindle-system-riscv64")


def build(action):
    out = f"{action}.elf"
    subprocess.run(["riscv64-linux-gnu-gcc", "-march=rv64gc", "-mabi=lp64d", "-nostdlib", "-static", "-no-pie", "-mcmodel=medany",
                    "-Wl,--build-id=none,--nmagic", "-Wl,-Ttext=0x80000000", f"-Wa,--defsym,ACTION={ord(action)}", f"{HERE}/life.S", "-o", out],
                   check=True, stderr=subprocess.DEVNULL)
    return out


def command(action, *options):
    return [PROGRAM, "-M", "virt", "-bios", "none", "-kernel", build(action), *options]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def run(action, *options, status=0, output=None):
    done = subprocess.run(command(action, "-display", "none", "-serial", "stdio", *options), stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=patience(30))
    check(done.returncode == status, f"{action} {options}: status {done.returncode}, {done.stderr}")
    if output is not None:
        check(done.stdout == output, f"{action} {options}: {done.stdout}")
    return done


def test_exit_status():
    run("o", output=b"start 1 intact\n")
    run("f", status=7, output=b"start 1 intact\n")
    run("o", "-smp", "4", "-m", "1G", output=b"start 1 intact\n")


def test_reset():
    # memory stays, images come back
    run("r", output=b"start 1 intact\nstart 2 intact\n")
    run("r", "-no-reboot", output=b"start 1 intact\n")


class Machine:
    def __init__(self, action, *options):
        self.log = f"{action}.log"
        self.process = subprocess.Popen(command(action, "-display", "none", "-serial", f"file:{self.log}", "-qmp",
                                                "unix:q.sock,server=on,wait=off", *options))
        self.qmp = Qmp.connect("q.sock")

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def status(self):
        return self.qmp.command("query-status")["status"]

    def output(self):
        return open(self.log, "rb").read()

    def waits_for(self, condition, what):
        end = time.monotonic() + 20
        while not condition():
            check(time.monotonic() < end, what)
            time.sleep(0.01)


def test_stop_and_go():
    with Machine("l", "-S", "-smp", "2") as m:
        check(m.status() == "prelaunch" and m.output() == b"", "-S")
        m.qmp.command("cont")
        m.qmp.event("RESUME")
        m.waits_for(lambda: m.output().count(b".") > 5, "it does not run")
        m.qmp.command("stop")
        m.qmp.event("STOP")
        check(m.status() == "paused", "not paused")
        time.sleep(0.05)
        before = m.output()
        time.sleep(0.3)
        check(m.output() == before, "it runs although it is stopped")
        m.qmp.command("cont")
        m.waits_for(lambda: len(m.output()) > len(before) + 5, "it does not go on")
        cpus = m.qmp.command("query-cpus-fast")
        check([cpu["cpu-index"] for cpu in cpus] == [0, 1], cpus)
        for cpu in cpus:
            check(os.path.exists(f"/proc/{m.process.pid}/task/{cpu['thread-id']}"), cpus)
        for _ in range(20):
            m.qmp.command("stop")
            m.qmp.command("cont")
        m.qmp.command("system_reset")
        check(m.qmp.event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}, "RESET")
        m.waits_for(lambda: b"start 2 intact\n" in m.output(), "no reset")
        m.qmp.command("system_powerdown")
        m.qmp.event("POWERDOWN")
        m.qmp.command("quit")
        check(m.process.wait(patience(20)) == 0, "quit")


def test_shutdown_events():
    with Machine("o", "-S", "-no-shutdown") as m:
        m.qmp.command("cont")
        check(m.qmp.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}, "SHUTDOWN")
        check(m.status() == "shutdown", "not shut down")
        m.qmp.error("cont")
        m.qmp.command("system_reset")
        m.qmp.event("RESET")
        m.qmp.command("cont")
        m.qmp.event("SHUTDOWN")
        check(m.output() == b"start 1 intact\nstart 2 intact\n", m.output())
        m.process.send_signal(signal.SIGTERM)
        check(m.process.wait(patience(20)) == 0, "SIGTERM")


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(arguments[0], arguments)
        self.text = b""

    def expect(self, pattern):
        end = time.monotonic() + 20
        while not re.search(pattern, self.text):
            ready = select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]
            try:
                data = os.read(self.fd, 65536) if ready else b""
            except OSError:
                data = b""
            check(data, f"{pattern} did not come: {self.text}")
            self.text += data
        self.text = self.text[re.search(pattern, self.text).end():]

    def ends(self):
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_monitor_on_terminal():
    t = Terminal(command("l", "-nographic", "-name", "guest-7"))
    t.expect(rb"start 1 intact\r?\n\.+")
    os.write(t.fd, b"\x01h")
    t.expect(rb"Ctrl-A X")
    os.write(t.fd, b"\x01c")
    t.expect(rb"monitor - type 'help'.*\r+\n\(qemu\) ")
    os.write(t.fd, b"info statux\x7fs\r")
    t.expect(rb"VM status: running\r+\n\(qemu\) ")
    os.write(t.fd, b"stop\r")
    t.expect(rb"\(qemu\) ")
    os.write(t.fd, b"info status\rinfo registers\r")
    t.expect(rb"VM status: paused\r+\n")
    t.expect(rb"(?s)pc .*sp .*\(qemu\) ")
    os.write(t.fd, b"info name\r")
    t.expect(rb"guest-7")
    os.write(t.fd, b"nonsense\r")
    t.expect(rb"unknown command: 'nonsense'")
    os.write(t.fd, b"c\r")
    os.write(t.fd, b"\x01x")
    check(t.ends() == 0, "Ctrl-A X")


def test_wrong_options():
    cases = {
        ("-nonsense",): "unknown option '-nonsense'",
        ("disk.img",): "-drive file=disk.img",
        ("-M", "pc"): "unknown machine 'pc'",
        ("-cpu", "z80"): "-cpu z80",
        ("-smp", "1000"): "-smp",
        ("-smp", "4,sockets=3"): "-smp",
        ("-m", "lots"): "lots",
        ("-m", "100K"): "-m 100K",
        ("-device", "virtio-blk-pci,drive=x"): "no PCI",
        ("-device", "e1000"): "'-device help'",
        ("-device", "virtio-rng-device,colour=red"): "unknown property 'colour'",
        ("-device", "virtio-rng-device,bus=virtio-mmio-bus.9"): "virtio-mmio-bus.9",
        ("-device", "virtio-blk-device"): "drive=ID",
        ("-device", "virtio-blk-device,drive=gone"): "'gone'",
        ("-device", "virtconsole,chardev=c"): "virtio-serial-device",
        ("-device", "vhost-user-blk,chardev=c"): "no chardev 'c'",
        ("-device", "vhost-user-blk,chardev=c,serial=z"): "no property 'serial'",
        ("-chardev", "socket,path=x"): "id=ID",
        ("-chardev", "carrier-pigeon,id=c"): "carrier-pigeon",
        ("-chardev", "null,id=c", "-chardev", "null,id=c"): "'c' exists already",
        ("-serial", "nowhere"): "-serial nowhere",
        ("-serial", "file:/nonexistent/file"): "/nonexistent/file",
        ("-drive", "id=x"): "file=FILE",
        ("-drive", "file=x,if=scsi"): "if=scsi",
        ("-kernel", "/nonexistent"): "/nonexistent",
        ("-bios", "/nonexistent"): "/nonexistent",
        ("-append", "x"): "-kernel",
        ("-dtb", __file__): "device tree",
        ("-display", "gtk"): "gtk",
        ("-accel", "kvm"): "kvm",
        ("-object", "memory-backend-memfd,id=m,size=1M"): "memory-backend=m",
        ("-machine", "memory-backend=m"): "id=m",
        ("-mon", "chardev=c"): "no chardev 'c'",
        ("-qmp",): "-qmp needs an argument",
    }
    for options, expected in cases.items():
        base = [] if "-bios" in options else ["-bios", "none"]
        done = subprocess.run([PROGRAM, *base, "-display", "none", *options], capture_output=True, timeout=patience(20))
        message = done.stderr.decode()
        check(done.returncode == 1, f"{options}: status {done.returncode} {message}")
        check(expected in message and message.startswith("spindle-system-riscv64: ") and message.count("\n") == 1,
              f"{options}: {message}")


def test_help():
    for options, expected in {("-help",): "-kernel", ("-M", "help"): "virt", ("-cpu", "help"): "riscv64", ("-version",): "version",
                              ("-device", "help"): "virtio-blk-device", ("-device", "virtio-blk-device,help"): "queue-size"}.items():
        done = subprocess.run([PROGRAM, *options], capture_output=True, timeout=patience(20))
        check(done.returncode == 0 and expected in done.stdout.decode() and not done.stderr, f"{options}: {done}")


def test_memory_backend():
    run("o", "-m", "64M", "-object", "memory-backend-memfd,id=m,size=64M,share=on", "-machine", "virt,memory-backend=m",
        output=b"start 1 intact\n")
    run("o", "-m", "64M", "-object", "memory-backend-memfd,id=m,size=64M,share=on", "-numa", "node,memdev=m",
        output=b"start 1 intact\n")


def main():
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            print(f"{name}: ok", flush=True)
        except Exception as problem:  # noqa: a test's report
            print(f"{name}: {type(problem).__name__}: {problem}", flush=True)
            failed += 1
    sys.exit(1 if failed else 0)


main()
