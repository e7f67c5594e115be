/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, the guest's console loses characters, hangs, or interrupts for ever. */
#include "tests/unit/emulator/hw/bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BASE 0x10000000u
enum { DATA = BASE, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

struct uart_bench {
    struct bench b;
    struct device *uart;
    struct char_line *line;
    int peer; /* our end of the wire */
};

static uint8_t get(struct uart_bench *u, uint64_t address)
{
    return (uint8_t)peek(&u->b, address, 1);
}
static void put(struct uart_bench *u, uint64_t address, uint8_t value)
{
    poke(&u->b, address, value, 1);
}

static void start(struct uart_bench *u)
{
    struct error err = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    bench_start(&u->b);
    u->uart = uart16550_create(&u->b.hw, BASE, u->b.input, &err);
    assert_non_null(u->uart);
    snprintf(address.sun_path, sizeof address.sun_path, "uart-%d.sock", getpid());
    struct char_line_options options = {
        .kind = CHAR_LINE_SOCKET, .id = "wire", .path = address.sun_path, .server = true};
    u->line = char_line_new(u->b.loop, &options, &err);
    assert_non_null(u->line);
    assert_true(uart16550_connect(u->uart, u->line, &err));
    u->peer = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(u->peer, (struct sockaddr *)&address, sizeof address), 0);
    fcntl(u->peer, F_SETFL, O_NONBLOCK);
    bench_run_until(&u->b, char_line_is_open(u->line));
    bench_reset_devices(&u->b);
}

static void stop(struct uart_bench *u)
{
    close(u->peer);
    bench_stop(&u->b);
}

static void free_line(struct uart_bench *u)
{
    /* before the loop goes */
    while (!list_empty(&u->b.hw.devices)) {
        struct device *last = list_last(&u->b.hw.devices, struct device, link);
        last->ops->destroy(last);
    }
    char_line_free(u->line);
}

static void test_identity(void **state)
{
    struct uart_bench u;
    start(&u);
    /* what the drivers' probes look at */
    put(&u, SCR, 0xa5);
    assert_int_equal(get(&u, SCR), 0xa5);
    put(&u, FCR, 1);
    assert_int_equal(get(&u, IIR) & 0xc0, 0xc0); /* 16550A */
    put(&u, LCR, 0x83);
    put(&u, DATA, 0x34);
    put(&u, IER, 0x12);
    assert_int_equal(get(&u, DATA), 0x34);
    assert_int_equal(get(&u, IER), 0x12);
    put(&u, LCR, 0x03);
    assert_int_equal(get(&u, IER), 0);
    assert_int_equal(get(&u, LSR), 0x60);
    assert_int_equal(get(&u, MSR) & 0xf0, 0xb0);
    put(&u, MCR, 0x10 | 0x0a); /* loopback: RTS and OUT2 come back as CTS and DCD */
    assert_int_equal(get(&u, MSR) & 0xf0, 0x90);
    put(&u, DATA, 'x');
    assert_int_equal(get(&u, LSR) & 1, 1);
    assert_int_equal(get(&u, DATA), 'x');
    free_line(&u);
    stop(&u);
}

static void test_transmit(void **state)
{
    struct uart_bench u;
    char text[8] = {0};
    start(&u);
    put(&u, FCR, 1);
    put(&u, IER, 2);
    assert_true(u.b.irq); /* the transmitter is empty */
    assert_int_equal(get(&u, IIR) & 0x0f, 2);
    assert_false(u.b.irq); /* reading has acknowledged it */
    for (const char *c = "hello"; *c; c++)
        put(&u, DATA, (uint8_t)*c);
    assert_true(u.b.irq);
    bench_run_until(&u.b, recv(u.peer, text, sizeof text, MSG_PEEK) == 5);
    assert_string_equal(text, "hello");
    put(&u, IER, 0);
    assert_false(u.b.irq);
    free_line(&u);
    stop(&u);
}

static void test_receive(void **state)
{
    struct uart_bench u;
    start(&u);
    put(&u, FCR, 0x81); /* FIFO, trigger at 8 */
    put(&u, IER, 1);
    assert_int_equal(send(u.peer, "ab", 2, 0), 2);
    bench_run_until(&u.b, u.b.irq);
    assert_int_equal(get(&u, IIR) & 0x0f, 0x0c); /* below the trigger level: time-out */
    assert_int_equal(get(&u, DATA), 'a');
    assert_true(u.b.irq);
    assert_int_equal(get(&u, DATA), 'b');
    assert_false(u.b.irq);
    assert_int_equal(get(&u, IIR) & 0x0f, 1);
    free_line(&u);
    stop(&u);
}

/* More than a FIFO at once: flow control keeps all of it, in order. */
static void test_flow_control(void **state)
{
    struct uart_bench u;
    start(&u);
    put(&u, FCR, 0x01);
    uint8_t bytes[5000];
    for (int i = 0; i < 5000; i++)
        bytes[i] = (uint8_t)(i * 7);
    assert_int_equal(send(u.peer, bytes, sizeof bytes, 0), sizeof bytes);
    for (int i = 0; i < 5000; i++) {
        if (!(get(&u, LSR) & 1))
            bench_run_until(&u.b, get(&u, LSR) & 1);
        assert_int_equal(get(&u, DATA), (uint8_t)(i * 7));
    }
    assert_int_equal(get(&u, LSR) & 2, 0); /* no overrun */
    free_line(&u);
    stop(&u);
}

/* A reader that does not read: the guest sees a busy transmitter and loses nothing. */
static void test_backpressure(void **state)
{
    struct uart_bench u;
    unsigned sent = 0, received = 0;
    uint8_t buffer[65536];
    start(&u);
    put(&u, FCR, 0x01);
    for (int idle = 0; idle < 20;) {
        if (get(&u, LSR) & 0x20) {
            put(&u, DATA, (uint8_t)(sent++ % 251));
            idle = 0;
            if (sent % 4096 == 0)
                bench_run_ms(&u.b, 1);
        } else {
            bench_run_ms(&u.b, 1);
            idle++;
        }
    }
    assert_true(sent > 65536);
    for (int idle = 0; received < sent && idle < 200;) {
        ssize_t count = recv(u.peer, buffer, sizeof buffer, 0);
        for (ssize_t i = 0; i < count; i++, received++)
            assert_int_equal(buffer[i], received % 251);
        idle = count > 0 ? 0 : idle + 1;
        bench_run_ms(&u.b, 1);
    }
    assert_int_equal(received, sent);
    assert_int_equal(get(&u, LSR) & 0x60, 0x60);
    free_line(&u);
    stop(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),     cmocka_unit_test(test_transmit),     cmocka_unit_test(test_receive),
        cmocka_unit_test(test_flow_control), cmocka_unit_test(test_backpressure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
