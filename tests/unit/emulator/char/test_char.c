/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, consoles lose characters, or Ctrl-A X does not end a hung guest. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/loop.h"
#include "base/math.h"
#include "emulator/char/char.h"
#include <cmocka.h>

struct user {
    struct char_front front;
    char text[8192];
    size_t length, room;
    unsigned events[8];
};
static size_t can_receive(void *owner)
{
    return ((struct user *)owner)->room;
}
static void receive(void *owner, const uint8_t *data, size_t size)
{
    struct user *user = owner;
    assert_true(size <= user->room);
    memcpy(user->text + user->length, data, size);
    user->length += size;
    user->text[user->length] = 0;
    user->room -= size;
}
static void event(void *owner, enum char_line_event what)
{
    ((struct user *)owner)->events[what]++;
}
static const struct char_front_ops ops = {can_receive, receive, NULL, event};

static struct user *user_new(size_t room)
{
    struct user *user = calloc(1, sizeof *user);
    user->front.ops = &ops;
    user->front.owner = user;
    user->room = room;
    return user;
}

static void stop(void *arg)
{
    loop_stop(arg);
}
static void run_ms(struct loop *loop, unsigned ms)
{
    struct loop_timer timer = {.fn = stop, .arg = loop};
    loop_timer_arm(loop, &timer, loop_now_ns(loop) + ms * 1000000ull);
    loop_run(loop);
}
#define run_until(loop, condition)                                                                                     \
    do {                                                                                                               \
        for (int tries = 0; tries < 400 && !(condition); tries++)                                                      \
            run_ms(loop, 5);                                                                                           \
        assert_true(condition);                                                                                        \
    } while (0)

static int join(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void quit(void *arg)
{
    ++*(unsigned *)arg;
}

static void test_mux(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct char_line_options options = {
        .kind = CHAR_LINE_SOCKET, .id = "m", .path = "mux.sock", .server = true, .mux = true};
    struct char_line *line = char_line_new(loop, &options, &err);
    struct user *guest = user_new(0), *monitor = user_new(100); /* the guest does not listen */
    unsigned quits = 0;
    assert_non_null(line);
    assert_true(char_line_attach(line, &guest->front, &err));
    assert_true(char_line_attach(line, &monitor->front, &err));
    char_line_set_quit(line, quit, &quits);
    int peer = join("mux.sock");
    run_until(loop, guest->events[CHAR_LINE_OPENED]);

    char flood[6000];
    memset(flood, 'x', sizeof flood);
    assert_int_equal(send(peer, flood, sizeof flood, 0), sizeof flood);
    assert_int_equal(send(peer, "\001x", 2, 0), 2);
    run_until(loop, quits == 1); /* heard although 6000 characters wait for the guest */
    assert_int_equal(guest->length, 0);
    guest->room = 8000;
    char_line_accept_input(&guest->front);
    run_until(loop, guest->length == CHAR_LINE_INPUT_BYTES);

    guest->length = 0;
    assert_int_equal(send(peer, "a\001\001b\001bc\001cinfo\001cd", 16, 0), 16);
    run_until(loop, guest->length == 5);
    assert_memory_equal(guest->text, "a\001bcd", 5);
    assert_string_equal(monitor->text, "info");
    assert_int_equal(guest->events[CHAR_LINE_BREAK], 1);
    assert_int_equal(monitor->events[CHAR_LINE_FOCUS_IN], 1);
    assert_int_equal(guest->events[CHAR_LINE_FOCUS_IN], 1);

    char text[64] = {0};
    assert_int_equal(char_line_write(&monitor->front, "both", 4), 4);
    assert_int_equal(char_line_write(&guest->front, "speak", 5), 5);
    run_until(loop, recv(peer, text, sizeof text, MSG_PEEK) == 9);
    assert_string_equal(text, "bothspeak");
    char_line_free(line);
    assert_null(guest->front.line);
    assert_int_equal(char_line_write(&guest->front, "x", 1), 1); /* into nothing */
    close(peer);
    loop_free(loop);
    free(guest);
    free(monitor);
}

/* A client leaves, the next one comes; what is said meanwhile vanishes and blocks nobody. */
static void test_reconnect(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct char_line_options options = {.kind = CHAR_LINE_SOCKET, .id = "s", .path = "re.sock", .server = true};
    struct char_line *line = char_line_new(loop, &options, &err);
    struct user *user = user_new(8000), *second = user_new(1);
    char text[16] = {0};
    assert_true(char_line_attach(line, &user->front, &err));
    assert_false(char_line_attach(line, &second->front, &err)); /* not a mux */
    error_clear(&err);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(char_line_write(&user->front, "lost", 4), 4);
        int peer = join("re.sock");
        run_until(loop, user->events[CHAR_LINE_OPENED] == (unsigned)i + 1);
        assert_int_equal(char_line_write(&user->front, "hello", 5), 5);
        run_until(loop, recv(peer, text, sizeof text, MSG_PEEK) == 5);
        assert_string_equal(text, "hello");
        close(peer);
        run_until(loop, user->events[CHAR_LINE_CLOSED] == (unsigned)i + 1);
    }
    char_line_free(line);
    assert_int_equal(access("re.sock", F_OK), -1); /* the path is gone with it */
    loop_free(loop);
    free(user);
    free(second);
}

/* What was written last is in the file, though the loop never ran again. */
static void test_file_is_drained(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct char_line_options options = {.kind = CHAR_LINE_FILE, .id = "f", .path = "out.txt"};
    struct char_line *line = char_line_new(loop, &options, &err);
    struct user *user = user_new(0);
    assert_true(char_line_attach(line, &user->front, &err));
    assert_int_equal(char_line_write(&user->front, "last words", 10), 10);
    char_line_free(line);
    FILE *file = fopen("out.txt", "r");
    char text[32] = {0};
    assert_int_equal(fread(text, 1, sizeof text, file), 10);
    assert_string_equal(text, "last words");
    fclose(file);
    unlink("out.txt");
    loop_free(loop);
    free(user);
}

static void test_errors(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct char_line_options bad[] = {
        {.kind = CHAR_LINE_FILE, .id = "a"},
        {.kind = CHAR_LINE_FILE, .id = "b", .path = "/nonexistent/dir/file"},
        {.kind = CHAR_LINE_SOCKET, .id = "c", .path = "/nonexistent.sock"},
        {.kind = CHAR_LINE_SOCKET, .id = "d"},
        {.kind = CHAR_LINE_SOCKET, .id = "e", .path = "x", .port = "1"},
        {.kind = CHAR_LINE_SOCKET, .id = "f", .host = "127.0.0.1", .port = "no-such-service"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "chardev '%s': ", bad[i].id);
        assert_null(char_line_new(loop, &bad[i], &err));
        assert_memory_equal(err.message, prefix, strlen(prefix));
        error_clear(&err);
    }
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mux), cmocka_unit_test(test_reconnect),
                                       cmocka_unit_test(test_file_is_drained), cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
