/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links: protocol formats formats/qcow2
 *
 * Broken if this fails: a worker that somebody has taken over harms its owner: by lies, by silence, by ending.
 *
 * The doorman executes its own program as the worker. Here that is this test, so what it starts is a worker of our own
 * making: it answers honestly until the file's first byte tells it what to do. The real driver, the real doorman and
 * the real link stand on the other side. A second, direct node on the same loop must go on working.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "block/request.h"
#include "confined/doorman.h"
#include "confined/protocol.h"
#include "confined/worker.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
#include "tests/unit/base/check.h"

enum behaviour {
    HONEST,
    LIE_SIZE,
    LIE_FORMAT,
    LIE_SEQUENCE,
    LIE_SHORT,
    LIE_EMPTY,
    LIE_LONG,
    LIE_RESULT,
    LIE_EXTENT_LENGTH,
    LIE_EXTENT_PLACE,
    LIE_EXTENT_KIND,
    LIE_NO_EXTENTS,
    LIE_MANY_EXTENTS,
    LIE_BYTES,
    LIE_INFO_IS_NOT_JSON,
    LIE_INFO_IS_ANOTHER_TYPE,
    LIE_TWICE, /* an answer that nobody asked for */
    HANG,
    HANG_AT_OPEN,
    END_AT_MAP,
    END_ONCE,
    GARBLE_BUFFER, /* writes the buffer while the owner reads it */
    BEHAVIOURS,
};

#define DISK_SIZE (8ull << 20)

/* The worker ----------------------------------------------------------------------------------------------------- */

static void be_honest(const struct confined_question *question, struct confined_answer *answer, uint8_t *buffer)
{
    static const char info[] = "{\"type\": \"file\", \"data\": {}}";
    switch ((enum confined_op)question->op) {
    case CONFINED_OPEN:
        answer->u.facts = (struct confined_facts){
            .size = DISK_SIZE, .cluster_size = 65536, .format = "qcow2", .flags = CONFINED_CAN_CHECK};
        break;
    case CONFINED_MAP: /* the first half is in the file, the rest encoded */
        answer->count = 1;
        answer->u.extents[0] =
            question->offset < DISK_SIZE / 2
                ? (struct confined_extent){DISK_SIZE / 2 - question->offset, question->offset, EXTENT_DATA,
                                           CONFINED_ALLOCATED | CONFINED_PLACED}
                : (struct confined_extent){DISK_SIZE - question->offset, 0, EXTENT_ENCODED, CONFINED_ALLOCATED};
        break;
    case CONFINED_READ:
        memset(buffer, 0x5a, question->length);
        answer->count = (uint32_t)question->length;
        break;
    case CONFINED_INFO:
        memcpy(buffer, info, strlen(info));
        answer->count = (uint32_t)strlen(info);
        break;
    case CONFINED_CHECK: break;
    }
}

static void lie(enum behaviour behaviour, const struct confined_question *question, struct confined_answer *answer,
                uint8_t *buffer, size_t *length)
{
    bool opens = question->op == CONFINED_OPEN, maps = question->op == CONFINED_MAP;
    struct confined_extent *first = &answer->u.extents[0];
    if (behaviour == LIE_SIZE && opens)
        answer->u.facts.size = UINT64_MAX;
    if (behaviour == LIE_FORMAT && opens)
        strcpy(answer->u.facts.format, "\x1b[31m");
    if (behaviour == LIE_SEQUENCE && maps)
        answer->sequence += 5;
    if (behaviour == LIE_SHORT && maps)
        *length = 12;
    if (behaviour == LIE_EMPTY && maps)
        *length = 0;
    if (behaviour == LIE_LONG && maps)
        *length = sizeof *answer + 4096;
    if (behaviour == LIE_RESULT && maps)
        answer->result = 5;
    if (behaviour == LIE_EXTENT_LENGTH && maps)
        first->length = UINT64_MAX;
    if (behaviour == LIE_EXTENT_PLACE && maps)
        first->host_offset = UINT64_MAX - 4096;
    if (behaviour == LIE_EXTENT_KIND && maps)
        first->kind = 77;
    if (behaviour == LIE_NO_EXTENTS && maps)
        answer->count = 0;
    if (behaviour == LIE_MANY_EXTENTS && maps)
        answer->count = 1u << 31;
    if (behaviour == LIE_BYTES && question->op == CONFINED_READ)
        answer->count = UINT32_MAX;
    if (behaviour == LIE_INFO_IS_NOT_JSON && question->op == CONFINED_INFO) {
        memset(buffer, '[', CONFINED_BUFFER_SIZE);
        answer->count = CONFINED_BUFFER_SIZE;
    }
    if (behaviour == LIE_INFO_IS_ANOTHER_TYPE && question->op == CONFINED_INFO) {
        static const char info[] = "{\"type\": \"qcow2\", \"data\": {\"compat\": 7}}";
        memcpy(buffer, info, strlen(info));
        answer->count = (uint32_t)strlen(info);
    }
}

static bool ends_now(enum behaviour behaviour, const struct confined_question *question)
{
    if (question->op != CONFINED_MAP)
        return false;
    /* The file tells the second worker that there was a first: its descriptor is for reading, but it has a position,
     * which is not shared. A file beside it does. */
    return behaviour == END_AT_MAP || (behaviour == END_ONCE && mkdir("hostile.once", 0700) == 0);
}

static int hostile_worker(void)
{
    uint8_t first = 0;
    static struct {
        struct confined_answer answer;
        char more[8192];
    } out;
    uint8_t *buffer = mmap(NULL, CONFINED_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, CONFINED_BUFFER_FD, 0);
    if (buffer == MAP_FAILED || pread(CONFINED_IMAGE_FD, &first, 1, 0) != 1)
        return 1;
    if (ftruncate(CONFINED_BUFFER_FD, 0) == 0 || write(CONFINED_IMAGE_FD, "x", 1) == 1)
        first = HANG; /* must not work: the test will see that nothing does */
    for (;;) {
        struct confined_question question;
        if (recv(CONFINED_SOCKET_FD, &question, sizeof question, 0) != sizeof question)
            return 0;
        size_t length = sizeof out.answer;
        out.answer = (struct confined_answer){.sequence = question.sequence, .op = question.op};
        be_honest(&question, &out.answer, buffer);
        lie((enum behaviour)first, &question, &out.answer, buffer, &length);
        if ((first == HANG && question.op == CONFINED_MAP) || first == HANG_AT_OPEN)
            pause();
        if (ends_now((enum behaviour)first, &question))
            return 0;
        for (int times = first == LIE_TWICE ? 2 : 1; times; times--)
            send(CONFINED_SOCKET_FD, &out, length, MSG_NOSIGNAL);
        for (int i = 0; first == GARBLE_BUFFER && question.op == CONFINED_INFO && i < 200; i++)
            memset(buffer, i & 1 ? '{' : 0, 65536);
    }
}

/* The owner ------------------------------------------------------------------------------------------------------ */

struct seen {
    enum behaviour behaviour;
    bool opened, info;
    int first_read, second_read, encoded_read, check, other_read;
    char *error;
};

static struct node *open_node(struct graph *graph, const char *text, struct error *err)
{
    auto_json *json = json_parse(text, strlen(text), err);
    auto_blockdev_options *options = NULL;
    if (!json || !blockdev_options_from_json(json, &options, err))
        return NULL;
    return node_open(graph, options, err);
}

static void use_node(struct node *node, struct seen *seen)
{
    uint8_t byte = 0;
    struct edge *edge = edge_attach(NULL, "test", node, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL);
    assert_non_null(edge);
    struct image_facts facts = {0};
    seen->info = node->driver->info(node, &facts, NULL);
    image_info_specific_free(facts.specific);
    seen->first_read = block_read_buffer(edge, 4096, &byte, 1);
    if (!seen->first_read)
        assert_int_equal(byte, 0x11); /* read from the file by us, where it said */
    seen->second_read = block_read_buffer(edge, 3 << 20, &byte, 1);
    seen->encoded_read = block_read_buffer(edge, 6 << 20, &byte, 1);
    if (!seen->encoded_read)
        assert_int_equal(byte, 0x5a);
    struct image_check check = {0};
    seen->check = node->driver->check(node, 0, &check, NULL);
    edge_detach(edge);
}

struct arena {
    struct loop *loop;
    struct doorman *doorman;
    struct seen *seen;
};

static int try_behaviour(void *arg)
{
    struct arena *arena = arg;
    auto_error err = {0};
    uint8_t byte = 0;
    struct graph *graph = graph_new(arena->loop, protocol_table);
    graph_add_drivers(graph, formats_table);
    graph_add_drivers(graph, doorman_drivers(arena->doorman));
    struct node *other = open_node(
        graph,
        "{\"driver\": \"raw\", \"read-only\": true, \"file\": {\"driver\": \"file\", \"filename\": \"hostile.img\"}}",
        &err);
    assert_non_null(other);
    struct edge *edge = edge_attach(NULL, "test", other, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, &err);
    struct node *node =
        open_node(graph,
                  "{\"driver\": \"confined\", \"read-only\": true, \"timeout\": 1, \"format\": \"qcow2\","
                  " \"file\": {\"driver\": \"file\", \"filename\": \"hostile.img\"}}",
                  &err);
    arena->seen->opened = node != NULL;
    arena->seen->error = xstrdup(err.message);
    if (node) {
        use_node(node, arena->seen);
        node_unref(node);
    }
    arena->seen->other_read = block_read_buffer(edge, 4096, &byte, 1);
    edge_detach(edge);
    node_unref(other);
    graph_free(graph);
    return 0;
}

static struct seen meet(enum behaviour behaviour)
{
    struct seen seen = {.behaviour = behaviour};
    auto_error err = {0};
    uint8_t first = (uint8_t)behaviour;
    rmdir("hostile.once");
    auto_close int fd = open("hostile.img", O_RDWR | O_CREAT | O_TRUNC, 0600);
    auto_free uint8_t *bytes = xcalloc(1, DISK_SIZE);
    memset(bytes, 0x11, DISK_SIZE);
    assert_int_equal(pwrite(fd, bytes, DISK_SIZE, 0), DISK_SIZE);
    assert_int_equal(pwrite(fd, &first, 1, 0), 1);
    struct arena arena = {.doorman = doorman_new(&err), .seen = &seen};
    assert_non_null(arena.doorman);
    arena.loop = loop_new(LOOP_AUTO, 0, &err);
    assert_non_null(arena.loop);
    loop_run_main(arena.loop, try_behaviour, &arena);
    loop_free(arena.loop);
    doorman_free(arena.doorman);
    rmdir("hostile.once");
    unlink("hostile.img");
    assert_int_equal(seen.other_read, 0); /* whatever happened to its neighbour */
    return seen;
}

static void expect_dead(enum behaviour behaviour)
{
    struct seen seen = meet(behaviour);
    if (!seen.opened || seen.first_read != -EIO || seen.second_read != -EIO || seen.check != -EIO)
        print_error("behaviour %d: opened %d, reads %d %d %d, check %d\n", behaviour, seen.opened, seen.first_read,
                    seen.second_read, seen.encoded_read, seen.check);
    assert_true(seen.opened);
    assert_int_equal(seen.first_read, -EIO);
    assert_int_equal(seen.second_read, -EIO); /* and stays dead */
    assert_int_equal(seen.encoded_read, -EIO);
    assert_int_equal(seen.check, -EIO);
    free(seen.error);
}

static void expect_alive(enum behaviour behaviour)
{
    struct seen seen = meet(behaviour);
    assert_true(seen.opened);
    assert_int_equal(seen.first_read, 0);
    assert_int_equal(seen.second_read, 0);
    assert_int_equal(seen.encoded_read, 0);
    assert_int_equal(seen.check, 0);
    free(seen.error);
}

static void expect_not_opened(enum behaviour behaviour, const char *because)
{
    struct seen seen = meet(behaviour);
    assert_false(seen.opened);
    assert_non_null(seen.error);
    if (!strstr(seen.error, because))
        print_error("behaviour %d: %s\n", behaviour, seen.error);
    assert_non_null(strstr(seen.error, because));
    free(seen.error);
}

/* Tests ---------------------------------------------------------------------------------------------------------- */

static void test_honest(void **state)
{
    expect_alive(HONEST);
}

static void test_lies(void **state)
{
    expect_not_opened(LIE_SIZE, "a disk of 18446744073709551615 bytes");
    expect_not_opened(LIE_FORMAT, "a format that is not a name");
    for (enum behaviour behaviour = LIE_SEQUENCE; behaviour <= LIE_MANY_EXTENTS; behaviour++) {
        if (behaviour != LIE_EMPTY) /* nothing at all looks like the end, and is that of the second, too */
            expect_dead(behaviour);
    }
    expect_dead(LIE_EMPTY);
    struct seen bytes = meet(LIE_BYTES);
    assert_int_equal(bytes.first_read, 0);
    assert_int_equal(bytes.encoded_read, -EIO);
    assert_int_equal(bytes.check, -EIO);
    free(bytes.error);
}

static void test_lies_about_the_format(void **state)
{
    for (enum behaviour behaviour = LIE_INFO_IS_NOT_JSON; behaviour <= LIE_INFO_IS_ANOTHER_TYPE; behaviour++) {
        struct seen seen = meet(behaviour);
        assert_true(seen.opened);
        assert_false(seen.info);
        free(seen.error);
    }
    free(meet(GARBLE_BUFFER).error); /* either way, but without harm */
}

static void test_too_many_answers(void **state)
{
    struct seen seen = meet(LIE_TWICE); /* the second one is taken for the answer to the next question, and is a lie */
    assert_true(!seen.opened || seen.first_read == -EIO);
    free(seen.error);
}

static void test_silence(void **state)
{
    expect_dead(HANG);
    expect_not_opened(HANG_AT_OPEN, "has not answered for 1 s");
}

static void test_ends(void **state)
{
    expect_dead(END_AT_MAP); /* the second one ends as well */
    expect_alive(END_ONCE);  /* the second one does not */
}

int main(int argc, char **argv)
{
    if (confined_is_worker(argc, argv))
        return hostile_worker();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_honest),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_lies_about_the_format),
        cmocka_unit_test(test_too_many_answers),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
