# SPDX-License-Identifier: Apache-2.0
"""Servers of one image, however each contender starts them, and the load clients that are pointed at them.

The storage daemons of both families take the same command line; qemu-nbd stands for QEMU where only NBD counts, as its users do.
"""
import os
import socket
import struct

from measure import Server, ServerSession, json_of

_numbers = iter(range(1 << 30))


def socket_ready(path):
    def ready():
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return True
        except OSError:
            return False
        finally:
            sock.close()
    return ready


def new_socket(context):
    """Short names: a socket's path holds some hundred bytes."""
    return os.path.join(context.work, f"s{next(_numbers)}")


def blockdevs(image, form, options=()):
    """Arguments that make the node "disk" of an image."""
    if form == "raw":
        return ["--blockdev", f"driver=file,node-name=disk,filename={image}"]
    return ["--blockdev", f"driver=file,node-name=file,filename={image}", "--blockdev", ",".join([f"driver={form},node-name=disk,file=file", *options])]


def daemon_nbd(context, contender, image, form, before=(), options=(), server=""):
    """A storage daemon with an NBD export named "disk"; None without one. Returns (Server, socket path)."""
    daemon = contender.command("daemon")
    if not daemon:
        return None
    path = new_socket(context)
    argv = daemon + list(before) + blockdevs(image, form, options) + [
        "--nbd-server", f"addr.type=unix,addr.path={path}{server}", "--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on"]
    return Server(argv, socket_ready(path), context.work), path


def nbd_server(context, contender, image, form, connections=16):
    """(Server, socket path, export name), or None when this contender cannot serve the format."""
    if contender.family == "nbdkit":
        if form != "raw":
            return None
        path = new_socket(context)
        return Server(contender.command("nbdkit") + ["-f", "-U", path, "file", image], socket_ready(path), context.work), path, ""
    if contender.family == "qemu":
        nbd = contender.command("nbd")
        if not nbd:
            return None
        path = new_socket(context)
        argv = nbd + ["-t", "-k", path, "-f", form, "-x", "disk", "-e", str(connections + 1), "--cache=writeback", "--discard=unmap", image]
        return Server(argv, socket_ready(path), context.work), path, "disk"
    served = daemon_nbd(context, contender, image, form)
    return served and (*served, "disk")


def nbd_load(context, path, export, operations, block=4096, depth=1, connections=1, write=False, sequential=False, stamped=True,
             span=0):
    argv = [context.program("nbd_load"), path, export, "--block", str(block), "--depth", str(depth), "--connections", str(connections), "--span", str(span)]
    argv += ["--seconds", str(context.seconds)] if operations is None else ["--operations", str(max(1, operations // connections))]
    return json_of(argv + ["--write"] * write + ["--sequential"] * sequential + ["--stamped"] * (stamped and not write))


def nbd_session(context, contender, image, form, load, connections=16):
    """`load(point)` gives keyword arguments of nbd_load."""
    served = nbd_server(context, contender, image, form, connections)
    if not served:
        return None
    server, path, export = served
    return ServerSession(context, server, lambda point, operations: nbd_load(context, path, export, operations, **load(point)))


def fio_load(context, operations, *arguments):
    """fio's account in the form of our clients'. For what they do not speak: TLS, and files of a FUSE export."""
    argv = ["fio", "--name=load", "--output-format=json", "--randrepeat=0", "--norandommap", f"--directory={context.work}", *arguments]
    argv += ["--time_based", f"--runtime={max(1, round(context.seconds))}"] if operations is None else [f"--number_ios={operations}"]
    job = json_of(argv)["jobs"][0]
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    percentiles = side["clat_ns"]["percentile"]
    return {"operations": side["total_ios"], "seconds": side["runtime"] / 1000, "p50_us": percentiles["50.000000"] / 1000,
            "p99_us": percentiles["99.000000"] / 1000}


def receive(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def first_read(sock, export, length=4096):
    """On a fresh connection: handshake, one read of offset 0, and its data (simple replies only)."""
    receive(sock, 18)
    sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 7, len(export) + 6) + struct.pack(">I", len(export)) + export.encode() + b"\0\0")
    while True:
        _, _, kind, size = struct.unpack(">QIII", receive(sock, 20))
        receive(sock, size)
        if kind != 3:
            break
    sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, length))
    _, error, _ = struct.unpack(">IIQ", receive(sock, 16))
    return receive(sock, length) if not error else None
