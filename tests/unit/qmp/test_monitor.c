/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, a management program cannot talk to a monitor: negotiation, answers, errors, events, or what a bad
 * client does. */
#include "tests/unit/qmp/schema/cmocka_all.h"
#include <stdio.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/strbuf.h"
#include "base/stream.h"
#include "qmp/schema/events.h"
#include "qmp/server.h"

/* A program with a monitor on a socket, and commands of its own beside the built-in ones. */
struct world {
    struct loop *loop;
    struct qmp_server *server;
    char path[64];
    bool is_pretty;
    unsigned n_calls;
    bool has_quit;
    struct client *client;
    void (*story)(struct world *world);
};

/* A command that yields before it answers, and counts. */
static bool call_nap(struct qmp_context *context, void *arg, void **ret, struct error *err)
{
    struct world *world = context->app;
    co_sleep_ns(1000);
    world->n_calls++;
    return true;
}

static bool call_refuse(struct qmp_context *context, void *arg, void **ret, struct error *err)
{
    return fail_class(err, "DeviceNotFound", "there is no device 'x'");
}

static bool call_del(struct qmp_context *context, void *arg, void **ret, struct error *err)
{
    struct q_blockdev_del_arg *options = arg;
    return fail(err, ENOENT, "node '%s' is not there", options->node_name);
}

static const struct qmp_command test_commands[] = {
    {.name = "test-nap", .call = call_nap},
    {.name = "test-refuse", .call = call_refuse},
    {.name = "test-del", .call = call_del, .arg = &q_blockdev_del_arg_type},
};
static const struct qmp_event own_events[] = {{.name = "RESUME"}};
static const struct qmp_module test_module = {"test", test_commands, ARRAY_SIZE(test_commands), own_events, 1};

static void note_quit(void *app)
{
    ((struct world *)app)->has_quit = true;
}

static void add_monitor(struct world *world)
{
    auto_error err = {0};
    auto_free char *text = xasprintf("socket,id=c,path=%s,server=on,wait=off", world->path);
    auto_chardev_options *chardev = NULL;
    assert_true(chardev_options_from_keyval(text, "backend", &chardev, &err));
    if (!qmp_server_add_chardev(world->server, chardev, &err))
        fail_msg("%s", err.message);
    auto_monitor_options *monitor = NULL;
    assert_true(monitor_options_from_keyval(world->is_pretty ? "c,pretty" : "c", "chardev", &monitor, &err));
    if (!qmp_server_add_monitor(world->server, monitor, &err))
        fail_msg("%s", err.message);
}

static int run_story(void *arg)
{
    struct world *world = arg;
    world->server = qmp_server_new(world->loop, world);
    qmp_server_add_module(world->server, &test_module);
    qmp_server_on_quit(world->server, note_quit);
    add_monitor(world);
    world->story(world);
    qmp_server_free(world->server);
    return 0;
}

static void play_on(enum loop_backend backend, void (*story)(struct world *world), bool is_pretty)
{
    auto_error err = {0};
    struct world world = {.story = story, .is_pretty = is_pretty};
    snprintf(world.path, sizeof world.path, "/tmp/spindle-test-%d.sock", (int)getpid());
    world.loop = loop_new(backend, 1, &err);
    assert_non_null(world.loop);
    assert_int_equal(loop_run_main(world.loop, run_story, &world), 0);
    loop_free(world.loop);
    unlink(world.path);
}

static void play(void (*story)(struct world *world))
{
    play_on(LOOP_EPOLL, story, false);
    play_on(LOOP_SIMULATED, story, false);
}

/* A client. */
struct client {
    struct stream *stream;
    struct json_stream *input;
    char buffer[65536];
    const char *at;
    size_t left;
};

static struct client *client_connect(struct world *world)
{
    auto_error err = {0};
    struct client *client = xcalloc(1, sizeof *client);
    struct stream_address address = {.kind = SOCKET_UNIX, .path = world->path};
    client->stream = stream_connect(world->loop, &address, &err);
    if (!client->stream)
        fail_msg("%s", err.message);
    client->input = json_stream_new(1 << 20);
    return client;
}

static void client_close(struct client *client)
{
    stream_close(client->stream);
    json_stream_free(client->input);
    free(client);
}

static void client_send(struct client *client, const char *text)
{
    assert_int_equal(stream_send_all(client->stream, text, strlen(text)), 0);
}

/* The next thing the monitor says, as text; NULL at the end. */
static char *client_hear(struct client *client)
{
    for (;;) {
        auto_error err = {0};
        struct json *value = NULL;
        enum json_stream_result result = json_stream_read(client->input, &client->at, &client->left, &value, &err);
        if (result == JSON_STREAM_VALUE) {
            char *text = json_to_text(value);
            json_free(value);
            return text;
        }
        if (result == JSON_STREAM_ERROR)
            fail_msg("%s", err.message);
        ssize_t length = stream_recv(client->stream, client->buffer, sizeof client->buffer);
        if (length <= 0)
            return NULL;
        client->at = client->buffer;
        client->left = (size_t)length;
    }
}

static void assert_heard(struct client *client, const char *part)
{
    auto_free char *text = client_hear(client);
    assert_contains(text, part);
}

#define GREETING                                                                                                       \
    "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10, \"minor\": 0, \"micro\": 0}, \"package\": \"spindle "

static struct client *client_ready(struct world *world)
{
    struct client *client = client_connect(world);
    assert_heard(client, GREETING);
    client_send(client, "{\"execute\": \"qmp_capabilities\"}");
    assert_text(client_hear(client), "{\"return\": {}}");
    return client;
}

static void story_negotiation(struct world *world)
{
    struct client *client = client_connect(world);
    auto_free char *greeting = client_hear(client);
    assert_contains(greeting, GREETING);
    assert_contains(greeting, "\"capabilities\": []}}");
    client_send(client, "{\"execute\": \"query-version\", \"id\": 1}");
    assert_heard(client,
                 "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"'query-version': capabilities must be");
    client_send(client, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}");
    assert_heard(client, "capability 'oob' is not available");
    client_send(client, "{\"execute\": \"qmp_capabilities\", \"id\": {\"a\": [null]}}");
    assert_text(client_hear(client), "{\"return\": {}, \"id\": {\"a\": [null]}}");
    client_send(client, "{\"execute\": \"qmp_capabilities\"}");
    assert_heard(client, "\"class\": \"CommandNotFound\", \"desc\": \"the negotiation");
    client_send(client, "{\"execute\": \"query-version\", \"id\": null}");
    assert_heard(client, "{\"return\": {\"qemu\": {\"major\": 10, ");
    client_close(client);
}

static void test_negotiation(void **state)
{
    play(story_negotiation);
}

static void story_errors(struct world *world)
{
    struct client *client = client_ready(world);
    static const struct {
        const char *request, *answer;
    } rows[] = {
        {"7", "a request must be an object, found an integer"},
        {"[]", "found an array"},
        {"{}", "lacks member 'execute'"},
        {"{'execute': 1}", "'execute' must be a string, found an integer"},
        {"{'execute': 'test-nap', 'arguments': 1}", "'arguments' must be an object"},
        {"{'execute': 'test-nap', 'arguments': {'x': 1}}",
         "'x': is not known here; command 'test-nap' takes no arguments"},
        {"{'execute': 'test-nap', 'argument': {}}", "no member 'argument'"},
        {"{'exec-oob': 'test-nap', 'id': 'z'}",
         "no member 'exec-oob'; possible: execute, arguments, id\"}, \"id\": \"z\"}"},
        {"{'execute': 'no-such', 'id': 3}",
         "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"there is no command "
         "'no-such'\"}, \"id\": 3}"},
        {"{'execute': 'test-refuse'}", "\"class\": \"DeviceNotFound\""},
        {"{'execute': 'test-del'}", "'node-name': is missing"},
        {"{'execute': 'test-del', 'arguments': {'node-name': 'n', 'force': true}}", "'force': is not known here"},
        {"{'execute': 'test-del', 'arguments': {'node-name': 'n'}}",
         "{\"error\": {\"class\": \"GenericError\", \"desc\": \"node 'n' is not there\"}}"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        client_send(client, rows[i].request);
        client_send(client, "\n");
        assert_heard(client, rows[i].answer);
    }
    client_close(client);
}

static void test_errors(void **state)
{
    play(story_errors);
}

static void story_bad_input(struct world *world)
{
    struct client *client = client_ready(world);
    client_send(client, "this is not JSON\n");
    assert_heard(client, "\"class\": \"GenericError\", \"desc\": \"JSON: ");
    client_send(client, "{\"execute\": \"test-nap\", \"execute\": \"quit\"}");
    assert_heard(client, "twice");
    client_send(client, "\x01\x02\xfe garbage {{{{ [\"\n");
    assert_heard(client, "JSON: unexpected character");
    client_send(client, "{\"execute\": \"test-\xff{\"execute\": \"test-nap\"}");
    assert_text(client_hear(client), "{\"return\": {}}");

    auto_free char *deep = xcalloc(1, 20001);
    memset(deep, '[', 10000);
    memset(deep + 10000, ']', 10000);
    client_send(client, deep);
    assert_heard(client, "64 levels");

    auto_free char *piece = xcalloc(1, 65537);
    memset(piece, 'x', 65536);
    client_send(client, "{\"execute\": \"");
    for (int i = 0; i < 20; i++)
        client_send(client, piece);
    client_send(client, "\"}");
    assert_heard(client, "too long");
    client_send(client, "{\"execute\": \"test-nap\", \"id\": 1}");
    assert_text(client_hear(client), "{\"return\": {}, \"id\": 1}");
    client_close(client);
}

static void test_bad_input(void **state)
{
    play(story_bad_input);
}

#define N_FLOOD 20000

static void flood(void *arg)
{
    struct client *client = arg;
    for (int i = 0; i < N_FLOOD; i++)
        if (stream_send_all(client->stream, "{\"execute\": \"query-commands\"}", 29))
            return;
    client_send(client, "{\"execute\": \"test-nap\"}");
}

/* Without a limit the answers (some 30 MB) would pile up in the monitor. */
static void story_client_does_not_read(struct world *world)
{
    struct client *client = client_ready(world);
    struct co_group group;
    co_group_init(&group);
    co_spawn(world->loop, &group, flood, client);
    co_sleep_ns(300000000);
    assert_int_equal(world->n_calls, 0); /* it has not got to the last */
    assert_int_equal(group.running, 1);  /* nor can the client send it */
    for (int i = 0; i < N_FLOOD; i++)
        assert_heard(client, "{\"return\": [{\"name\": ");
    assert_text(client_hear(client), "{\"return\": {}}");
    co_group_wait(&group);
    client_close(client);
}

static void test_client_does_not_read(void **state)
{
    play_on(LOOP_EPOLL, story_client_does_not_read, false);
}

static void story_events(struct world *world)
{
    struct qmp_events *events = qmp_server_events(world->server);
    qmp_event_resume(NULL);
    qmp_event_resume(events); /* nobody is there */
    struct client *client = client_connect(world);
    assert_heard(client, GREETING);
    qmp_event_resume(events); /* not negotiated yet */
    client_send(client, "{\"execute\": \"qmp_capabilities\"}");
    assert_text(client_hear(client), "{\"return\": {}}");
    qmp_event_shutdown(events, true, SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
    auto_free char *event = client_hear(client);
    assert_contains(event, "{\"timestamp\": {\"seconds\": ");
    assert_contains(event, ", \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}");
    qmp_event_resume(events);
    auto_free char *plain = client_hear(client);
    assert_contains(plain, "\"event\": \"RESUME\"}");
    qmp_event_block_image_corrupted(events, "", NULL, "m", true, 7, false, 0, false);
    assert_heard(client, "\"data\": {\"device\": \"\", \"msg\": \"m\", \"offset\": 7, \"fatal\": false}}");
    client_close(client);
}

static void test_events(void **state)
{
    play(story_events);
}

/* An event must not be lost silently, and a client that never reads must not make the daemon grow for ever. */
static void story_events_nobody_reads(struct world *world)
{
    struct client *client = client_ready(world);
    auto_free char *text = xcalloc(1, 65537);
    memset(text, 'x', 65536);
    for (int i = 0; i < 400; i++) { /* 25 MiB */
        qmp_event_block_export_deleted(qmp_server_events(world->server), text);
        co_yield ();
    }
    size_t n_heard = 0;
    for (char *event; (event = client_hear(client)); free(event))
        n_heard++;
    assert_in_range(n_heard, 0, 399); /* the end came before the last event */
    client_close(client);
    client_close(client_ready(world)); /* the next one is welcome */
}

static void test_events_nobody_reads(void **state)
{
    play_on(LOOP_EPOLL, story_events_nobody_reads, false);
}

static void story_limited_events(struct world *world)
{
    struct qmp_events *events = qmp_server_events(world->server);
    qmp_server_limit_event(world->server, "BLOCK_EXPORT_DELETED", "id", 100);
    struct client *client = client_ready(world);
    uint64_t begin = loop_now_ns(world->loop);
    qmp_event_block_export_deleted(events, "a");
    for (int i = 0; i < 1000; i++)
        qmp_event_block_export_deleted(events, "b");
    qmp_event_block_export_deleted(events, "a");
    assert_heard(client, "\"id\": \"a\"");
    assert_heard(client, "\"id\": \"b\"");
    assert_true(loop_now_ns(world->loop) - begin < 100000000);
    auto_free char *third = client_hear(client), *fourth = client_hear(client);
    assert_true(loop_now_ns(world->loop) - begin >= 100000000);
    assert_true(strstr(third, "\"id\": \"a\"") || strstr(fourth, "\"id\": \"a\""));
    client_send(client, "{\"execute\": \"test-nap\"}");
    co_sleep_ns(250000000);
    assert_text(client_hear(client), "{\"return\": {}}"); /* and nothing else was waiting */
    qmp_event_block_export_deleted(events, "a");          /* the windows are closed: at once */
    assert_heard(client, "\"id\": \"a\"");
    client_close(client);
}

static void test_limited_events(void **state)
{
    play_on(LOOP_SIMULATED, story_limited_events, false);
}

static void story_one_client_after_another(struct world *world)
{
    struct client *first = client_ready(world);
    struct client *second = client_connect(world); /* in the queue */
    client_send(first, "{\"execute\": \"test-nap\"}");
    assert_text(client_hear(first), "{\"return\": {}}");
    client_close(first);
    assert_heard(second, GREETING);
    client_send(second, "{\"execute\": \"test-nap\"}"); /* negotiation begins anew */
    assert_heard(second, "CommandNotFound");
    client_send(second, "{\"execute\": \"qmp_capab");
    client_close(second);
    struct client *third = client_ready(world); /* the half request went with its client */
    client_close(third);
}

static void test_one_client_after_another(void **state)
{
    play(story_one_client_after_another);
}

static void story_pipelined_requests_and_quit(struct world *world)
{
    struct client *client = client_ready(world);
    client_send(client, "{'execute':'test-nap','id':1}{'execute':'no-such','id':2} {'execute':'quit','id':3}");
    assert_text(client_hear(client), "{\"return\": {}, \"id\": 1}");
    assert_heard(client, "\"id\": 2}");
    assert_text(client_hear(client), "{\"return\": {}, \"id\": 3}");
    assert_true(world->has_quit);
    client_close(client);
}

static void test_pipelined_requests_and_quit(void **state)
{
    play(story_pipelined_requests_and_quit);
}

static void story_introspection(struct world *world)
{
    auto_error err = {0};
    auto_json *request = json_new_object();
    json_set(request, "execute", json_new_string("query-qmp-schema"));
    auto_json *answer = qmp_dispatch(world->server, NULL, request);
    const struct json *entries = json_get(answer, "return");
    auto_schema_info_list *list = NULL;
    if (!schema_info_list_from_json(entries, &list, &err)) /* the description has the form it describes */
        fail_msg("%s", err.message);
    bool has_del = false, has_int = false;
    for (size_t i = 0; i < list->n; i++) {
        const struct schema_info *info = list->items[i];
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(info->name, list->items[j]->name);
        if (info->meta_type == SCHEMA_META_TYPE_COMMAND && !strcmp(info->name, "test-del")) {
            has_del = true;
            /* its argument type has node-name: str */
            for (size_t j = 0; j < list->n; j++) {
                if (strcmp(list->items[j]->name, info->u.command.arg_type))
                    continue;
                const struct schema_info_object *object = &list->items[j]->u.object;
                assert_int_equal(object->n_members, 1);
                assert_string_equal(object->members[0]->name, "node-name");
                assert_string_equal(object->members[0]->type, "str");
            }
        }
        has_int |= info->meta_type == SCHEMA_META_TYPE_BUILTIN && !strcmp(info->name, "int");
    }
    assert_true(has_del && has_int);
}

static void test_introspection(void **state)
{
    play_on(LOOP_SIMULATED, story_introspection, false);
}

static void story_pretty(struct world *world)
{
    struct client *client = client_connect(world);
    char text[512] = {0};
    assert_true(stream_recv(client->stream, text, sizeof text - 1) > 0);
    assert_contains(text, "{\r\n    \"QMP\": {\r\n        \"version\": {");
    assert_string_equal(text + strlen(text) - 5, "\r\n}\r\n");
    client_close(client);
}

static void test_pretty(void **state)
{
    play_on(LOOP_EPOLL, story_pretty, true);
}

static void add_chardev(struct world *world, const char *text)
{
    auto_error err = {0};
    auto_chardev_options *options = NULL;
    assert_true(chardev_options_from_keyval(text, "backend", &options, &err));
    if (!qmp_server_add_chardev(world->server, options, &err))
        fail_msg("%s", err.message);
}

static void connect_later(void *arg)
{
    struct world *world = arg;
    co_sleep_ns(50000000);
    strcat(world->path, "w");
    world->client = client_connect(world);
}

static void story_wait_for_the_first_client(struct world *world)
{
    struct co_group group;
    co_group_init(&group);
    auto_free char *text = xasprintf("socket,id=w,path=%sw,server=on", world->path);
    uint64_t begin = loop_now_ns(world->loop);
    co_spawn(world->loop, &group, connect_later, world);
    add_chardev(world, text);
    assert_true(loop_now_ns(world->loop) - begin >= 50000000);
    co_group_wait(&group);
    struct monitor_options options = {.chardev = (char *)"w"};
    assert_true(qmp_server_add_monitor(world->server, &options, NULL));
    assert_heard(world->client, GREETING); /* the one that was waited for is the first to be served */
    client_close(world->client);
    client_close(client_ready(world)); /* and not the last */
}

static void test_wait_for_the_first_client(void **state)
{
    play(story_wait_for_the_first_client);
}

/* A monitor may also call its client. */
static void story_monitor_that_connects(struct world *world)
{
    strcat(world->path, "c");
    auto_error err = {0};
    struct stream_address address = {.kind = SOCKET_UNIX, .path = world->path};
    struct listener *listener = listener_new(world->loop, &address, 1, &err);
    assert_non_null(listener);
    auto_free char *text = xasprintf("socket,id=out,path=%s", world->path);
    add_chardev(world, text);
    struct monitor_options options = {.chardev = (char *)"out"};
    assert_true(qmp_server_add_monitor(world->server, &options, &err));
    int status;
    struct client *client = xcalloc(1, sizeof *client);
    client->input = json_stream_new(1 << 20);
    client->stream = listener_accept(listener, &status);
    assert_heard(client, GREETING);
    client_close(client);
    listener_close(listener);
}

static void test_monitor_that_connects(void **state)
{
    play(story_monitor_that_connects);
}

static void story_mistakes_of_setup(struct world *world)
{
    static const struct {
        const char *chardev, *why;
    } rows[] = {
        {"socket,id=d", "chardev 'd': a socket needs exactly one of path, host and port, or fd"},
        {"socket,id=d,path=/x,host=y,port=1", "exactly one of"},
        {"socket,id=d,host=y,server=on", "both host and port"},
        {"socket,id=d,fd=x,server=on", "expected the number of an open file descriptor, found 'x'"},
        {"null,id=c", "chardev 'c': there is one of this name already"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        auto_error err = {0};
        auto_chardev_options *options = NULL;
        assert_true(chardev_options_from_keyval(rows[i].chardev, "backend", &options, &err));
        assert_false(qmp_server_add_chardev(world->server, options, &err));
        assert_contains(err.message, rows[i].why);
    }
    auto_error err = {0};
    struct monitor_options options = {.chardev = (char *)"nope"};
    assert_false(qmp_server_add_monitor(world->server, &options, &err));
    assert_contains(err.message, "there is no chardev 'nope'");
    error_clear(&err);
    options.chardev = (char *)"c";
    assert_false(qmp_server_add_monitor(world->server, &options, &err));
    assert_contains(err.message, "chardev 'c' is in use by monitor");
}

static void test_mistakes_of_setup(void **state)
{
    play_on(LOOP_EPOLL, story_mistakes_of_setup, false);
}

int main(void)
{
    /* A story runs in a coroutine, which a failed assertion must not leave by longjmp(). */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_negotiation),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_client_does_not_read),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_events_nobody_reads),
        cmocka_unit_test(test_limited_events),
        cmocka_unit_test(test_one_client_after_another),
        cmocka_unit_test(test_pipelined_requests_and_quit),
        cmocka_unit_test(test_introspection),
        cmocka_unit_test(test_pretty),
        cmocka_unit_test(test_wait_for_the_first_client),
        cmocka_unit_test(test_monitor_that_connects),
        cmocka_unit_test(test_mistakes_of_setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
