/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: bytes are lost or reordered, ends and errors of streams are misreported, listeners misbehave.
 */
#include "tests/unit/base/loops.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/rng.h"
#include "base/stream.h"

static void make_pair(struct stream *pair[2])
{
    struct error err = {0};
    assert_true(stream_pair(loop_current(), pair, &err));
}

/* --- bytes --- */

#define TOTAL (3 << 20)

struct transfer {
    struct stream *stream;
    uint64_t seed;
};

static void send_all(void *arg)
{
    struct transfer *t = arg;
    struct rng content, sizes;
    rng_seed(&content, t->seed);
    rng_seed(&sizes, 1);
    unsigned char *data = xmalloc(TOTAL);
    rng_fill(&content, data, TOTAL);
    for (size_t done = 0; done < TOTAL;) {
        struct iovec iov[5] = {0};
        int n = 0;
        for (; n < 5 && done < TOTAL; n++) {
            size_t size = MIN((size_t)rng_below(&sizes, 100000), TOTAL - done);
            iov[n] = (struct iovec){data + done, size};
            done += size;
        }
        assert_int_equal(stream_sendv(t->stream, iov, n), 0);
    }
    free(data);
}

static void receive_all(void *arg)
{
    struct transfer *t = arg;
    struct rng content, sizes;
    rng_seed(&content, t->seed);
    rng_seed(&sizes, 2);
    unsigned char *wanted = xmalloc(TOTAL), *buffer = xmalloc(100000);
    rng_fill(&content, wanted, TOTAL);
    for (size_t done = 0; done < TOTAL;) {
        size_t size = MIN((size_t)rng_between(&sizes, 1, 100000), TOTAL - done);
        ssize_t n = (ssize_t)size;
        if (rng_coin(&sizes))
            assert_int_equal(stream_recv_all(t->stream, buffer, size), 0);
        else
            n = stream_recv(t->stream, buffer, size);
        assert_true(n > 0 && (size_t)n <= size);
        assert_memory_equal(buffer, wanted + done, n);
        done += (size_t)n;
    }
    free(wanted);
    free(buffer);
}

static int both_ways_main(void *arg)
{
    struct stream *pair[2];
    make_pair(pair);
    struct transfer t[2] = {{pair[0], 1}, {pair[1], 2}}, r[2] = {{pair[1], 1}, {pair[0], 2}};
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 2; i++) {
        co_spawn(loop_current(), &group, send_all, &t[i]);
        co_spawn(loop_current(), &group, receive_all, &r[i]);
    }
    co_group_wait(&group);
    stream_close(pair[0]);
    stream_close(pair[1]);
    return 0;
}

static void bytes_go_both_ways_at_once(void **state)
{
    run_on_loop(state, both_ways_main, NULL);
}

/* --- ends --- */

static int ends_main(void *arg)
{
    struct stream *pair[2];
    char buffer[8];
    make_pair(pair);
    assert_int_equal(stream_send_all(pair[0], "abc", 3), 0);
    assert_int_equal(stream_send_all(pair[0], "", 0), 0);
    stream_close(pair[0]);
    assert_int_equal(stream_recv_all(pair[1], buffer, 2), 0); /* what was sent before still arrives */
    assert_int_equal(stream_recv_all(pair[1], buffer, 2), -ECONNRESET);
    assert_int_equal(stream_recv_all(pair[1], buffer, 2), -ESHUTDOWN);
    assert_int_equal(stream_recv(pair[1], buffer, 2), 0);
    int code = 0;
    for (int i = 0; i < 10 && !code; i++)
        code = stream_send_all(pair[1], "x", 1);
    assert_int_equal(code, -EPIPE);
    stream_close(pair[1]);
    return 0;
}

static void ends_are_told_apart(void **state)
{
    run_on_loop(state, ends_main, NULL);
}

struct waiting {
    struct stream *stream;
    int result;
};

static void wait_recv(void *arg)
{
    struct waiting *w = arg;
    char byte;
    w->result = (int)stream_recv(w->stream, &byte, 1);
}

static void wait_send(void *arg)
{
    struct waiting *w = arg;
    static const char block[65536];
    do
        w->result = stream_send_all(w->stream, block, sizeof block);
    while (!w->result);
}

static int shutdown_main(void *arg)
{
    struct stream *pair[2];
    make_pair(pair);
    struct waiting receiver = {pair[0], 1}, sender = {pair[0], 1};
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, wait_recv, &receiver);
    co_spawn(loop_current(), &group, wait_send, &sender);
    co_sleep_ns(2000000);
    assert_int_equal(group.running, 2);
    stream_shutdown(pair[0]);
    co_group_wait(&group);
    assert_int_equal(receiver.result, -ECONNRESET);
    assert_int_equal(sender.result, -EPIPE);
    char byte;
    assert_int_equal(stream_recv(pair[0], &byte, 1), -ECONNRESET);
    assert_int_equal(stream_send_all(pair[0], "x", 1), -EPIPE);
    stream_shutdown(pair[0]);
    stream_close(pair[0]);
    stream_close(pair[1]);
    return 0;
}

static void shutdown_wakes_both_sides(void **state)
{
    run_on_loop(state, shutdown_main, NULL);
}

/* --- descriptors --- */

static int count_open(void)
{
    int n = 0;
    for (int fd = 0; fd < 1000; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int fds_main(void *arg)
{
    struct stream *pair[2];
    make_pair(pair);
    int ends[2], got[2] = {-1, -1}, n;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(stream_send_fds(pair[0], "hello", 5, ends, 2), 0);
    char buffer[8];
    assert_int_equal(stream_recv_fds(pair[1], buffer, sizeof buffer, got, 2, &n), 5);
    assert_int_equal(n, 2);
    assert_int_equal(write(got[1], "!", 1), 1);
    assert_int_equal(read(ends[0], buffer, 1), 1);
    close(got[0]);
    close(got[1]);
    /* More than we have room for: the rest is closed, so that a stranger cannot fill our table. */
    assert_int_equal(stream_send_fds(pair[0], "x", 1, ends, 2), 0);
    int before = count_open();
    assert_int_equal(stream_recv_fds(pair[1], buffer, sizeof buffer, got, 1, &n), 1);
    assert_int_equal(n, 1);
    assert_int_equal(count_open(), before + 1);
    close(got[0]);
    assert_int_equal(stream_send_all(pair[0], "y", 1), 0);
    assert_int_equal(stream_recv_fds(pair[1], buffer, sizeof buffer, got, 1, &n), 1);
    assert_int_equal(n, 0);
    close(ends[0]);
    close(ends[1]);
    stream_close(pair[0]);
    stream_close(pair[1]);
    return 0;
}

static void descriptors_are_passed(void **state)
{
    run_on_loop(state, fds_main, NULL);
}

/* --- addresses --- */

static void serve_one(void *arg)
{
    int code;
    struct stream *stream = listener_accept(arg, &code);
    assert_non_null(stream);
    char buffer[16];
    ssize_t n;
    while ((n = stream_recv(stream, buffer, sizeof buffer)) > 0)
        assert_int_equal(stream_send_all(stream, buffer, (size_t)n), 0);
    assert_int_equal(n, 0);
    stream_close(stream);
}

static void talk(const struct stream_address *address, struct listener *listener, const char *peer)
{
    struct error err = {0};
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 3; i++)
        co_spawn(loop_current(), &group, serve_one, listener);
    struct stream *streams[3];
    for (int i = 0; i < 3; i++) {
        streams[i] = stream_connect(loop_current(), address, &err);
        if (!streams[i])
            print_error("%s\n", err.message);
        assert_non_null(streams[i]);
        assert_string_equal(streams[i]->peer, peer);
        assert_int_equal(stream_send_all(streams[i], "ping", 4), 0);
    }
    for (int i = 0; i < 3; i++) {
        char buffer[4];
        assert_int_equal(stream_recv_all(streams[i], buffer, 4), 0);
        assert_memory_equal(buffer, "ping", 4);
        stream_close(streams[i]);
    }
    co_group_wait(&group);
}

static int tcp_main(void *arg)
{
    struct error err = {0};
    struct stream_address address = {.kind = SOCKET_INET, .host = "127.0.0.1", .port = is_simulated() ? "7" : "0"};
    struct listener *listener = listener_new(loop_current(), &address, 8, &err);
    assert_non_null(listener);
    char name[64];
    strcpy(name, listener_name(listener));
    assert_int_equal(strncmp(name, "127.0.0.1:", 10), 0);
    address.port = strrchr(name, ':') + 1;
    talk(&address, listener, name);
    /* The port is taken. */
    assert_null(listener_new(loop_current(), &address, 8, &err));
    assert_int_equal(err.code, EADDRINUSE);
    assert_non_null(strstr(err.message, address.port));
    error_clear(&err);
    listener_close(listener);
    assert_null(stream_connect(loop_current(), &address, &err));
    assert_int_equal(err.code, ECONNREFUSED);
    error_clear(&err);
    return 0;
}

static void tcp(void **state)
{
    run_on_loop(state, tcp_main, NULL);
}

static int unix_main(void *arg)
{
    struct error err = {0};
    char path[64], name[80];
    snprintf(path, sizeof path, "/tmp/spindle-stream-%d", (int)getpid());
    snprintf(name, sizeof name, "unix:%s", path);
    unlink(path);
    struct stream_address address = {.kind = SOCKET_UNIX, .path = path};
    struct listener *listener = listener_new(loop_current(), &address, 8, &err);
    assert_non_null(listener);
    assert_string_equal(listener_name(listener), name);
    talk(&address, listener, name);
    assert_null(listener_new(loop_current(), &address, 8, &err)); /* somebody listens there */
    assert_int_equal(err.code, EADDRINUSE);
    error_clear(&err);
    listener_close(listener);
    if (is_simulated())
        return 0;
    struct stat st;
    assert_int_equal(stat(path, &st), -1);

    /* A socket file that a dead program left behind is taken over. */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_storage dead = {.ss_family = AF_UNIX};
    strcpy((char *)&dead + sizeof(sa_family_t), path);
    assert_int_equal(bind(fd, (struct sockaddr *)&dead, (socklen_t)(sizeof(sa_family_t) + strlen(path) + 1)), 0);
    close(fd);
    listener = listener_new(loop_current(), &address, 8, &err);
    assert_non_null(listener);
    listener_close(listener);

    char long_path[200];
    memset(long_path, 'x', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    address.path = long_path;
    assert_null(listener_new(loop_current(), &address, 8, &err));
    assert_int_equal(err.code, ENAMETOOLONG);
    assert_non_null(strstr(err.message, "107"));
    error_clear(&err);
    return 0;
}

static void unix_sockets(void **state)
{
    run_on_loop(state, unix_main, NULL);
}

static void accept_until_closed(void *arg)
{
    int code = 0;
    assert_null(listener_accept(arg, &code));
    assert_int_equal(code, -ECANCELED);
}

static int close_listener_main(void *arg)
{
    struct error err = {0};
    struct stream_address address = {.kind = SOCKET_INET, .host = "", .port = is_simulated() ? "9" : "0"};
    struct listener *listener = listener_new(loop_current(), &address, 8, &err);
    assert_non_null(listener);
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, accept_until_closed, listener);
    co_spawn(loop_current(), &group, accept_until_closed, listener);
    co_sleep_ns(1000000);
    listener_close(listener);
    co_group_wait(&group);
    return 0;
}

static void closing_a_listener_ends_accept(void **state)
{
    run_on_loop(state, close_listener_main, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(bytes_go_both_ways_at_once),
        ON_EVERY_LOOP(ends_are_told_apart),
        ON_EVERY_LOOP(shutdown_wakes_both_sides),
        ON_REAL_LOOPS(descriptors_are_passed),
        ON_EVERY_LOOP(tcp),
        ON_EVERY_LOOP(unix_sockets),
        ON_EVERY_LOOP(closing_a_listener_ends_accept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
