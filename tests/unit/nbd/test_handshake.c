/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: the negotiation of the NBD server, option by option, with clients that keep to the rules and
 * clients that do not. */
#include "tests/unit/nbd/client.h"

#define FIXED (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

static void export_name(struct world *world)
{
    for (int zeroes = 0; zeroes < 2; zeroes++) {
        struct stream *client = greet(world, zeroes ? NBD_FLAG_FIXED_NEWSTYLE : FIXED);
        put_option(client, NBD_OPT_EXPORT_NAME, "disk", 4);
        uint8_t answer[10 + 124];
        get(client, answer, zeroes ? sizeof answer : 10);
        assert_int_equal(load_be64(answer), DISK_SIZE);
        uint16_t flags = load_be16(answer + 8);
        assert_true(flags & NBD_FLAG_HAS_FLAGS && flags & NBD_FLAG_SEND_FLUSH && flags & NBD_FLAG_CAN_MULTI_CONN);
        assert_false(flags & (NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_DF)); /* DF needs structured replies */
        assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
        hang_up(client);
    }
    struct stream *client = greet(world, FIXED);
    put_option(client, NBD_OPT_EXPORT_NAME, "nothing", 7);
    expect_hang_up(client);
    /* The oldest kind of client knows only this option. */
    client = greet(world, 0);
    put_option(client, NBD_OPT_LIST, NULL, 0);
    expect_hang_up(client);
    client = greet(world, 0);
    put_option(client, NBD_OPT_EXPORT_NAME, "disk", 4);
    uint8_t answer[134];
    get(client, answer, sizeof answer);
    hang_up(client);
}
WORLD_TEST(export_name)

static void list(struct world *world)
{
    const struct nbd_export_options options = {"", NULL, false, false};
    struct nbd_export *second = nbd_export_new(world->server, &options, world->edge, NULL);
    struct stream *client = greet(world, FIXED);
    struct option_answer answer;
    put_option(client, NBD_OPT_LIST, NULL, 0);
    assert_int_equal(get_answer(client, NBD_OPT_LIST, &answer), NBD_REP_SERVER);
    assert_int_equal(load_be32(answer.data), 4);
    assert_string_equal((char *)answer.data + 4, "diska disk in memory");
    assert_int_equal(get_answer(client, NBD_OPT_LIST, &answer), NBD_REP_SERVER);
    assert_int_equal(answer.length, 4);
    assert_int_equal(get_answer(client, NBD_OPT_LIST, &answer), NBD_REP_ACK);
    assert_int_equal(ask(client, NBD_OPT_LIST, "x", 1, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_ABORT, NULL, 0, NULL), NBD_REP_ACK);
    expect_hang_up(client);
    nbd_export_free(second);
}
WORLD_TEST(list)

static void info_and_go(struct world *world)
{
    const uint16_t all[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, NBD_INFO_EXPORT, 77};
    struct stream *client = greet(world, FIXED);
    struct option_answer answer;
    uint8_t data[64];
    uint32_t length = info_data(data, "disk", 5, all);
    put_option(client, NBD_OPT_INFO, data, length);
    unsigned seen = 0;
    while (get_answer(client, NBD_OPT_INFO, &answer) == NBD_REP_INFO) {
        uint16_t type = load_be16(answer.data);
        seen |= 1u << type;
        if (type == NBD_INFO_NAME)
            assert_string_equal((char *)answer.data + 2, "disk");
        if (type == NBD_INFO_BLOCK_SIZE)
            assert_true(load_be32(answer.data + 2) == 1 && load_be32(answer.data + 10) == NBD_MAX_PAYLOAD);
        if (type == NBD_INFO_EXPORT)
            assert_int_equal(load_be64(answer.data + 2), DISK_SIZE);
    }
    assert_int_equal(answer.type, NBD_REP_ACK);
    assert_int_equal(seen, 15);
    assert_int_equal(world->export->connections, 0); /* asking is not using */

    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "else", 0, NULL), NULL), NBD_REP_ERR_UNKNOWN);
    length = info_data(data, "disk", 0, NULL);
    assert_int_equal(ask(client, NBD_OPT_GO, data, length - 1, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_GO, data, length + 1, NULL), NBD_REP_ERR_INVALID);
    store_be16(data + 8, 0xffff); /* more requests than there are */
    assert_int_equal(ask(client, NBD_OPT_GO, data, length, NULL), NBD_REP_ERR_INVALID);
    store_be32(data, 0xffffffff); /* a name longer than everything */
    assert_int_equal(ask(client, NBD_OPT_GO, data, length, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_GO, data, 0, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL), NULL), NBD_REP_ACK);
    assert_int_equal(world->export->connections, 1);
    hang_up(client);
    wait_for_no_connection(world);
    assert_int_equal(world->export->connections, 0);
}
WORLD_TEST(info_and_go)

static void contexts(struct world *world)
{
    const char *const allocation = "base:allocation", *const name_space = "base:";
    const char *const strange[] = {"x", "", "base:allocatio", "base:allocation ", "qemu:dirty-bitmap:b"};
    struct stream *client = greet(world, FIXED);
    uint8_t data[512];
    unsigned found;
    uint32_t length = context_data(data, "disk", 0, NULL);
    assert_int_equal(ask(client, NBD_OPT_LIST_META_CONTEXT, data, length, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, "x", 1, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ACK);
    assert_int_equal(ask(client, NBD_OPT_LIST_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 1); /* no query: everything */
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 0); /* no query: nothing */
    length = context_data(data, "disk", 1, &name_space);
    assert_int_equal(ask(client, NBD_OPT_LIST_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 1);
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 0); /* a name space selects nothing */
    length = context_data(data, "disk", 5, strange);
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 0);
    length = context_data(data, "none", 1, &allocation);
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, NULL), NBD_REP_ERR_UNKNOWN);
    length = context_data(data, "disk", 1, &allocation);
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 1);
    for (uint32_t cut = 0; cut < length; cut++)
        assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, cut, NULL), NBD_REP_ERR_INVALID);
    store_be32(data + 8, 0xffffffff); /* queries */
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, NULL), NBD_REP_ERR_TOO_BIG);
    /* A failed SET leaves no context behind. */
    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL), NULL), NBD_REP_ACK);
    assert_int_equal(run_request(client, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EINVAL);
    hang_up(client);
}
WORLD_TEST(contexts)

/* Contexts that were negotiated for another export than the one that is chosen do not count. */
static void contexts_of_another_export(struct world *world)
{
    const struct nbd_export_options options = {"other", NULL, false, false};
    struct nbd_export *other = nbd_export_new(world->server, &options, world->edge, NULL);
    const char *const allocation = "base:allocation";
    struct stream *client = greet(world, FIXED);
    uint8_t data[128];
    unsigned found;
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ACK);
    uint32_t length = context_data(data, "other", 1, &allocation);
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 1);
    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL), NULL), NBD_REP_ACK);
    assert_int_equal(run_request(client, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EINVAL);
    hang_up(client);
    nbd_export_free(other);
}
WORLD_TEST(contexts_of_another_export)

static void unknown_options(struct world *world)
{
    struct stream *client = greet(world, FIXED);
    assert_int_equal(ask(client, NBD_OPT_STARTTLS, NULL, 0, NULL), NBD_REP_ERR_POLICY);
    assert_int_equal(ask(client, 12, NULL, 0, NULL), NBD_REP_ERR_UNSUP);
    assert_int_equal(ask(client, 0, NULL, 0, NULL), NBD_REP_ERR_UNSUP);
    assert_int_equal(ask(client, 0xffffffff, "data", 4, NULL), NBD_REP_ERR_UNSUP);
    /* A long option is skipped, and the negotiation stays in step. */
    uint8_t *data = xcalloc(1, NBD_MAX_OPTION + 1);
    assert_int_equal(ask(client, NBD_OPT_GO, data, NBD_MAX_OPTION + 1, NULL), NBD_REP_ERR_TOO_BIG);
    assert_int_equal(ask(client, NBD_OPT_LIST, NULL, 0, NULL), NBD_REP_ACK);
    free(data);
    put_option(client, NBD_OPT_GO, NULL, 0xffffffff); /* an absurd one is not */
    expect_hang_up(client);
}
WORLD_TEST(unknown_options)

static void names(struct world *world)
{
    auto_free char *longest = xcalloc(1, NBD_MAX_NAME + 2);
    memset(longest, 'n', NBD_MAX_NAME + 1);
    struct nbd_export_options options = {longest, NULL, false, false};
    auto_error err = {0};
    assert_null(nbd_export_new(world->server, &options, world->edge, &err));
    assert_non_null(strstr(err.message, "4097"));
    error_clear(&err);
    options = (struct nbd_export_options){"disk", NULL, false, false};
    assert_null(nbd_export_new(world->server, &options, world->edge, &err));
    error_clear(&err);
    uint8_t *data = xmalloc(NBD_MAX_NAME + 64);
    struct stream *client = greet(world, FIXED);
    uint32_t length = info_data(data, longest, 0, NULL);
    assert_int_equal(ask(client, NBD_OPT_GO, data, length, NULL), NBD_REP_ERR_INVALID);
    longest[NBD_MAX_NAME] = 0;
    length = info_data(data, longest, 0, NULL);
    assert_int_equal(ask(client, NBD_OPT_GO, data, length, NULL), NBD_REP_ERR_UNKNOWN);
    options = (struct nbd_export_options){longest, longest, false, false};
    struct nbd_export *export = nbd_export_new(world->server, &options, world->edge, &err);
    assert_non_null(export);
    const uint16_t requests[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION};
    length = info_data(data, longest, 2, requests);
    unsigned pieces;
    assert_int_equal(ask(client, NBD_OPT_INFO, data, length, &pieces), NBD_REP_ACK);
    assert_int_equal(pieces, 3);
    put_option(client, NBD_OPT_ABORT, NULL, 0);
    stream_close(client);
    nbd_export_free(export);
    free(data);
}
WORLD_TEST(names)

static void flags_not_offered(struct world *world)
{
    struct stream *client = greet(world, FIXED | 4);
    expect_hang_up(client);
    client = greet(world, FIXED);
    uint8_t junk[NBD_OPTION_SIZE];
    memset(junk, 'G', sizeof junk); /* "GET / HTTP/1.1" and the like */
    put(client, junk, sizeof junk);
    expect_hang_up(client);
}
WORLD_TEST(flags_not_offered)

/* A client that leaves anywhere in the negotiation leaves nothing behind. */
static void leaves_anywhere(struct world *world)
{
    uint8_t bytes[4 + NBD_OPTION_SIZE + 10];
    store_be32(bytes, FIXED);
    store_be64(bytes + 4, NBD_OPTION_MAGIC);
    store_be32(bytes + 12, NBD_OPT_GO);
    store_be32(bytes + 16, 10);
    info_data(bytes + 20, "disk", 0, NULL);
    for (size_t sent = 0; sent <= sizeof bytes; sent++) {
        struct stream *client = connect_to(world);
        if (sent)
            put(client, bytes, sent);
        if (sent % 2)
            co_sleep_ns(1000000);
        stream_close(client);
    }
    wait_for_no_connection(world);
    assert_int_equal(world->export->connections, 0);
}
WORLD_TEST(leaves_anywhere)

/* The deadline counts from the connection, not from the last byte. */
static int slow_client(void *arg)
{
    struct world world;
    open_world(&world, NULL, (struct nbd_server_limits){.handshake_seconds = 1}, true);
    struct stream *client = greet(&world, FIXED);
    uint64_t started = loop_now_ns(world.loop);
    for (int i = 0; i < 30; i++) { /* a new option every 100 ms */
        uint8_t head[NBD_OPTION_SIZE];
        store_be64(head, NBD_OPTION_MAGIC);
        store_be32(head + 8, NBD_OPT_LIST);
        store_be32(head + 12, 0);
        if (stream_send_all(client, head, sizeof head) < 0 || list_empty(&world.server->connections))
            break;
        co_sleep_ns(100000000);
    }
    uint64_t took = loop_now_ns(world.loop) - started;
    assert_true(took > 900000000 && took < 2500000000);
    assert_true(list_empty(&world.server->connections));
    stream_close(client);
    /* One that was quick enough may stay as long as it likes. */
    client = begin(&world, false, false);
    co_sleep_ns(1300000000);
    assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    hang_up(client);
    close_world(&world);
    return 0;
}

static void test_slow_client(void **state)
{
    run_on_loop(state, slow_client, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(test_export_name),
        ON_EVERY_LOOP(test_list),
        ON_EVERY_LOOP(test_info_and_go),
        ON_EVERY_LOOP(test_contexts),
        ON_EVERY_LOOP(test_contexts_of_another_export),
        ON_EVERY_LOOP(test_unknown_options),
        ON_EVERY_LOOP(test_names),
        ON_EVERY_LOOP(test_flags_not_offered),
        ON_EVERY_LOOP(test_leaves_anywhere),
        ON_EVERY_LOOP(test_slow_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
