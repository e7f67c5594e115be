/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: blockdev-reopen leaves nodes half changed, or changes what somebody relies on. */
#include "tests/unit/block/memory.h"

/* Options from texts, one a node; returns what graph_reopen() said. */
static bool reopen(struct graph *graph, struct error *err, const char *first, const char *second)
{
    struct blockdev_options *options[2] = {NULL, NULL};
    size_t count = 0;
    const char *texts[2] = {first, second};
    for (size_t i = 0; i < 2 && texts[i]; i++) {
        auto_error parse = {0};
        if (!blockdev_options_from_keyval(texts[i], NULL, &options[count++], &parse)) {
            print_error("%s: %s\n", texts[i], parse.message);
            abort();
        }
    }
    bool ok = graph_reopen(graph, options, count, err);
    blockdev_options_free(options[0]);
    blockdev_options_free(options[1]);
    return ok;
}

static int generic_options(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536,discard=unmap,detect-zeroes=unmap");
    auto_error err = {0};
    assert_true(reopen(graph, &err, "driver=null-co,node-name=m,size=65536,cache.no-flush=on", NULL));
    assert_int_equal(node->discard, BLOCK_DISCARD_IGNORE); /* what is left out returns to its default */
    assert_int_equal(node->detect_zeroes, BLOCK_DETECT_ZEROES_OFF);
    assert_true(node->no_flush);
    assert_true(node->options->cache->no_flush);

    assert_false(reopen(graph, &err, "driver=null-aio,node-name=m", NULL));
    error_clear(&err);
    assert_false(reopen(graph, &err, "driver=null-co,node-name=nobody", NULL));
    error_clear(&err);
    assert_false(reopen(graph, &err, "driver=null-co,node-name=m,size=65536", "driver=null-co,node-name=m,size=65536"));
    error_clear(&err);
    assert_false(reopen(graph, &err, "driver=null-co,node-name=m,detect-zeroes=unmap", NULL));
    assert_true(node->no_flush); /* as it was */
    delete_node(graph, "m");
    return 0;
}

static int all_or_nothing(void *graph)
{
    struct node *one = add_node(graph, "driver=null-co,node-name=one,size=65536");
    struct node *two = add_node(graph, "driver=null-co,node-name=two,size=65536");
    struct edge *writer = use_node(two);
    auto_error err = {0};
    assert_false(reopen(graph, &err, "driver=null-co,node-name=one,size=65536,discard=unmap,read-only=on",
                        "driver=null-co,node-name=two,size=65536,read-only=on"));
    assert_non_null(strstr(err.message, "'two'"));
    assert_non_null(strstr(err.message, "test"));
    assert_false(one->read_only || two->read_only);
    assert_int_equal(one->discard, BLOCK_DISCARD_IGNORE);
    assert_int_equal(one->quiesced + two->quiesced, 0);
    assert_int_equal(write_pattern(writer, 0, 512, 1), 0);
    edge_detach(writer);
    error_clear(&err);
    assert_true(reopen(graph, &err, "driver=null-co,node-name=one,size=65536,discard=unmap,read-only=on",
                       "driver=null-co,node-name=two,size=65536,read-only=on"));
    assert_true(one->read_only && two->read_only);
    delete_node(graph, "one");
    delete_node(graph, "two");
    return 0;
}

/* A format that becomes writable needs its file writable, in the same transaction; and lets go of it again. */
static int formats_and_files(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=1M,read-only=on");
    struct node *fmt = add_node(graph, "driver=qcow2,node-name=fmt,file=m,cache-size=65536,read-only=on");
    auto_error err = {0};
    assert_false(reopen(graph, &err, "driver=qcow2,node-name=fmt,file=m,cache-size=65536", NULL));
    assert_non_null(strstr(err.message, "'m'"));
    assert_true(fmt->read_only);
    error_clear(&err);
    assert_true(reopen(graph, &err, "driver=qcow2,node-name=fmt,file=m,cache-size=65536",
                       "driver=null-co,node-name=m,size=1M"));
    assert_true(fmt->file->perm & BLOCK_PERM_WRITE);
    struct edge *edge = use_node(fmt);
    assert_int_equal(write_pattern(edge, 100, 5000, 4), 0);
    edge_detach(edge);
    assert_true(reopen(graph, &err, "driver=qcow2,node-name=fmt,file=m,cache-size=65536,read-only=on",
                       "driver=null-co,node-name=m,size=1M,read-only=on"));
    assert_false(fmt->file->perm & BLOCK_PERM_WRITE);
    assert_true(file->read_only);
    edge = edge_attach(NULL, "reader", fmt, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL);
    assert_true(has_pattern(edge, 100, 5000, 4));
    edge_detach(edge);
    delete_node(graph, "fmt");
    delete_node(graph, "m");
    return 0;
}

static int backing_changes(void *graph)
{
    struct node *base = add_node(graph, "driver=null-co,node-name=base,size=65536");
    struct node *new_base = add_node(graph, "driver=null-co,node-name=newbase,size=65536");
    add_node(graph, "driver=null-co,node-name=m,size=1M");
    struct node *top = add_node(graph, "driver=qcow2,node-name=top,file=m,cache-size=65536,backing=base");
    memset(memory_of(base)->data, 1, 65536);
    memset(memory_of(new_base)->data, 2, 65536);
    struct edge *edge = use_node(top);
    assert_true(has_pattern(edge, 0, 65536, 1));
    auto_error err = {0};
    assert_true(reopen(graph, &err, "driver=qcow2,node-name=top,file=m,cache-size=65536,backing=newbase", NULL));
    assert_true(has_pattern(edge, 0, 65536, 2));
    assert_int_equal(new_base->quiesced + base->quiesced, 0);
    assert_true(list_empty(&base->parents));

    /* Refused: a loop, a node nobody knows, and, together with a failing node, any change at all. */
    assert_false(reopen(graph, &err, "driver=qcow2,node-name=top,file=m,cache-size=65536,backing=top", NULL));
    assert_non_null(strstr(err.message, "cycle"));
    error_clear(&err);
    assert_false(reopen(graph, &err, "driver=qcow2,node-name=top,file=m,cache-size=65536,backing=nobody", NULL));
    error_clear(&err);
    assert_false(reopen(graph, &err, "driver=qcow2,node-name=top,file=base,cache-size=65536", NULL));
    assert_non_null(strstr(err.message, "'file'"));
    error_clear(&err);
    assert_false(reopen(graph, &err, "driver=qcow2,node-name=top,file=m,cache-size=65536,backing=base,read-only=on",
                        NULL)); /* `edge` writes */
    error_clear(&err);
    assert_ptr_equal(top->backing->child, new_base);
    assert_true(has_pattern(edge, 0, 65536, 2));
    assert_int_equal(new_base->references, 2);
    assert_int_equal(base->references, 1);

    assert_true(reopen(graph, &err,
                       "{'driver': 'qcow2', 'node-name': 'top', 'file': 'm', 'cache-size': 65536, 'backing': null}",
                       NULL));
    assert_null(top->backing);
    assert_true(has_pattern(edge, 0, 65536, 0));
    edge_detach(edge);
    delete_node(graph, "top");
    delete_node(graph, "m");
    delete_node(graph, "base");
    delete_node(graph, "newbase");
    return 0;
}

SIMULATED(generic_options)
SIMULATED(all_or_nothing)
SIMULATED(formats_and_files)
SIMULATED(backing_changes)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generic_options_simulated),
        cmocka_unit_test(all_or_nothing_simulated),
        cmocka_unit_test(formats_and_files_simulated),
        cmocka_unit_test(backing_changes_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
