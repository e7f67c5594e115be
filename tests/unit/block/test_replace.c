/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: putting a filter above a node in use, or taking it out, loses a user, a permission or a
 * reference; or a change that is refused leaves something behind. */
#include "tests/unit/block/memory.h"

/* In, a write through it, and out again, with a user that goes on all the time. */
static int filter_in_and_out(void *graph)
{
    auto_error err = {0};
    struct node *disk = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct edge *user = use_node(disk);
    struct node *filter = node_open_filter(&filter_driver, "f", disk, &err);
    assert_non_null(filter);
    assert_true(node_replace(disk, filter, &err));
    assert_ptr_equal(user->child, filter);
    assert_int_equal(filter->file->perm, user->perm);
    assert_int_equal(memory_of(disk)->locked_perm, user->perm);
    assert_int_equal(write_pattern(user, 0, 4096, 7), 0);
    assert_int_equal(filter->stats.write_bytes, 4096);
    assert_true(node_replace(filter, disk, &err));
    assert_ptr_equal(user->child, disk);
    assert_int_equal(memory_of(disk)->locked_perm, user->perm);
    node_unref(filter);
    assert_null(graph_find(graph, "f"));
    assert_true(has_pattern(user, 0, 4096, 7));
    edge_detach(user);
    assert_int_equal(memory_of(disk)->locked_perm, 0);
    delete_node(graph, "m");
    return 0;
}

static int refused(void *graph)
{
    auto_error err = {0};
    struct node *from = add_node(graph, "driver=null-co,node-name=a,size=65536");
    struct node *to = add_node(graph, "driver=null-co,node-name=b,size=65536");
    struct edge *user = use_node(from);
    struct edge *jealous =
        edge_attach(NULL, "jealous", to, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_CONSISTENT_READ, &err);
    assert_false(node_replace(from, to, &err));
    assert_non_null(strstr(err.message, "jealous"));
    error_clear(&err);
    assert_ptr_equal(user->child, from);
    assert_int_equal(memory_of(from)->locked_perm, user->perm);
    assert_int_equal(memory_of(to)->locked_perm, BLOCK_PERM_CONSISTENT_READ);
    edge_detach(jealous);
    memory_of(to)->refuse_perm = BLOCK_PERM_WRITE; /* a lock of somebody else */
    assert_false(node_replace(from, to, &err));
    error_clear(&err);
    assert_ptr_equal(user->child, from);
    assert_int_equal(memory_of(to)->locked_perm, 0);
    memory_of(to)->refuse_perm = 0;
    assert_true(node_replace(from, to, &err));
    assert_int_equal(memory_of(from)->locked_perm, 0);
    delete_node(graph, "a"); /* nobody uses it any more */
    edge_detach(user);
    delete_node(graph, "b");
    return 0;
}

/* An overlay takes the place of the node that it stands on, and goes on standing on it. */
static int overlay(void *graph)
{
    auto_error err = {0};
    struct node *disk = add_node(graph, "driver=null-co,node-name=m,size=65536");
    add_node(graph, "driver=null-co,node-name=file,size=65536");
    struct node *top = add_node(graph, "driver=qcow2,node-name=top,file=file,cache-size=65536");
    struct edge *user = use_node(disk);
    assert_int_equal(write_pattern(user, 0, 4096, 1), 0);
    assert_true(node_set_backing(top, disk, &err)); /* the user may write: nobody relies on the overlay yet */
    assert_true(node_replace(disk, top, &err));
    assert_ptr_equal(top->backing->child, disk);
    assert_int_equal(top->backing->perm, BLOCK_PERM_CONSISTENT_READ);
    assert_int_equal(top->backing->shared & BLOCK_PERM_WRITE, 0);
    assert_true(has_pattern(user, 0, 4096, 1));
    assert_int_equal(write_pattern(user, 0, 4096, 2), 0);
    assert_int_equal(memory_of(disk)->data[0], 1);
    assert_null(edge_attach(NULL, "writer below", disk, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, &err));
    assert_non_null(strstr(err.message, "top"));
    error_clear(&err);
    edge_detach(user);
    assert_true(node_set_backing(top, NULL, &err));
    delete_node(graph, "top");
    delete_node(graph, "file");
    delete_node(graph, "m");
    return 0;
}

/* What is pulled reads the same without the backing node; what a guest wrote stays. */
static int pulling(void *graph)
{
    auto_error err = {0};
    struct node *disk = add_node(graph, "driver=null-co,node-name=m,size=65536");
    add_node(graph, "driver=null-co,node-name=file,size=65536");
    memset(memory_of(disk)->data, 5, 65536);
    struct node *top = add_node(graph, "driver=qcow2,node-name=top,file=file,backing=m,cache-size=65536");
    struct edge *user = use_node(top);
    assert_int_equal(write_pattern(user, 8192, 4096, 6), 0);
    assert_int_equal(block_pull(user, NULL, 0, 32768, NULL), 0);
    assert_true(node_set_backing(top, NULL, &err));
    assert_true(has_pattern(user, 0, 8192, 5));
    assert_true(has_pattern(user, 8192, 4096, 6));
    assert_true(has_pattern(user, 12288, 32768 - 12288, 5));
    assert_true(has_pattern(user, 32768, 32768, 0));
    edge_detach(user);
    delete_node(graph, "top");
    delete_node(graph, "file");
    delete_node(graph, "m");
    return 0;
}

SIMULATED(filter_in_and_out)
SIMULATED(refused)
SIMULATED(overlay)
SIMULATED(pulling)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filter_in_and_out_simulated),
        cmocka_unit_test(refused_simulated),
        cmocka_unit_test(overlay_simulated),
        cmocka_unit_test(pulling_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
