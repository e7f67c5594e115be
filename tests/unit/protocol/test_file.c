/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: the file driver loses bytes, holes, zeroes, sizes or locks, on some kind of loop or with some
 * engine. Works in files of its own in the current folder. */
#include "tests/unit/base/loops.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/create.h"
#include "block/request.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"

static const char *path(void)
{
    return is_simulated() ? "disk" : "test_file.img";
}

static struct graph *start(void)
{
    return graph_new(loop_current(), protocol_table);
}

/* Opens the file with more options in key=value form; NULL and *message on failure. */
static struct node *open_with(struct graph *graph, const char *more, char **message)
{
    auto_error err = {0};
    auto_free char *text = xasprintf("driver=file,discard=unmap,filename=%s%s", path(), more);
    struct blockdev_options *options = NULL;
    if (!blockdev_options_from_keyval(text, NULL, &options, &err)) {
        print_error("%s: %s\n", text, err.message);
        abort();
    }
    struct node *node = node_open(graph, options, &err);
    blockdev_options_free(options);
    if (!node && !message) {
        print_error("%s: %s\n", text, err.message);
        abort();
    }
    if (message)
        *message = node ? NULL : TAKE(err.message);
    return node;
}

static void make(struct graph *graph, uint64_t size)
{
    auto_error err = {0};
    auto_raw_create_options *options = raw_create_options_new();
    options->size = size;
    if (!file_driver.create->create_file(graph, path(), options, &err)) {
        print_error("%s\n", err.message);
        abort();
    }
}

#define READ_WRITE (BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE)

static struct edge *use(struct node *node)
{
    auto_error err = {0};
    struct edge *edge = edge_attach(NULL, "test", node, READ_WRITE, BLOCK_PERM_ALL, &err);
    if (!edge)
        print_error("%s\n", err.message);
    assert_non_null(edge);
    node_unref(node);
    return edge;
}

static void check_span(struct edge *edge, uint64_t offset, size_t length, int byte)
{
    uint8_t *buffer = xmalloc(length);
    memset(buffer, ~byte, length);
    assert_int_equal(block_read_buffer(edge, offset, buffer, length), 0);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(buffer[i], (uint8_t)byte);
    free(buffer);
}

static void fill_span(struct edge *edge, uint64_t offset, size_t length, int byte, uint32_t flags)
{
    uint8_t *buffer = xmalloc(length);
    memset(buffer, byte, length);
    assert_int_equal(block_write_buffer(edge, offset, buffer, length, flags), 0);
    free(buffer);
}

static void exercise(struct edge *edge)
{
    fill_span(edge, 0, 8192, 1, 0);
    fill_span(edge, 8192, 4096, 2, REQUEST_FUA);
    fill_span(edge, 70000, 1234, 3, 0);
    check_span(edge, 0, 8192, 1);
    check_span(edge, 8192, 4096, 2);
    check_span(edge, 70000, 1234, 3);
    check_span(edge, 71234, 1000, 0);
    assert_int_equal(block_zero(edge, 4096, 4096, 0), 0);
    assert_int_equal(block_zero(edge, 70100, 100, REQUEST_MAY_UNMAP), 0);
    check_span(edge, 0, 4096, 1);
    check_span(edge, 4096, 4096, 0);
    check_span(edge, 70000, 100, 3);
    check_span(edge, 70100, 100, 0);
    check_span(edge, 70200, 1034, 3);

    uint8_t pieces[40][100];
    struct iovec iov[40];
    for (int i = 0; i < 40; i++) {
        memset(pieces[i], 100 + i, sizeof pieces[i]);
        iov[i] = (struct iovec){pieces[i], sizeof pieces[i]};
    }
    assert_int_equal(block_write(edge, 20000, 3900, buffers_skip(buffers_of(iov, 40), 50), 0), 0);
    check_span(edge, 20000, 50, 100);
    check_span(edge, 20050, 100, 101);
    check_span(edge, 23850, 50, 139);
    memset(pieces, 0, sizeof pieces);
    assert_int_equal(block_read(edge, 20000, 3900, buffers_skip(buffers_of(iov, 40), 50), 0), 0);
    assert_int_equal(pieces[0][49], 0);
    assert_int_equal(pieces[0][50], 100);
    assert_int_equal(pieces[39][49], 139);
    assert_int_equal(pieces[39][50], 0);
    assert_int_equal(block_flush(edge), 0);
}

static int bytes_come_back(void *arg)
{
    struct graph *graph = start();
    make(graph, 1 * MiB);
    struct edge *edge = use(open_with(graph, arg, NULL));
    exercise(edge);
    edge_detach(edge);
    graph_free(graph);
    return 0;
}

static int holes_and_sizes(void *arg)
{
    struct graph *graph = start();
    make(graph, 1 * MiB);
    struct edge *edge = use(open_with(graph, "", NULL));
    struct block_status status;
    assert_int_equal(block_status(edge, 0, 1 * MiB, 0, &status), 0);
    assert_true(status.zero && !status.data);
    fill_span(edge, 65536, 65536, 7, 0);
    assert_int_equal(block_status(edge, 0, 1 * MiB, 0, &status), 0);
    assert_true(status.zero);
    assert_int_equal(status.length, 65536);
    assert_int_equal(block_status(edge, 65536, 1 * MiB - 65536, 0, &status), 0);
    assert_true(status.data && !status.zero);
    assert_int_equal(status.length, 65536);
    assert_ptr_equal(status.node, edge->child);
    assert_int_equal(status.offset, 65536);
    /* What was remembered as data must be forgotten. */
    assert_int_equal(block_discard(edge, 65536, 65536), 0);
    assert_int_equal(block_status(edge, 65536, 65536, 0, &status), 0);
    assert_true(status.zero);
    check_span(edge, 65536, 65536, 0);

    /* Growing: by resize, by writing, by zeroing. */
    assert_true(node_resize(edge, 2 * MiB, PREALLOCATION_OFF, true, NULL));
    assert_int_equal(edge->child->size, 2 * MiB);
    fill_span(edge, 3 * MiB, 100, 9, 0);
    assert_int_equal(edge->child->size, 3 * MiB + 100);
    check_span(edge, 2 * MiB, 4096, 0);
    assert_int_equal(block_zero(edge, 4 * MiB, 4096, 0), 0);
    assert_int_equal(edge->child->size, 4 * MiB + 4096);
    assert_int_equal(block_zero(edge, 5 * MiB, 4096, REQUEST_MAY_UNMAP), 0);
    assert_int_equal(edge->child->size, 5 * MiB + 4096);
    check_span(edge, 4 * MiB, MiB, 0);
    auto_error err = {0};
    assert_false(node_resize(edge, 1 * MiB, PREALLOCATION_FULL, true, &err));
    assert_true(node_resize(edge, 1000, PREALLOCATION_OFF, true, NULL));
    check_span(edge, 0, 1000, 0);
    edge_detach(edge);
    graph_free(graph);
    return 0;
}

static int preallocation_modes(void *arg)
{
    struct graph *graph = start();
    make(graph, 0);
    struct edge *edge = use(open_with(graph, "", NULL));
    fill_span(edge, 0, 4096, 5, 0);
    assert_true(node_resize(edge, 1 * MiB, PREALLOCATION_FULL, true, NULL));
    assert_true(node_allocated_size(edge->child) >= (int64_t)MiB);
    assert_true(node_resize(edge, 2 * MiB, PREALLOCATION_FALLOC, true, NULL));
    assert_true(node_allocated_size(edge->child) >= (int64_t)(2 * MiB));
    auto_error err = {0};
    assert_false(node_resize(edge, 3 * MiB, PREALLOCATION_METADATA, true, &err));
    assert_non_null(strstr(err.message, "Unsupported preallocation mode"));
    assert_int_equal(edge->child->size, 2 * MiB);
    check_span(edge, 0, 4096, 5);
    check_span(edge, 4096, 2 * MiB - 4096, 0);
    edge_detach(edge);
    graph_free(graph);
    return 0;
}

/* Two nodes on one file are like two programs. */
static int second_writer_is_refused(void *arg)
{
    struct graph *graph = start();
    make(graph, 1 * MiB);
    struct node *first = open_with(graph, "", NULL), *second = open_with(graph, "", NULL);
    auto_error err = {0};
    struct edge *edge = edge_attach(NULL, "one", first, READ_WRITE, BLOCK_PERM_CONSISTENT_READ, &err);
    assert_non_null(edge);
    assert_null(edge_attach(NULL, "two", second, READ_WRITE, BLOCK_PERM_ALL, &err));
    assert_non_null(strstr(err.message, "Failed to get \"write\" lock"));
    assert_null(strchr(err.message, '\n')); /* QMP shows the message, programs the hint too */
    assert_non_null(strstr(err.hint, "Is another process using the image ["));
    error_clear(&err);
    assert_null(edge_attach(NULL, "two", second, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_CONSISTENT_READ, &err));
    assert_non_null(strstr(err.message, "Failed to get shared \"write\" lock"));
    error_clear(&err);
    /* A reader who does not mind may read. */
    struct edge *reader = edge_attach(NULL, "two", second, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, &err);
    assert_non_null(reader);
    edge_detach(edge);
    assert_true(edge_set_perm(reader, READ_WRITE, BLOCK_PERM_ALL, &err)); /* the first one let go */
    auto_raw_create_options *options = raw_create_options_new();
    assert_false(file_driver.create->create_file(graph, path(), options, &err)); /* nobody empties a file in use */
    error_clear(&err);
    assert_int_equal(second->size, 1 * MiB);
    edge_detach(reader);

    struct node *shared = open_with(graph, ",read-only=on,force-share=on", NULL);
    struct node *unlocked = open_with(graph, ",locking=off", NULL);
    struct edge *edges[3] = {
        edge_attach(NULL, "one", first, READ_WRITE, BLOCK_PERM_CONSISTENT_READ, &err),
        edge_attach(NULL, "forced", shared, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_CONSISTENT_READ, &err),
        edge_attach(NULL, "unlocked", unlocked, READ_WRITE, BLOCK_PERM_CONSISTENT_READ, &err)};
    for (int i = 0; i < 3; i++) {
        assert_non_null(edges[i]);
        edge_detach(edges[i]);
    }
    node_unref(shared);
    node_unref(unlocked);
    node_unref(first);
    node_unref(second);
    graph_free(graph);
    return 0;
}

static void let_go_later(void *arg)
{
    co_sleep_ns(150 * 1000 * 1000);
    edge_detach(arg);
}

/* As that of a process that was killed and has not quite gone. */
static int brief_conflict_is_waited_out(void *arg)
{
    struct graph *graph = start();
    make(graph, 1 * MiB);
    struct node *first = open_with(graph, "", NULL), *second = open_with(graph, "", NULL);
    auto_error err = {0};
    struct edge *dying = edge_attach(NULL, "one", first, READ_WRITE, BLOCK_PERM_CONSISTENT_READ, &err);
    assert_non_null(dying);
    struct co_group group;
    co_group_init(&group);
    co_spawn(graph_loop(graph), &group, let_go_later, dying);
    struct edge *next = edge_attach(NULL, "two", second, READ_WRITE, BLOCK_PERM_CONSISTENT_READ, &err);
    assert_non_null(next);
    assert_false(error_is_set(&err));
    co_group_wait(&group);
    edge_detach(next);
    node_unref(first);
    node_unref(second);
    graph_free(graph);
    return 0;
}

static int wrong_files(void *arg)
{
    struct graph *graph = start();
    char *message;
    unlink(path());
    assert_null(open_with(graph, "", &message));
    assert_non_null(strstr(message, path()));
    free(message);
    assert_int_equal(mkfifo(path(), 0600), 0);
    assert_null(open_with(graph, "", &message)); /* must not wait for the other end */
    assert_non_null(strstr(message, "regular file"));
    free(message);
    unlink(path());
    make(graph, 4096);
    assert_null(open_with(graph, ",aio=native", &message));
    assert_non_null(strstr(message, "cache.direct=on"));
    free(message);
    graph_free(graph);
    return 0;
}

static int reopening(void *arg)
{
    struct graph *graph = start();
    make(graph, 1 * MiB);
    struct node *node = open_with(graph, ",node-name=f,read-only=on,auto-read-only=on", NULL);
    assert_true(node->read_only);
    auto_error err = {0};
    /* Somebody wants to write: auto-read-only lets the node become writable. */
    struct edge *edge = edge_attach(NULL, "writer", node, READ_WRITE, BLOCK_PERM_CONSISTENT_READ, &err);
    assert_non_null(edge);
    fill_span(edge, 0, 512, 1, 0);

    struct blockdev_options *options = NULL;
    auto_free char *text = xasprintf("driver=file,node-name=f,filename=%s,cache.direct=on", path());
    assert_true(blockdev_options_from_keyval(text, NULL, &options, &err));
    if (!graph_reopen(graph, &options, 1, &err)) /* no O_DIRECT on this file system */
        assert_non_null(strstr(err.message, "O_DIRECT"));
    else
        assert_true(node->limits.request_alignment >= 512);
    fill_span(edge, 100, 1000, 2, 0);
    check_span(edge, 0, 100, 1);
    check_span(edge, 100, 1000, 2);
    /* The locks went along. */
    struct node *second = open_with(graph, "", NULL);
    error_clear(&err);
    assert_null(edge_attach(NULL, "two", second, READ_WRITE, BLOCK_PERM_ALL, &err));
    node_unref(second);
    error_clear(&err);

    blockdev_options_free(options);
    text[0] = 'd';
    auto_free char *other = xasprintf("driver=file,node-name=f,filename=%s.other", path());
    assert_true(blockdev_options_from_keyval(other, NULL, &options, &err));
    assert_false(graph_reopen(graph, &options, 1, &err));
    assert_non_null(strstr(err.message, "filename"));
    blockdev_options_free(options);
    edge_detach(edge);
    node_unref(node);
    graph_free(graph);
    return 0;
}

static int copying(void *arg)
{
    struct graph *graph = start();
    make(graph, 4 * MiB);
    struct edge *edge = use(open_with(graph, "", NULL));
    fill_span(edge, 1 * MiB, 65536, 6, 0);
    assert_int_equal(block_copy(edge, 0, edge, 2 * MiB, 2 * MiB, BLOCK_COPY_OFFLOAD), 0);
    check_span(edge, 2 * MiB, 1 * MiB, 0);
    check_span(edge, 3 * MiB, 65536, 6);
    check_span(edge, 3 * MiB + 65536, 1 * MiB - 65536, 0);
    assert_int_equal(block_copy(edge, 1 * MiB, edge, 0, 65536, 0), 0);
    check_span(edge, 0, 65536, 6);
    edge_detach(edge);
    graph_free(graph);
    return 0;
}

static void run_all(void **state, int (*fn)(void *arg), void *arg)
{
    run_on_loop(state, fn, arg);
    unlink("test_file.img");
}

static void buffered(void **state)
{
    run_all(state, bytes_come_back, "");
}
static void direct(void **state)
{
    run_all(state, bytes_come_back, ",cache.direct=on");
}
static void with_threads(void **state)
{
    run_all(state, bytes_come_back, ",aio=threads");
}
static void with_threads_direct(void **state)
{
    run_all(state, bytes_come_back, ",aio=threads,cache.direct=on");
}
static void with_native(void **state)
{
    run_all(state, bytes_come_back, ",aio=native,cache.direct=on");
}
static void sparse(void **state)
{
    run_all(state, holes_and_sizes, NULL);
}
static void preallocated(void **state)
{
    run_all(state, preallocation_modes, NULL);
}
static void locked(void **state)
{
    run_all(state, second_writer_is_refused, NULL);
}
static void locked_for_a_moment(void **state)
{
    run_all(state, brief_conflict_is_waited_out, NULL);
}
static void refused(void **state)
{
    run_all(state, wrong_files, NULL);
}
static void reopened(void **state)
{
    run_all(state, reopening, NULL);
}
static void copied(void **state)
{
    run_all(state, copying, NULL);
}

int main(void)
{
    char folder[] = "/tmp/spindle-file-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(buffered),
        ON_REAL_LOOPS(direct),
        ON_REAL_LOOPS(with_threads),
        ON_REAL_LOOPS(with_threads_direct),
        ONE_LOOP(with_native, kind_epoll),
        ON_EVERY_LOOP(sparse),
        ON_REAL_LOOPS(preallocated),
        ON_REAL_LOOPS(locked),
        ON_EVERY_LOOP(locked_for_a_moment),
        ON_REAL_LOOPS(refused),
        ON_REAL_LOOPS(reopened),
        ON_REAL_LOOPS(copied),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    if (chdir("/") == 0)
        rmdir(folder);
    return result;
}
