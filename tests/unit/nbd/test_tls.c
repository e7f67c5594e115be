/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: TLS on every kind of loop: handshakes that succeed and fail, data in both directions, ends and
 * cuts; the NBD server asks for TLS, forgets what came before it, and lets in whom it should. */
#include "tests/unit/nbd/client.h"

#include <stdio.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "crypto/authz.h"
#include "crypto/objects.h"
#include "crypto/tls_creds.h"
#include "crypto/tls_stream.h"

#define FIXED (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

/* Keys of two users, in a directory of their own; and another with other keys. */
struct keys {
    char dir[32], other[32];
    struct object_set *objects;
};

static void write_keys(char dir[32], const char *text)
{
    strcpy(dir, "/tmp/spindle-tls-XXXXXX");
    assert_non_null(mkdtemp(dir));
    auto_free char *path = xasprintf("%s/keys.psk", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void remove_keys(const char *dir)
{
    auto_free char *path = xasprintf("%s/keys.psk", dir);
    unlink(path);
    rmdir(dir);
}

static void add_object(struct keys *keys, const char *format, const char *dir)
{
    struct error err = {0};
    auto_strbuf text = {0};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    strbuf_printf(&text, format, dir);
#pragma GCC diagnostic pop
    if (!object_add_text(keys->objects, text.text, &err))
        print_message("%s\n", err.message);
    assert_null(err.message);
}

static void open_keys(struct keys *keys)
{
    write_keys(keys->dir, "alice:00112233445566778899aabbccddeeff\nbob:ffeeddccbbaa99887766554433221100\n");
    write_keys(keys->other, "alice:0123456789abcdef0123456789abcdef\ncarol:00112233445566778899aabbccddeeff\n");
    keys->objects = object_set_new(loop_current());
    object_set_add_kinds(keys->objects, crypto_object_kinds);
    add_object(keys, "tls-creds-psk,id=server,endpoint=server,dir=%s", keys->dir);
    add_object(keys, "tls-creds-psk,id=alice,username=alice,dir=%s", keys->dir);
    add_object(keys, "tls-creds-psk,id=bob,username=bob,dir=%s", keys->dir);
    add_object(keys, "tls-creds-psk,id=liar,username=alice,dir=%s", keys->other);
    add_object(keys, "tls-creds-psk,id=carol,username=carol,dir=%s", keys->other);
    add_object(keys, "tls-creds-anon,id=anon-server,endpoint=server%s", "");
    add_object(keys, "tls-creds-anon,id=anon%s", "");
    add_object(keys, "authz-simple,id=only-bob,identity=bob%s", "");
}

static void close_keys(struct keys *keys)
{
    object_set_free(keys->objects);
    remove_keys(keys->dir);
    remove_keys(keys->other);
}

static struct object *creds(struct keys *keys, const char *id)
{
    struct object *object = object_find(keys->objects, id);
    assert_non_null(object);
    return object;
}

/* Streams --------------------------------------------------------------------------------------------------------- */

struct peer {
    struct stream *stream;
    struct object *creds;
    struct error err;
    bool sends;
};

static void accept_main(void *arg)
{
    struct peer *peer = arg;
    peer->stream = tls_accept(peer->stream, peer->creds, &peer->err);
}

/* Both ends of a TLS connection; true when both are there. */
static bool connect_both(struct keys *keys, const char *server, const char *client, struct stream *ends[2])
{
    struct stream *pair[2];
    struct co_group group;
    struct error err = {0};
    assert_true(stream_pair(loop_current(), pair, NULL));
    struct peer peer = {pair[0], creds(keys, server), {0}, false};
    co_group_init(&group);
    co_spawn(loop_current(), &group, accept_main, &peer);
    ends[1] = tls_connect(pair[1], creds(keys, client), NULL, &err);
    co_group_wait(&group);
    ends[0] = peer.stream;
    assert_true(!ends[0] == error_is_set(&peer.err));
    assert_true(!ends[1] == error_is_set(&err));
    error_clear(&err);
    error_clear(&peer.err);
    return ends[0] && ends[1];
}

enum { BULK = 3 << 20 };

/* Pieces of all sizes, from many elements; what arrives is checked against the same sequence. */
static void send_bulk(void *arg)
{
    struct stream *stream = arg;
    struct rng content, sizes;
    rng_seed(&content, 1);
    rng_seed(&sizes, 2);
    uint8_t *data = malloc(BULK);
    rng_fill(&content, data, BULK);
    for (size_t done = 0; done < BULK;) {
        struct iovec iov[5];
        int count = 0;
        for (; count < 5 && done < BULK; count++) {
            size_t size = MIN((size_t)rng_below(&sizes, rng_coin(&sizes) ? 100 : 60000), (size_t)BULK - done);
            iov[count] = (struct iovec){data + done, size};
            done += size;
        }
        assert_int_equal(stream_sendv(stream, iov, count), 0);
    }
    free(data);
}

static void receive_bulk(struct stream *stream)
{
    struct rng content;
    rng_seed(&content, 1);
    uint8_t *expected = malloc(BULK), *data = malloc(BULK);
    rng_fill(&content, expected, BULK);
    assert_int_equal(stream_recv_all(stream, data, BULK), 0);
    assert_memory_equal(data, expected, BULK);
    free(expected);
    free(data);
}

static void receive_bulk_main(void *arg)
{
    receive_bulk(arg);
}

static int streams_main(void *arg)
{
    struct keys keys;
    struct stream *ends[2];
    struct co_group group;
    uint8_t byte;
    (void)arg;
    open_keys(&keys);
    for (int anonymous = 0; anonymous < 2; anonymous++) {
        assert_true(connect_both(&keys, anonymous ? "anon-server" : "server", anonymous ? "anon" : "alice", ends));
        if (anonymous)
            assert_null(tls_peer_identity(ends[0]));
        else
            assert_string_equal(tls_peer_identity(ends[0]), "alice");
        /* Everything at once, in both directions. */
        co_group_init(&group);
        co_spawn(loop_current(), &group, send_bulk, ends[0]);
        co_spawn(loop_current(), &group, send_bulk, ends[1]);
        co_spawn(loop_current(), &group, receive_bulk_main, ends[0]);
        receive_bulk(ends[1]);
        co_group_wait(&group);
        if (anonymous) {
            tls_goodbye(ends[0]);
            assert_int_equal(stream_recv(ends[1], &byte, 1), 0); /* an end ... */
            stream_close(ends[0]);
        } else {
            stream_close(ends[0]);
            assert_int_equal(stream_recv(ends[1], &byte, 1), -ECONNRESET); /* ... and a cut */
        }
        stream_close(ends[1]);
    }
    for (int i = 0; i < 2; i++) {
        assert_false(connect_both(&keys, "server", i ? "carol" : "liar", ends));
        stream_close(ends[0]);
        stream_close(ends[1]);
    }
    assert_int_equal(creds(&keys, "server")->users, 0);
    close_keys(&keys);
    return 0;
}

static void test_streams(void **state)
{
    run_on_loop(state, streams_main, NULL);
}

/* A receiver that is shut down or cancelled comes back. */
static void receive_until_error(void *arg)
{
    struct peer *peer = arg;
    uint8_t byte;
    assert_true(stream_recv(peer->stream, &byte, 1) < 0);
    peer->sends = true;
}

static int endings_main(void *arg)
{
    struct keys keys;
    struct stream *ends[2];
    (void)arg;
    open_keys(&keys);
    for (int cancel = 0; cancel < 2; cancel++) {
        assert_true(connect_both(&keys, "server", "bob", ends));
        struct peer peer = {.stream = ends[0]};
        struct co_group group;
        co_group_init(&group);
        co_spawn(loop_current(), &group, receive_until_error, &peer);
        co_sleep_ns(1000000);
        assert_false(peer.sends);
        if (cancel)
            co_group_cancel(&group);
        else
            stream_shutdown(ends[0]);
        co_group_wait(&group);
        stream_close(ends[0]);
        stream_close(ends[1]);
    }
    close_keys(&keys);
    return 0;
}

static void test_endings(void **state)
{
    run_on_loop(state, endings_main, NULL);
}

/* The NBD server -------------------------------------------------------------------------------------------------- */

static void secure(struct world *world, struct keys *keys, const char *authz)
{
    open_keys(keys);
    nbd_server_set_tls(world->server, tls_creds_hold(keys->objects, "server", TLS_CREDS_ENDPOINT_SERVER, NULL),
                       authz ? authz_hold(keys->objects, authz, NULL) : NULL);
}

static void drop_security(struct world *world, struct keys *keys)
{
    wait_for_no_connection(world);
    object_release(world->server->tls_creds);
    object_release(world->server->tls_authz);
    nbd_server_set_tls(world->server, NULL, NULL);
    close_keys(keys);
}

static struct stream *start_tls(struct stream *client, struct keys *keys, const char *id)
{
    assert_int_equal(ask(client, NBD_OPT_STARTTLS, NULL, 0, NULL), NBD_REP_ACK);
    struct stream *stream = tls_connect(client, creds(keys, id), NULL, NULL);
    return stream;
}

static void required(struct world *world)
{
    struct keys keys;
    uint8_t data[64];
    secure(world, &keys, NULL);
    struct stream *client = greet(world, FIXED);
    static const uint32_t early[] = {NBD_OPT_LIST,
                                     NBD_OPT_INFO,
                                     NBD_OPT_GO,
                                     NBD_OPT_STRUCTURED_REPLY,
                                     77,
                                     NBD_OPT_EXTENDED_HEADERS,
                                     NBD_OPT_SET_META_CONTEXT};
    for (size_t i = 0; i < ARRAY_SIZE(early); i++)
        assert_int_equal(ask(client, early[i], NULL, 0, NULL), NBD_REP_ERR_TLS_REQD);
    assert_int_equal(ask(client, NBD_OPT_STARTTLS, "x", 1, NULL), NBD_REP_ERR_INVALID);
    client = start_tls(client, &keys, "alice");
    assert_non_null(client);
    assert_int_equal(ask(client, NBD_OPT_STARTTLS, NULL, 0, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ACK);
    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL), NULL), NBD_REP_ACK);
    assert_int_equal(run_write(client, 0, 4096, 100000, 's'), 0);
    assert_int_equal(world->memory->data[4096 + 99999], 's');
    put_request(client, 0, NBD_CMD_DISC, 1, 0, 0);
    uint8_t byte;
    assert_int_equal(stream_recv(client, &byte, 1), 0); /* close_notify */
    stream_close(client);

    client = greet(world, FIXED);
    put_option(client, NBD_OPT_EXPORT_NAME, "disk", 4);
    expect_hang_up(client);
    client = greet(world, FIXED);
    assert_int_equal(ask(client, NBD_OPT_ABORT, NULL, 0, NULL), NBD_REP_ACK);
    expect_hang_up(client);
    drop_security(world, &keys);
}
WORLD_TEST(required)

static void wrong_clients(struct world *world)
{
    struct keys keys;
    secure(world, &keys, NULL);
    struct stream *client = start_tls(greet(world, FIXED), &keys, "liar");
    assert_null(client);
    client = greet(world, FIXED);
    assert_int_equal(ask(client, NBD_OPT_STARTTLS, NULL, 0, NULL), NBD_REP_ACK);
    put_option(client, NBD_OPT_LIST, NULL, 0); /* goes on in clear */
    struct option_answer ignored;
    uint8_t alert[64];
    while (stream_recv(client, alert, sizeof alert) > 0)
        (void)ignored;
    stream_close(client);
    /* Options sent ahead in clear are not taken for options inside of TLS. */
    client = greet(world, FIXED);
    put_option(client, NBD_OPT_STARTTLS, NULL, 0);
    put_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    assert_int_equal(get_answer(client, NBD_OPT_STARTTLS, &ignored), NBD_REP_ACK);
    assert_null(tls_connect(client, creds(&keys, "alice"), NULL, NULL));
    /* Leaves in the middle of the handshake. */
    client = greet(world, FIXED);
    put_option(client, NBD_OPT_STARTTLS, NULL, 0);
    put(client, "\x16\x03\x01", 3);
    stream_close(client);
    drop_security(world, &keys);
}
WORLD_TEST(wrong_clients)

static void authorized(struct world *world)
{
    struct keys keys;
    secure(world, &keys, "only-bob");
    struct stream *client = start_tls(greet(world, FIXED), &keys, "bob");
    assert_non_null(client);
    assert_int_equal(ask(client, NBD_OPT_LIST, NULL, 0, NULL), NBD_REP_ACK);
    hang_up(client);
    client = start_tls(greet(world, FIXED), &keys, "alice");
    if (client) { /* who she is was accepted, but she is not let in */
        uint8_t byte;
        stream_send_all(client, "anything", 8);
        assert_true(stream_recv(client, &byte, 1) <= 0);
        stream_close(client);
    }
    drop_security(world, &keys);
}
WORLD_TEST(authorized)

/* A client that does not go on with the handshake is dropped in time. */
static int slow_main(void *arg)
{
    struct world world;
    struct keys keys;
    (void)arg;
    open_world(&world, NULL, (struct nbd_server_limits){.handshake_seconds = 1}, true);
    secure(&world, &keys, NULL);
    struct stream *client = greet(&world, FIXED);
    assert_int_equal(ask(client, NBD_OPT_STARTTLS, NULL, 0, NULL), NBD_REP_ACK);
    expect_hang_up(client);
    drop_security(&world, &keys);
    close_world(&world);
    return 0;
}

static void test_slow(void **state)
{
    run_on_loop(state, slow_main, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(test_streams),    ON_EVERY_LOOP(test_endings),       ON_EVERY_LOOP(test_required),
        ON_EVERY_LOOP(test_authorized), ON_EVERY_LOOP(test_wrong_clients), ON_EVERY_LOOP(test_slow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
