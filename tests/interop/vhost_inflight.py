#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest loses requests when the storage daemon is killed and started again: on split and packed rings, with several queues.
# labels: quick interop
# timeout: 120
import os
import random
import signal
import subprocess
import time
import vhost_user as v

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
DISK = 8 << 20
daemons = []


def start(path, blockdev, queues=2):
    if os.path.exists(path):
        os.unlink(path)
    daemons.append(subprocess.Popen([DAEMON, "--blockdev", blockdev, "--export",
                                     f"vhost-user-blk,id=e,node-name=d,writable=on,num-queues={queues},addr.type=unix,addr.path={path}"]))
    return daemons[-1]


def kill(daemon):
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()


def all_in_flight(packed):
    """Everything is in flight when the daemon dies: nothing has been answered, everything is after the restart."""
    path = "v.sock"
    daemon = start(path, "null-aio,node-name=d,size=8388608,latency-ns=400000000")
    front = v.FrontEnd(path)
    front.start(queues=2, size=128, packed=packed, inflight=True)
    slots = [[queue.submit(v.READ, 8 * i, length=4096) for i in range(40)] for queue in front.queues]
    time.sleep(0.15)
    assert not any(queue.collect() for queue in front.queues), "the disk is too quick for this test"
    kill(daemon)
    daemon = start(path, "null-aio,node-name=d,size=8388608,latency-ns=1000000")
    assert not any(front.resume(path))
    for queue, mine in zip(front.queues, slots):
        assert set(queue.wait(mine).values()) == {0}
        more = [queue.submit(v.READ, 0, length=512) for _ in range(30)]  # and the ring goes on
        assert set(queue.wait(more).values()) == {0}
    front.disconnect()
    daemon.terminate()
    assert daemon.wait() == 0


def under_load(packed, seed, kills=12):
    """Writes all the time, killed at any time. In the end every block has what its last answered write said."""
    rng = random.Random(seed)
    path, image = "v.sock", "disk.img"
    with open(image, "wb") as out:
        out.truncate(DISK)
    blockdev = f"file,node-name=d,filename={image}"
    daemon = start(path, blockdev)
    front = v.FrontEnd(path)
    front.start(queues=2, size=64, packed=packed, inflight=True)
    blocks, expected, running, count = list(range(DISK // 4096)), {}, {}, 0
    answered = 0

    def take(queue, done):
        nonlocal answered
        for slot, status in done.items():
            block, data = running.pop((queue.index, slot))
            assert status == 0, f"write of block {block} failed with status {status}"
            expected[block] = data
            blocks.append(block)
            answered += 1

    for round_number in range(kills + 1):
        end = time.monotonic() + rng.uniform(0.02, 0.25)
        while time.monotonic() < end:
            for queue in front.queues:
                for _ in range(rng.randrange(8)):
                    if queue.free:
                        block = blocks.pop(rng.randrange(len(blocks)))
                        count += 1
                        data = count.to_bytes(8, "little") * 512
                        running[queue.index, queue.submit(v.WRITE, block * 8, data, kick=False)] = block, data
                queue.ring()
                take(queue, queue.collect())
        if round_number < kills:
            kill(daemon)
            daemon = start(path, blockdev)
            for queue, done in zip(front.queues, front.resume(path)):
                take(queue, done)
    for queue in front.queues:
        take(queue, queue.wait(list(queue.busy)))
    assert not running
    front.disconnect()
    daemon.terminate()
    assert daemon.wait() == 0
    with open(image, "rb") as disk:
        for block, data in expected.items():
            disk.seek(block * 4096)
            assert disk.read(4096) == data, f"block {block} has lost its last write"
    print(f"{'packed' if packed else 'split'}: {kills} kills, {answered} writes answered, none lost")


try:
    for is_packed in (False, True):
        all_in_flight(is_packed)
        under_load(is_packed, int(os.environ.get("SEED", "1")))
finally:
    for process in daemons:
        process.kill()
