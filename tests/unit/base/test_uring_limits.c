/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: the loop's ring opens files or sockets for whoever has taken the process over, past any filter
 * of system calls; or the restrictions are so tight that the loop itself cannot work. */
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <sys/socket.h>
#include "base/cleanup.h"
#include "base/loop_private.h"
#include "tests/unit/base/check.h"

/* The ring is the first member of the back end's state. */
static int result_of(struct io_uring *ring, void (*prepare)(struct io_uring_sqe *sqe))
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe;
    prepare(sqe);
    io_uring_sqe_set_data64(sqe, 3); /* belongs to nobody */
    assert_int_equal(io_uring_submit(ring), 1);
    assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
    int result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result;
}

static void prepare_open(struct io_uring_sqe *sqe)
{
    io_uring_prep_openat(sqe, AT_FDCWD, "/dev/null", O_RDONLY, 0);
}

static void prepare_socket(struct io_uring_sqe *sqe)
{
    io_uring_prep_socket(sqe, AF_UNIX, SOCK_STREAM, 0, 0);
}

static void prepare_rename(struct io_uring_sqe *sqe)
{
    io_uring_prep_renameat(sqe, AT_FDCWD, "a", AT_FDCWD, "b", 0);
}

static void prepare_nothing(struct io_uring_sqe *sqe)
{
    io_uring_prep_nop(sqe);
}

static void test_only_what_the_loop_uses(void **state)
{
    auto_error err = {0};
    struct loop *loop = loop_new(LOOP_URING, 0, &err);
    if (!loop) {
        printf("no io_uring here: %s\n", err.message);
        skip();
    }
    struct io_uring *ring = loop->backend_state;
    assert_int_equal(result_of(ring, prepare_nothing), 0);
    assert_int_equal(result_of(ring, prepare_open), -EACCES);
    assert_int_equal(result_of(ring, prepare_socket), -EACCES);
    assert_int_equal(result_of(ring, prepare_rename), -EACCES);
    int fds[1] = {0};
    assert_true(io_uring_register(ring->ring_fd, IORING_REGISTER_FILES, fds, 1) < 0); /* for ever */
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_only_what_the_loop_uses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
