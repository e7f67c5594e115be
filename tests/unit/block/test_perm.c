/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: two users of a node can both write where one forbids it, or the error does not say who they
 * are. */
#include "tests/unit/block/memory.h"

#define READ BLOCK_PERM_CONSISTENT_READ
#define WRITE BLOCK_PERM_WRITE

static void assert_mentions(const struct error *err, const char *text)
{
    assert_non_null(err->message);
    if (!strstr(err->message, text)) {
        print_error("'%s' does not mention '%s'\n", err->message, text);
        assert_true(false);
    }
}

static int conflicts_name_both(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct edge *first = edge_attach(NULL, "export 'one'", node, READ | WRITE, READ, NULL);
    assert_non_null(first);
    auto_error err = {0};
    assert_null(edge_attach(NULL, "job 'two'", node, READ | WRITE, BLOCK_PERM_ALL, &err));
    assert_mentions(&err, "export 'one'");
    assert_mentions(&err, "job 'two'");
    assert_mentions(&err, "'write'");
    assert_mentions(&err, "'m'");
    error_clear(&err);
    /* The other way round: the newcomer forbids what the first does. */
    assert_null(edge_attach(NULL, "job 'two'", node, READ, READ, &err));
    assert_mentions(&err, "export 'one'");
    error_clear(&err);
    struct edge *reader = edge_attach(NULL, "job 'two'", node, READ, BLOCK_PERM_ALL, &err);
    assert_non_null(reader);
    assert_false(edge_set_perm(reader, READ | WRITE, BLOCK_PERM_ALL, &err));
    error_clear(&err);
    assert_int_equal(reader->perm, READ);
    assert_true(edge_set_perm(first, READ, READ | WRITE, &err));
    assert_true(edge_set_perm(reader, READ | WRITE, BLOCK_PERM_ALL, &err));
    edge_detach(first);
    edge_detach(reader);
    delete_node(graph, "m");
    return 0;
}

static int read_only_nodes_refuse(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536,read-only=on");
    auto_error err = {0};
    assert_null(edge_attach(NULL, "export 'one'", node, READ | WRITE, BLOCK_PERM_ALL, &err));
    assert_mentions(&err, "read-only");
    assert_mentions(&err, "export 'one'");
    delete_node(graph, "m");
    return 0;
}

/* What parents of a filter need reaches the file, and leaves it with them. */
static int needs_pass_filters(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct node *filter = add_node(graph, "driver=raw,node-name=f,file=m");
    struct memory *memory = memory_of(file);
    assert_int_equal(memory->locked_perm, 0);
    struct edge *edge = edge_attach(NULL, "test", filter, READ | WRITE, READ, NULL);
    assert_int_equal(memory->locked_perm, READ | WRITE);
    assert_int_equal(memory->locked_shared, READ);
    auto_error err = {0};
    assert_null(edge_attach(NULL, "other", file, READ | WRITE, BLOCK_PERM_ALL, &err));
    assert_mentions(&err, "node 'f' (as its file)");
    edge_detach(edge);
    assert_int_equal(memory->locked_perm, 0);
    assert_int_equal(memory->locked_shared, BLOCK_PERM_ALL);

    /* A refusal far below leaves nothing behind. */
    memory->refuse_perm = WRITE;
    error_clear(&err);
    assert_null(edge_attach(NULL, "test", filter, READ | WRITE, READ, &err));
    assert_mentions(&err, "refuses");
    assert_int_equal(filter->file->perm, 0);
    assert_int_equal(memory->locked_perm, 0);
    delete_node(graph, "f");
    delete_node(graph, "m");
    return 0;
}

static int formats_guard_their_file(void *graph)
{
    add_node(graph, "driver=null-co,node-name=m,size=65536");
    add_node(graph, "driver=qcow2,node-name=fmt,file=m,cache-size=65536");
    char *message = add_fails(graph, "driver=qcow2,node-name=second,file=m,cache-size=65536");
    assert_non_null(strstr(message, "node 'fmt' (as its file)"));
    free(message);
    assert_null(graph_find(graph, "second"));
    delete_node(graph, "fmt");
    delete_node(graph, "m");
    return 0;
}

struct contender {
    struct node *node;
    struct edge *edge;
};

static void contend(void *arg)
{
    struct contender *contender = arg;
    contender->edge = edge_attach(NULL, "contender", contender->node, READ | WRITE, READ, NULL);
}

/* Taking locks takes time; only one of those who ask meanwhile gets what none of them shares. */
static int only_one_wins(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct node *nodes[3] = {file, add_node(graph, "driver=raw,node-name=f,file=m"),
                             add_node(graph, "driver=raw,node-name=g,file=m")};
    memory_of(file)->delay_ns = 100000;
    struct contender contenders[6];
    struct co_group group;
    co_group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(contenders); i++) {
        contenders[i] = (struct contender){.node = nodes[i % 3]};
        co_spawn(loop_current(), &group, contend, &contenders[i]);
    }
    co_group_wait(&group);
    unsigned winners = 0;
    for (size_t i = 0; i < ARRAY_SIZE(contenders); i++) {
        winners += contenders[i].edge != NULL;
        edge_detach(contenders[i].edge);
    }
    assert_int_equal(winners, 1);
    assert_int_equal(memory_of(file)->locked_perm, 0);
    assert_int_equal(memory_of(file)->locked_shared, BLOCK_PERM_ALL);
    delete_node(graph, "g");
    delete_node(graph, "f");
    delete_node(graph, "m");
    return 0;
}

SIMULATED(only_one_wins)
SIMULATED(conflicts_name_both)
SIMULATED(read_only_nodes_refuse)
SIMULATED(needs_pass_filters)
SIMULATED(formats_guard_their_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_one_wins_simulated),
        cmocka_unit_test(conflicts_name_both_simulated),
        cmocka_unit_test(read_only_nodes_refuse_simulated),
        cmocka_unit_test(needs_pass_filters_simulated),
        cmocka_unit_test(formats_guard_their_file_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
