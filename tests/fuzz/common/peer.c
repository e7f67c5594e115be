/* SPDX-License-Identifier: Apache-2.0 */
/* See peer.h. Everything belongs to the thread between start and stop. */
#include "tests/fuzz/common/peer.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/math.h"

enum { PATIENCE_MS = 10, MESSAGE_MAX = 4096 };
enum deviation { NONE, XOR, TRUNCATE, APPEND, REPLACE, TWICE, CLOSE, NUMBER, WITHOUT_DESCRIPTOR, DEVIATIONS };

static void *run(void *arg)
{
    struct fuzz_peer *peer = arg;
    const struct timeval patience = {0, PATIENCE_MS * 1000};
    int fd;
    while ((fd = accept(peer->listening, NULL, NULL)) >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        peer->serve(peer, fd);
        close(fd);
    }
    return NULL;
}

void fuzz_peer_start(struct fuzz_peer *peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(peer->path, sizeof peer->path, "/tmp/fuzz-peer.%d", (int)getpid());
    strcpy(address.sun_path, peer->path);
    unlink(peer->path);
    peer->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FUZZ_CHECK(peer->listening >= 0 && bind(peer->listening, (struct sockaddr *)&address, sizeof address) == 0 &&
               listen(peer->listening, 8) == 0);
    FUZZ_CHECK(pthread_create(&peer->thread, NULL, run, peer) == 0);
}

void fuzz_peer_stop(struct fuzz_peer *peer)
{
    shutdown(peer->listening, SHUT_RDWR);
    pthread_join(peer->thread, NULL);
    close(peer->listening);
    unlink(peer->path);
}

static bool send_all(int fd, const uint8_t *bytes, size_t size, int passed)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)bytes, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (!size)
        return true;
    if (passed >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *ancillary = CMSG_FIRSTHDR(&message);
        ancillary->cmsg_level = SOL_SOCKET;
        ancillary->cmsg_type = SCM_RIGHTS;
        ancillary->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(ancillary), &passed, sizeof passed);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)size;
}

/* op, where (2), bytes */
static bool send_deviating(const struct record *record, int fd, uint8_t *bytes, size_t size, int passed)
{
    size_t at = record_number(record, 1, 2) % (size + 1), more = record->size - MIN(record->size, (size_t)3);
    const uint8_t *other = record->bytes + record->size - more;
    switch (record_number(record, 0, 1) % DEVIATIONS) {
    case XOR:
        for (size_t i = 0; i < more && at + i < size; i++)
            bytes[at + i] ^= other[i];
        break;
    case NUMBER: memcpy(bytes + at, other, MIN(more, size - at)); break;
    case TRUNCATE: return send_all(fd, bytes, at, passed);
    case REPLACE: return send_all(fd, other, more, passed);
    case APPEND: return send_all(fd, bytes, size, passed) && send_all(fd, other, more, -1);
    case TWICE: return send_all(fd, bytes, size, passed) && send_all(fd, bytes, size, passed);
    case CLOSE: return false;
    case WITHOUT_DESCRIPTOR: return send_all(fd, bytes, size, -1);
    default: break;
    }
    return send_all(fd, bytes, size, passed);
}

bool fuzz_peer_send(struct fuzz_peer *peer, int fd, const void *bytes, size_t size, int passed)
{
    uint8_t message[MESSAGE_MAX];
    struct record record;
    FUZZ_CHECK(size <= sizeof message);
    memcpy(message, bytes, size);
    if (!record_next(&peer->script, &record))
        return send_all(fd, message, size, passed);
    return send_deviating(&record, fd, message, size, passed);
}

bool fuzz_peer_receive(int fd, void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = recv(fd, (uint8_t *)bytes + done, size - done, 0);
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

size_t fuzz_peer_fresh_deviation(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    uint16_t at = (uint16_t)fuzz_draw(random, fuzz_draw(random, 2) ? 24 : 256);
    uint64_t number = fuzz_interesting(random);
    bytes[0] = fuzz_draw(random, 2) ? NONE : (uint8_t)fuzz_draw(random, DEVIATIONS);
    memcpy(bytes + 1, &at, 2);
    if (fuzz_draw(random, 2))
        number = __builtin_bswap64(number);
    memcpy(bytes + 3, &number, 8);
    return 3 + fuzz_draw(random, 9);
}
