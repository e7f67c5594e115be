/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile server for a client that blocks: a thread that listens on a unix socket and answers as an honest server
 * would, but for the deviations that the input orders. The n-th record changes the n-th answer: bits, numbers, length,
 * what follows, whether it is sent at all or twice. A client that waits for more than it gets is hung up on soon.
 */
#ifndef TESTS_FUZZ_COMMON_PEER_H
#define TESTS_FUZZ_COMMON_PEER_H

#include <pthread.h>
#include "tests/fuzz/common/fuzz.h"

struct fuzz_peer {
    char path[64];
    struct records script;
    void (*serve)(struct fuzz_peer *peer, int fd); /* one connection, until it ends */
    void *arg;
    int listening;
    pthread_t thread;
};

void fuzz_peer_start(struct fuzz_peer *peer); /* script, serve and arg are set */
void fuzz_peer_stop(struct fuzz_peer *peer);  /* after the client has closed its connections */

/* False: the connection is to end. `passed`: a descriptor that travels along, or -1. */
bool fuzz_peer_send(struct fuzz_peer *peer, int fd, const void *bytes, size_t size, int passed);
bool fuzz_peer_receive(int fd, void *bytes, size_t size);

size_t fuzz_peer_fresh_deviation(struct fuzz_random *random, uint8_t bytes[RECORD_MAX]);

#endif
