/* SPDX-License-Identifier: Apache-2.0 */
/* What the request lines of metrics' clients mean, and that nothing behind the head is looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"
#include "storage-daemon/metrics.h"
/* Behind ours, since it makes fail() a macro. */
#include <cmocka.h>

static const struct {
    const char *head;
    int status;
    bool only_head;
} cases[] = {
    {"GET /metrics HTTP/1.1\r\n\r\n", 200, false},
    {"GET /metrics HTTP/1.0\n\n", 200, false},
    {"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 200, false},
    {"HEAD /metrics HTTP/1.1\r\n\r\n", 200, true},
    {"PUT /metrics HTTP/1.1\r\n\r\n", 405, false},
    {"get /metrics HTTP/1.1\r\n\r\n", 405, false},
    {"GET /metrics/ HTTP/1.1\r\n\r\n", 404, false},
    {"GET / HTTP/1.1\r\n\r\n", 404, false},
    {"HEAD / HTTP/1.1\r\n\r\n", 404, true},
    {"GET ?/metrics HTTP/1.1\r\n\r\n", 404, false},
    {"GET /metrics HTTP/2.0\r\n\r\n", 505, false},
    {"GET /metrics HTTP/1.11\r\n\r\n", 400, false},
    {"GET /metrics\r\n\r\n", 400, false},
    {"GET  HTTP/1.1\r\n\r\n", 400, false},
    {" /metrics HTTP/1.1\r\n\r\n", 400, false},
    {"\r\n\r\n", 400, false},
    {"\n\n", 400, false},
    {"GET", 400, false},
};

/* In memory of its exact size, where a sanitizer sees a byte too far. */
static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t length = strlen(cases[i].head);
        char *head = xmemdup(cases[i].head, length);
        struct metrics_request request = metrics_request_parse(head, length);
        if (request.status != cases[i].status || request.only_head != cases[i].only_head)
            fail_msg("\"%s\": %d", cases[i].head, request.status);
        free(head);
    }
}

/* Every beginning of a request, and each with a byte changed, is answered by one of the known statuses. */
static void test_pieces(void **state)
{
    static const char whole[] = "GET /metrics?x HTTP/1.1\r\nA: b\r\n\r\n";
    (void)state;
    for (size_t length = 0; length < sizeof whole; length++) {
        for (size_t at = 0; at < length; at++) {
            char *head = xmemdup(whole, length);
            for (unsigned byte = 0; byte < 256; byte++) {
                head[at] = (char)byte;
                int status = metrics_request_parse(head, length).status;
                assert_true(status == 200 || status == 400 || status == 404 || status == 405 || status == 505);
            }
            free(head);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
