/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a raw window shows other bytes than it should, or a guest can turn a raw disk whose format was
 * guessed into an image of another format. */
#include "tests/unit/block/memory.h"

#include "block/create.h"
#include "block/name.h"
#include "formats/table.h"

/* A format with a signature, for the trap; it never opens. */
static int magic_probe(const uint8_t *head, size_t size, const char *filename)
{
    return size >= 1028 && !memcmp(head + 1020, "MAGIC!!!", 8) ? 100 : 0;
}

static const struct block_driver magic_driver = {.name = "magic", .kind = DRIVER_FORMAT, .probe = magic_probe};

static const struct block_driver *const raw_drivers[] = {&memory_driver, &magic_driver, &raw_driver, NULL};

static void run_raw(int (*fn)(void *arg))
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_SIMULATED, 1, &err);
    struct graph *graph = graph_new(loop, raw_drivers);
    assert_int_equal(loop_run_main(loop, fn, graph), 0);
    graph_free(graph);
    loop_free(loop);
}

static void expect_error(char *message, const char *text)
{
    if (!strstr(message, text)) {
        print_error("'%s' does not mention '%s'\n", message, text);
        assert_true(false);
    }
    free(message);
}

static int windows(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct memory *memory = memory_of(file);
    for (size_t i = 0; i < 65536; i++)
        memory->data[i] = (uint8_t)(i / 1000);
    struct node *window = add_node(graph, "driver=raw,node-name=w,file=m,offset=1500,size=3000");
    assert_int_equal(window->size, 3000);
    struct edge *edge = use_node(window);
    assert_true(has_pattern(edge, 0, 500, 1));
    assert_true(has_pattern(edge, 500, 1000, 2));
    assert_int_equal(write_pattern(edge, 2900, 100, 99), 0);
    assert_int_equal(write_pattern(edge, 2900, 101, 99), -EIO);
    assert_int_equal(memory->data[4399], 4);
    assert_int_equal(memory->data[4400], 99);
    assert_int_equal(memory->data[4499], 99);
    assert_int_equal(memory->data[4500], 4);
    assert_int_equal(block_zero(edge, 0, 3000, 0), 0);
    assert_int_equal(memory->data[1499], 1);
    assert_int_equal(memory->data[1500], 0);
    assert_int_equal(memory->data[4499], 0);
    assert_int_equal(memory->data[4500], 4);

    struct block_status status;
    assert_int_equal(block_status(edge, 100, 200, 0, &status), 0);
    assert_ptr_equal(status.node, file);
    assert_int_equal(status.offset, 1600);
    auto_error err = {0};
    assert_false(node_resize(edge, 4000, PREALLOCATION_OFF, true, &err));
    assert_non_null(strstr(err.message, "fixed-size"));
    edge_detach(edge);
    delete_node(graph, "w");

    expect_error(add_fails(graph, "driver=raw,node-name=w,file=m,offset=65537"), "65536");
    expect_error(add_fails(graph, "driver=raw,node-name=w,file=m,offset=1,size=65536"), "65536");
    expect_error(add_fails(graph, "driver=raw,node-name=w,file=m,offset=65535,size=18446744073709551615"), "fit");
    delete_node(graph, "m");
    return 0;
}

static int resizing(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct edge *edge = use_node(add_node(graph, "driver=raw,node-name=w,file=m,offset=512"));
    assert_int_equal(edge->child->size, 65024);
    assert_true(node_resize(edge, 102400, PREALLOCATION_OFF, true, NULL));
    assert_int_equal(edge->child->size, 102400);
    assert_int_equal(file->size, 102912);
    auto_error err = {0};
    assert_false(node_resize(edge, INT64_MAX, PREALLOCATION_OFF, true, &err));
    error_clear(&err);
    assert_false(node_resize(edge, UINT64_MAX, PREALLOCATION_OFF, true, &err));
    assert_int_equal(edge->child->size, 102400);
    edge_set_perm(edge, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL);
    error_clear(&err);
    assert_false(node_resize(edge, 1000, PREALLOCATION_OFF, true, &err));
    edge_detach(edge);
    delete_node(graph, "w");
    delete_node(graph, "m");
    return 0;
}

/* A file that ends inside a sector is a disk of whole sectors. */
static int last_sector(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=1000");
    file->growable = true;
    memset(memory_of(file)->data, 7, 1000);
    memset(memory_of(file)->data + 1000, 8, 1000); /* not part of the file */
    struct node *node = add_node(graph, "driver=raw,node-name=w,file=m,discard=unmap");
    assert_int_equal(node->size, 1024);
    struct edge *edge =
        edge_attach(NULL, "test", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, NULL);
    assert_true(has_pattern(edge, 900, 100, 7));
    assert_true(has_pattern(edge, 1000, 24, 0));
    uint8_t both[200];
    assert_int_equal(block_read_buffer(edge, 824, both, 200), 0);
    assert_int_equal(both[175], 7);
    assert_int_equal(both[176], 0);
    struct block_status status;
    assert_int_equal(block_status(edge, 512, 512, 0, &status), 0);
    assert_true(status.data);
    assert_int_equal(status.length, 488);
    assert_int_equal(block_status(edge, 1000, 24, 0, &status), 0);
    assert_true(status.zero && !status.data);
    assert_int_equal(block_discard(edge, 0, 1024), 0);
    assert_int_equal(write_pattern(edge, 512, 512, 9), 0);
    assert_int_equal(file->size, 1024);
    assert_int_equal(node->size, 1024);
    assert_true(has_pattern(edge, 512, 512, 9));
    edge_detach(edge);
    delete_node(graph, "w");
    delete_node(graph, "m");
    return 0;
}

static struct node *open_guessed(struct graph *graph, const char *format)
{
    auto_error err = {0};
    struct open_mode mode = {0};
    const char *name =
        format ? "json:{'driver': 'null-co', 'size': 65536}" : "json:{'file': {'driver': 'null-co', 'size': 65536}}";
    struct node *node = node_open_filename(graph, name, format, &mode, &err);
    if (!node)
        print_error("%s\n", err.message);
    return node;
}

static int signatures_are_refused(void *graph)
{
    struct node *node = open_guessed(graph, NULL);
    assert_ptr_equal(node->driver, &raw_driver);
    assert_true(node->probed);
    struct edge *edge = use_node(node);
    uint8_t head[2048];
    memset(head, 1, sizeof head);
    memcpy(head + 1020, "MAGIC!!!", 8);
    assert_int_equal(block_write_buffer(edge, 0, head, sizeof head, 0), -EPERM);
    /* In two halves, so that neither of them is the signature: the second is refused. */
    assert_int_equal(block_write_buffer(edge, 0, head, 1024, 0), 0);
    assert_int_equal(block_write_buffer(edge, 1024, head + 1024, 1024, 0), -EPERM);
    assert_true(has_pattern(edge, 1024, 1024, 0));
    memset(head, 2, sizeof head);
    assert_int_equal(block_write_buffer(edge, 0, head, sizeof head, 0), 0); /* anything else is welcome */
    memcpy(head + 1020, "MAGIC!!!", 8);
    assert_int_equal(block_write_buffer(edge, 4096, head, sizeof head, 0), 0); /* and elsewhere all is */
    edge_detach(edge);
    node_unref(node);

    /* Who names the format may write what he likes. */
    node = open_guessed(graph, "raw");
    assert_false(node->probed);
    edge = use_node(node);
    assert_int_equal(block_write_buffer(edge, 0, head, sizeof head, 0), 0);
    edge_detach(edge);
    node_unref(node);
    return 0;
}

static int passes_flags_and_flushes(void *graph)
{
    struct memory *memory = memory_of(add_node(graph, "driver=null-co,node-name=m,size=65536"));
    struct edge *edge = use_node(add_node(graph, "driver=raw,node-name=w,file=m,discard=unmap"));
    uint8_t sector[512] = {1};
    assert_int_equal(block_write_buffer(edge, 0, sector, sizeof sector, REQUEST_FUA), 0);
    assert_int_equal(memory->fua_writes, 1);
    assert_int_equal(memory->flushes, 0);
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes, 1);
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes, 1);
    assert_int_equal(block_discard(edge, 0, 4096), 0);
    assert_int_equal(memory->discards, 0); /* the file was opened with discard=ignore */
    edge_detach(edge);
    delete_node(graph, "w");
    delete_node(graph, "m");
    return 0;
}

static void windows_test(void **state)
{
    run_raw(windows);
}
static void last_sector_test(void **state)
{
    run_raw(last_sector);
}
static void resizing_test(void **state)
{
    run_raw(resizing);
}
static void signatures_test(void **state)
{
    run_raw(signatures_are_refused);
}
static void flags_test(void **state)
{
    run_raw(passes_flags_and_flushes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_test),    cmocka_unit_test(last_sector_test), cmocka_unit_test(resizing_test),
        cmocka_unit_test(signatures_test), cmocka_unit_test(flags_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
