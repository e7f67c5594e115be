/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: nodes are not found, named, counted or closed as blockdev-add and blockdev-del promise. */
#include "tests/unit/block/memory.h"

static void expect_error(char *message, const char *text)
{
    if (!strstr(message, text)) {
        print_error("'%s' does not mention '%s'\n", message, text);
        assert_true(false);
    }
    free(message);
}

static int names(void *graph)
{
    add_node(graph, "driver=null-co,node-name=a.b_c-1,size=1");
    expect_error(add_fails(graph, "driver=null-co,node-name=a.b_c-1,size=1"), "already");
    expect_error(add_fails(graph, "driver=null-co,node-name=1a,size=1"), "letter");
    expect_error(add_fails(graph, "driver=null-co,node-name=#a,size=1"), "letter");
    expect_error(add_fails(graph, "driver=null-co,node-name=a:b,size=1"), "letter");
    expect_error(add_fails(graph, "driver=null-co,node-name=a2345678901234567890123456789012,size=1"), "31");
    expect_error(add_fails(graph, "driver=null-co,size=1"), "node-name");
    expect_error(add_fails(graph, "driver=raw,node-name=x,file=nowhere"), "nowhere");
    expect_error(add_fails(graph, "driver=raw,node-name=x,file=x"), "'x'"); /* not there while it is being opened */
    expect_error(add_fails(graph, "driver=host_device,node-name=x,filename=/dev/null"), "host_device");
    expect_error(add_fails(graph, "driver=raw,node-name=x,file.driver=null-co,file.node-name=x"), "already");
    expect_error(add_fails(graph, "driver=null-co,node-name=x,force-share=on"), "read-only");
    delete_node(graph, "a.b_c-1");
    assert_null(graph_next(graph, NULL));
    return 0;
}

static int inline_children_live_with_their_parent(void *graph)
{
    struct node *top = add_node(graph, "driver=raw,node-name=top,read-only=on,cache.direct=on,file.driver=null-co,"
                                       "file.node-name=below,file.size=4096");
    struct node *below = graph_find(graph, "below");
    assert_ptr_equal(top->file->child, below);
    assert_true(below->read_only); /* taken over */
    assert_true(below->direct);
    assert_false(below->monitor_owned);
    auto_error err = {0};
    assert_false(graph_del(graph, "below", &err));
    error_clear(&err);
    delete_node(graph, "top");
    assert_null(graph_find(graph, "below"));
    return 0;
}

static int referenced_children_survive(void *graph)
{
    add_node(graph, "driver=null-co,node-name=below,size=4096");
    add_node(graph, "driver=raw,node-name=top,file=below");
    auto_error err = {0};
    assert_false(graph_del(graph, "below", &err));
    assert_non_null(strstr(err.message, "'top'"));
    error_clear(&err);
    assert_false(graph_del(graph, "nobody", &err));
    delete_node(graph, "top");
    delete_node(graph, "below");
    return 0;
}

static int generated_names_are_found(void *graph)
{
    auto_error err = {0};
    struct blockdev_options *options = NULL;
    assert_true(blockdev_options_from_keyval("driver=null-co,size=1", NULL, &options, &err));
    struct node *one = node_open(graph, options, &err), *two = node_open(graph, options, &err);
    assert_string_not_equal(one->name, two->name);
    assert_ptr_equal(graph_find(graph, two->name), two);
    assert_ptr_equal(graph_next(graph, NULL), one);
    assert_ptr_equal(graph_next(graph, one), two);
    assert_null(graph_next(graph, two));
    node_unref(one);
    node_unref(two);
    blockdev_options_free(options);
    return 0;
}

static void count(void *user)
{
    ++*(int *)user;
}

static int users_hear_of_sizes(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=4096");
    struct edge *edge = use_node(node);
    int heard = 0;
    edge->resized = count;
    edge->user = &heard;
    node->growable = true;
    uint8_t byte = 1;
    assert_int_equal(block_write_buffer(edge, 5000, &byte, 1, 0), 0);
    assert_int_equal(node->size, 5001);
    assert_int_equal(heard, 1);
    node_set_size(node, 5001);
    assert_int_equal(heard, 1);
    edge_set_perm(edge, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, NULL); /* no right to grow it */
    assert_int_equal(block_write_buffer(edge, 6000, &byte, 1, 0), -EIO);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int depth_is_limited(void *graph)
{
    auto_error err = {0};
    struct json *json = json_new_object();
    json_set(json, "driver", json_new_string("null-co"));
    for (int i = 0; i < 30; i++) {
        struct json *above = json_new_object();
        json_set(above, "driver", json_new_string("raw"));
        json_set(above, "file", json);
        json = above;
    }
    struct blockdev_options *options = NULL;
    assert_true(blockdev_options_from_json(json, &options, &err));
    struct node *node = node_open(graph, options, &err);
    assert_non_null(node);
    struct edge *edge = use_node(node);
    assert_int_equal(write_pattern(edge, 0, 4096, 1), 0);
    assert_true(has_pattern(edge, 0, 4096, 1));
    edge_detach(edge);
    node_unref(node);
    blockdev_options_free(options);
    json_free(json);
    assert_null(graph_next(graph, NULL));
    return 0;
}

SIMULATED(names)
SIMULATED(inline_children_live_with_their_parent)
SIMULATED(referenced_children_survive)
SIMULATED(generated_names_are_found)
SIMULATED(users_hear_of_sizes)
SIMULATED(depth_is_limited)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_simulated),
        cmocka_unit_test(inline_children_live_with_their_parent_simulated),
        cmocka_unit_test(referenced_children_survive_simulated),
        cmocka_unit_test(generated_names_are_found_simulated),
        cmocka_unit_test(users_hear_of_sizes_simulated),
        cmocka_unit_test(depth_is_limited_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
