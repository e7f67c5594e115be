/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a file name in an image or on a command line leads to another file than its author meant. */
#include "tests/unit/block/memory.h"

#include "block/name.h"

static void resolves(const char *base, const char *name, const char *expected)
{
    auto_free char *result = name_resolve(base, name);
    assert_string_equal(result, expected);
}

static void relative_names(void **state)
{
    resolves("/a/b/top.img", "base.img", "/a/b/base.img");
    resolves("a/b/top.img", "../base.img", "a/b/../base.img");
    resolves("top.img", "base.img", "base.img");
    resolves("/a/top.img", "/c/base.img", "/c/base.img");
    resolves("/a/top.img", "nbd:unix:/x", "nbd:unix:/x");
    resolves("/a/top.img", "json:{\"driver\": \"file\"}", "json:{\"driver\": \"file\"}");
    resolves("/a/top.img", "./x:y", "/a/./x:y");
    resolves("file:/a/top.img", "base.img", "file:/a/base.img");
    resolves(NULL, "base.img", "base.img");
}

static void protocols(void **state)
{
    assert_int_equal(name_protocol_length("nbd:unix:/x"), 3);
    assert_int_equal(name_protocol_length("nbd+unix:///x"), 8);
    assert_int_equal(name_protocol_length("./a:b"), 0);
    assert_int_equal(name_protocol_length("/a:b"), 0);
    assert_int_equal(name_protocol_length("disk.img"), 0);
    assert_int_equal(name_protocol_length(""), 0);
    assert_int_equal(name_protocol_length("disk 1:x"), 0);
}

static void expect_error(struct graph *graph, const char *name, const char *format, const char *text)
{
    auto_error err = {0};
    struct open_mode mode = {0};
    assert_null(node_open_filename(graph, name, format, &mode, &err));
    if (!strstr(err.message, text)) {
        print_error("'%s' does not mention '%s'\n", err.message, text);
        assert_true(false);
    }
}

static int opening_names(void *graph)
{
    auto_error err = {0};
    struct open_mode mode = {.no_flush = true, .node_name = "top"};
    const char *json = "json:{\"driver\": \"raw\", \"file.driver\": \"null-co\", \"file.size\": 4096}";
    struct node *node = node_open_filename(graph, json, NULL, &mode, &err);
    if (!node)
        print_error("%s\n", err.message);
    assert_non_null(node);
    assert_string_equal(node->name, "top");
    assert_true(node->no_flush && node->file->child->no_flush);
    assert_int_equal(node->file->child->size, 4096);
    node_unref(node);

    node = node_open_image_opts(graph, "driver=raw,file.driver=null-co,file.size=64k,cache.no-flush=off", &mode, &err);
    assert_non_null(node);
    assert_false(node->no_flush); /* said so, whatever the mode says */
    assert_int_equal(node->file->child->size, 65536);
    node_unref(node);

    /* Only the file is described: the named format goes on top. */
    node = node_open_filename(graph, "json:{\"driver\": \"null-co\", \"size\": 512}", "raw", &mode, &err);
    assert_non_null(node);
    assert_string_equal(node->driver->name, "raw");
    node_unref(node);

    node = node_open_filename(graph, "json:{\"driver\": \"null-co\", \"size\": 512}", NULL, &mode, &err);
    assert_string_equal(node->driver->name, "null-co"); /* who names a driver does not want a guess */
    node_unref(node);

    /* Dotted keys at any level, and contradictions between them. */
    node = node_open_filename(graph,
                              "json:{'driver': 'raw', 'file': {'driver': 'raw', 'file.size': 512, 'file.driver': "
                              "'null-co', 'file.cache.direct': true}}",
                              NULL, &mode, &err);
    assert_non_null(node);
    assert_true(node->file->child->file->child->direct);
    node_unref(node);
    expect_error(graph, "json:{'driver': 'raw', 'file': 'x', 'file.driver': 'null-co'}", NULL, "file.driver");

    expect_error(graph, "nbd:unix:/x", NULL, "Unknown protocol 'nbd'");
    expect_error(graph, "", NULL, "empty");
    expect_error(graph, "json:{", NULL, "JSON");
    expect_error(graph, "json:[]", NULL, "object");
    expect_error(graph, "json:{\"driver\": \"raw\"}", NULL, "file");
    expect_error(graph, "json:{\"size\": 4096}", NULL, "driver");
    expect_error(graph, "disk.img", "nosuch", "nosuch");
    assert_null(graph_next(graph, NULL));
    return 0;
}

SIMULATED(opening_names)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relative_names),
        cmocka_unit_test(protocols),
        cmocka_unit_test(opening_names_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
