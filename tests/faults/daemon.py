#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, some failure of memory, of a file or of a socket makes the storage daemon crash, hang, leak, lie, or spoil an image.
# labels: full
# timeout: 400
"""Sessions with the storage daemon (its start, NBD and vhost-user requests, its end), with one of its allocations, reads, writes,
receives ... failing: what a flush has acknowledged is there, and the image is consistent. The rest: lib/daemon_faults.py, commands.py.

SPINDLE_FAULTS_FULL=1: all operations in all ways, else a sample. SPINDLE_FAULTS_ONLY chooses sessions.
"""
import os
import select
import shutil
import time

import daemon_faults
import vhost_user as v
from daemon_faults import PATIENCE, Case, Hangs, Session, Wrong
from faults import check_problem
from image import content, img, io
from nbd import FLUSH, FUA, TRIM, ZEROES, Nbd
from patience import patience

MIB = 1 << 20
SIZE = 4 * MIB
BUDGET = 14


def nbd_requests(session, name="disk"):
    """Returns True when a flush was acknowledged after writes that all were."""
    def connect():
        return Nbd("nbd", name, PATIENCE) if session.alive else None
    try:
        client = Nbd("nbd", None, PATIENCE) if os.path.exists("nbd") else None
    except OSError:
        client = None
    if not client:
        return
    client.close()
    started = time.monotonic()
    client = None
    while not client and session.alive and time.monotonic() < started + patience(3):
        try:
            client = connect()
        except (EOFError, ConnectionError, FileNotFoundError):
            time.sleep(0.01)
        except TimeoutError as late:
            raise Hangs("NBD handshake") from late
    if not client:
        return
    good = True
    try:
        for offset, data, flags in ((0, b"\x41" * 70000, 0), (MIB, b"\x42" * 512, FUA), (3 * MIB + 512, b"\x43" * 150000, 0)):
            session.wrote(offset, data)
            good &= not client.write(offset, data, flags)
        session.wrote(2 * MIB, bytes(65536))
        good &= not client.simple(ZEROES, 2 * MIB, 65536)
        if good and not client.simple(FLUSH):
            session.flushed()
        elif not good:
            session.complaints.append("NBD: a request failed")
        session.trimmed = range(MIB + 65536, MIB + 2 * 65536, 512)
        if client.simple(TRIM, MIB + 65536, 65536):
            session.complaints.append("NBD: a trim failed")
        error, data = client.read(0, MIB)
        if not error and not all(session.may_be(i, data[i:i + 512]) for i in range(0, MIB, 512)):
            raise Wrong("NBD: a read brought what nobody wrote")
        if error:
            session.complaints.append("NBD: a read failed")
        if client.simple(FLUSH):
            session.complaints.append("NBD: a flush failed")
    except TimeoutError as late:
        raise Hangs("an NBD request is not answered") from late
    except (EOFError, ConnectionError):
        session.complaints.append("NBD: connection lost")
    client.close()


def wait(session, queue, slots):
    """queue.wait(), for daemons that may have died: the front end has no deadline of its own."""
    end, done = time.monotonic() + patience(PATIENCE), {}
    while True:
        done.update(queue.collect())
        if set(slots) <= done.keys():
            return {slot: done[slot] for slot in slots}
        if select.select([queue.call], [], [], 0.5)[0]:
            os.eventfd_read(queue.call)
        elif not session.alive:
            raise EOFError("the daemon is gone")
        elif time.monotonic() > end:
            raise TimeoutError("requests are not answered")


def vhost_requests(session):
    if not os.path.exists("vhost"):
        return
    try:
        with v.FrontEnd("vhost", timeout=PATIENCE) as front:
            front.start(inflight=True)
            queue = front.queues[0]
            writes = [(8 * i, bytes([i + 1]) * 4096) for i in range(8)]
            for sector, data in writes:
                session.wrote(512 * sector, data)
            done = wait(session, queue, [queue.submit(v.WRITE, sector, data) for sector, data in writes])
            flush = queue.submit(v.FLUSH, 0)
            status = wait(session, queue, [flush])[flush]
            if not any(done.values()) and not status:
                session.flushed()
            else:
                session.complaints.append("vhost-user: a request failed")
            slot = queue.submit(v.READ, 0, length=4096)
            if wait(session, queue, [slot])[slot]:
                session.complaints.append("vhost-user: a read failed")
    except (EOFError, ConnectionError, AssertionError, BrokenPipeError):
        session.complaints.append("vhost-user: connection lost")
    except TimeoutError as late:
        if session.order and session.order.kind in ("recv", "accept", "alloc", "send"):
            session.complaints.append(f"vhost-user: {late}")  # the front end has no deadline of its own: it connects again
        else:
            raise Hangs(f"vhost-user: {late}") from late


# --- sessions ---------------------------------------------------------------------------------------------------------

FILE = ("--blockdev", "file,node-name=file,filename=a")
QCOW2 = (*FILE, "--blockdev", "qcow2,node-name=disk,file=file")
SERVER = ("--nbd-server", "addr.type=unix,addr.path=nbd")


def requests_by_nbd(session):
    if session.monitor():
        nbd_requests(session)


def requests_by_vhost(session):
    if session.monitor():
        vhost_requests(session)


def commands(session):
    address = {"type": "unix", "data": {"path": "nbd"}}
    session.qmp("query-version")
    session.qmp("blockdev-add", {"driver": "file", "node-name": "file", "filename": "a"})
    session.qmp("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
    session.qmp("nbd-server-start", {"addr": address})
    session.qmp("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": True})
    nbd_requests(session)
    session.qmp("query-block-exports")
    session.qmp("block-export-del", {"id": "e", "mode": "hard"})
    session.qmp("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "disk", "file": "file", "read-only": True}]})
    session.qmp("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "disk", "file": "file"}]})
    session.qmp("block-export-add", {"type": "vhost-user-blk", "id": "v", "node-name": "disk", "writable": True,
                                     "addr": {"type": "unix", "path": "vhost"}})
    vhost_requests(session)
    session.qmp("query-named-block-nodes")
    session.qmp("block-export-del", {"id": "v", "mode": "hard"})
    session.qmp("nbd-server-stop")
    session.qmp("blockdev-add", {"driver": "raw", "node-name": "window", "offset": 65536, "size": 65536,
                                 "file": {"driver": "file", "filename": "a2"}})
    session.qmp("blockdev-del", {"node-name": "window"})
    session.qmp("blockdev-del", {"node-name": "disk"})
    session.qmp("blockdev-del", {"node-name": "file"})


def make_images():
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", "a", SIZE)
    io("a", "write -q -P 17 0 300k", "write -q -P 19 1M 200000", "write -q -P 20 2M 100k", form="qcow2")
    shutil.copy("a", "a2")
    img("create", "-q", "-f", "qcow2", "-b", "a", "-F", "qcow2", "overlay")
    img("convert", "-f", "qcow2", "-O", "raw", "a", "flat")
    shutil.copy("flat", "raw")


def judge_image(path, form):
    def problem(session):
        if form == "qcow2" and (trouble := check_problem(path)):
            return trouble
        img("convert", "-f", form, "-O", "raw", path, "after")
        after = content("after")
        for start in range(0, SIZE, 512):
            if not session.may_be(start, after[start:start + 512]):
                return f"the sector at {start} is none that was written" + (" and acknowledged" if len(session.possible) == 1 else "")
        return None
    return problem


def case(words, actions, path="a", form="qcow2"):
    return Case(make_images, words, actions, judge_image(path, form))


OVERLAY = ("--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=overlay", *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on")
daemon_faults.main({
    "start": case((*QCOW2, *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on", "--export",
                   "vhost-user-blk,id=v,node-name=disk,addr.type=unix,addr.path=vhost", "--pidfile", "pid", "--object", "main-loop,id=o"),
                  Session.monitor),
    "start with an overlay": case(OVERLAY, Session.monitor, "overlay"),
    "NBD": case((*QCOW2, *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on"), requests_by_nbd),
    "NBD raw": case(("--blockdev", "file,node-name=disk,filename=raw", *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on"),
                    requests_by_nbd, "raw", "raw"),
    "NBD overlay": case(OVERLAY, requests_by_nbd, "overlay"),
    "vhost-user": case((*QCOW2, "--export", "vhost-user-blk,id=v,node-name=disk,writable=on,addr.type=unix,addr.path=vhost"), requests_by_vhost),
    "commands": case((), commands),
}, BUDGET)
