/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated world of a loop made with LOOP_SIMULATED: virtual time, ready coroutines in an order drawn from the
 * seed, disks that lose, tear and reorder what was not flushed, and streams with delay. The same seed and the same
 * program give the same run, always. Whole daemons run inside it as tests.
 *
 * A simulated disk keeps of each file what programs see (the page cache) and what a power cut leaves (the platter).
 * io_file_open() on a simulated loop opens these files; file names are plain keys.
 *
 *     struct loop *loop = loop_new(LOOP_SIMULATED, seed, &err);
 *     loop_run_main(loop, workload, ...);
 *     sim_crash(loop, seed);             // what was not flushed is lost, kept or torn; open files are dead (-EIO)
 *     loop_run_main(loop, check, ...);   // opens the survivors
 *
 * Watches work on descriptors whose other end is in the same simulated world (eventfds, pipes): the kernel is asked
 * between steps without waiting, and what is ready is told after a simulated delay. Streams pass descriptors.
 *
 * Everything here is called on the loop's thread, inside or outside coroutines, and never yields.
 */
#ifndef BASE_SIM_H
#define BASE_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/loop.h"

/* Delays are drawn evenly from [low, high]. Changes hold for operations that begin later. */
struct sim_config {
    uint64_t disk_low_ns, disk_high_ns;     /* a file operation; default 20 us to 200 us */
    uint64_t work_low_ns, work_high_ns;     /* co_offload(); default 1 us to 100 us */
    uint64_t stream_low_ns, stream_high_ns; /* one way of a stream; default 5 us to 50 us */
    size_t stream_chunk;                    /* bytes arrive in pieces of 1 to so many; default 64 KiB */
    size_t stream_window;                   /* sender waits when so many bytes are under way; default 256 KiB */
    uint64_t disk_capacity;                 /* bytes that all files may allocate, else -ENOSPC; default none */
    /* One operation (one piece of a stream) in so many takes the time of a stall on top; 0, the default: none. */
    uint64_t disk_stall_one_in, stream_stall_one_in;
    uint64_t stall_low_ns, stall_high_ns; /* default 10 ms to 300 ms */
    /* A failed sync throws away what it should have made durable: programs still see it, but no later sync will save
     * it. So do kernels. Default off. */
    bool sync_failure_loses;
};
struct sim_config *sim_config(struct loop *loop);

/* The loop's own random numbers, for decisions of a test that must be repeatable. */
uint64_t sim_random(struct loop *loop, uint64_t limit);

/* Files. sim_file_put() makes or replaces a file, durable at once; sim_file_get() returns what programs see now (after
 * a crash that is what survived), to be freed by the caller, NULL when there is no such file. */
void sim_file_put(struct loop *loop, const char *path, const void *data, size_t size);
void *sim_file_get(struct loop *loop, const char *path, size_t *size);
bool sim_file_exists(struct loop *loop, const char *path);
bool sim_file_remove(struct loop *loop, const char *path);
/* Bytes written to a file but not yet durable. */
uint64_t sim_file_unflushed(struct loop *loop, const char *path);

/* Power cut. Of each write that was not flushed, each piece of 512 bytes is kept or dropped at random, likewise each
 * change of size and allocation, and the name of a file that was made and not synced since; `seed` draws the lot, so
 * that one run can be cut in many ways. Files open now answer -EIO from now on, also operations in flight; files opened
 * later see what survived. */
void sim_crash(struct loop *loop, uint64_t seed);
/* The end of the processes, not of the machine: open files are dead in the same way, but nothing that was seen is lost.
 */
void sim_kill(struct loop *loop);
/* The files of `to` become what a cut of `from` would leave at this moment, while `from` goes on as if nothing had
 * happened: one run can be cut at every operation, in many ways, and each time examined on another loop. No file may be
 * open on `to`. Bytes are shared until one side writes. */
enum sim_cut { SIM_POWER_CUT, SIM_KILL };
void sim_cut_copy(struct loop *to, struct loop *from, enum sim_cut kind, uint64_t seed);
/* As sync(2): everything that was written is durable, at once. */
void sim_sync(struct loop *loop);
/* Calls fn(arg) when the operation of that number begins (counted from now, 1 is the next), for example to cut there.
 */
void sim_at_operation(struct loop *loop, uint64_t number, void (*fn)(void *arg), void *arg);

/* Calls fn(arg) after each step of a coroutine in which file operations have begun, on the loop's own stack: other
 * loops may be run there. NULL: no more. */
void sim_observe(struct loop *loop, void (*fn)(void *arg), void *arg);
uint64_t sim_operations(struct loop *loop); /* begun so far */

enum sim_operation {
    SIM_READ = 1,
    SIM_WRITE = 2,
    SIM_SYNC = 4,
    SIM_FALLOCATE = 8,
    SIM_TRUNCATE = 16,
    SIM_ANY = 31,
};
/* Lets the `number`-th (1: the next) matching operation and the `count - 1` after it fail with a positive errno value.
 * `path` NULL: any file. A failed write leaves a random number of whole sectors behind, as disks do; a failed sync
 * makes nothing durable. One such order at a time for each call; sim_fail_clear() withdraws them all. */
void sim_fail(struct loop *loop, const char *path, unsigned operations, uint64_t number, uint64_t count, int error);
void sim_fail_clear(struct loop *loop);

/* Cuts the line of a simulated stream: both sides get -ECONNRESET and -EPIPE; what was under way is lost. */
struct stream;
void sim_stream_break(struct stream *stream);

#endif
