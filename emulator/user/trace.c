/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -strace: one line a system call, from its row of the table. The call is printed before it is made, so that the last
 * line tells what a program hangs in; the result follows on the same line. A line is written at once, threads may come
 * in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include "emulator/user/calls.h"

struct line {
    char text[1024];
    size_t length;
};

static void PRINTF_LIKE(2, 3) add(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line->text + line->length, sizeof line->text - line->length, format, arguments);
    va_end(arguments);
    size_t room = sizeof line->text - line->length - 1;
    line->length += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room;
}

static void flush(const struct user_thread *t, const struct line *line)
{
    ssize_t ignored = write(t->process->trace, line->text, line->length);
    (void)ignored;
}

static void add_string(struct user_thread *t, struct line *line, uint64_t address, size_t limit)
{
    char text[128];
    size_t size = limit < sizeof text ? limit : sizeof text - 1;
    if (!address) {
        add(line, "NULL");
        return;
    }
    int64_t length = space_string(&t->process->space, text, size, address);
    if (length == -EFAULT) {
        add(line, "0x%" PRIx64, address);
        return;
    }
    size_t shown = length < 0 ? size : (size_t)length;
    add(line, "\"");
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= ' ' && c < 0x7f && c != '"' && c != '\\')
            add(line, "%c", c);
        else if (c == '\n')
            add(line, "\\n");
        else
            add(line, "\\x%02x", c);
    }
    add(line, "\"%s", length < 0 ? "..." : "");
}

static void add_argument(struct user_thread *t, struct line *line, char kind, const uint64_t *a)
{
    enum { SHOWN = 64 };
    switch (kind) {
    case 'p':
    case 's': add_string(t, line, *a, SHOWN); break;
    case 'b': add_string(t, line, *a, a[1] < SHOWN ? (size_t)a[1] : SHOWN); break;
    case 'i':
    case 'S': add(line, "%" PRId64, (int64_t)(*a >> 32 == UINT32_MAX ? (uint64_t)(int32_t)*a : *a)); break;
    case 'd': add(line, "%d", (int)*a); break;
    case 'D':
        if ((int)*a == AT_FDCWD)
            add(line, "AT_FDCWD");
        else
            add(line, "%d", (int)*a);
        break;
    case 'o': add(line, "0%" PRIo64, *a); break;
    default:
        if (*a)
            add(line, "0x%" PRIx64, *a);
        else
            add(line, kind == 'x' ? "0" : "NULL");
    }
}

void user_trace_call(struct user_thread *t, const struct user_syscall *row, uint64_t number, const uint64_t a[6])
{
    struct line line = {.length = 0};
    add(&line, "%d ", t->tid);
    if (row->name)
        add(&line, "%s(", row->name);
    else
        add(&line, "syscall_%" PRIu64 "(", number);
    for (unsigned i = 0; row->arguments[i]; i++) {
        if (i)
            add(&line, ",");
        add_argument(t, &line, row->arguments[i], &a[i]);
    }
    add(&line, ")");
    if (!strncmp(row->name ? row->name : "", "exit", 4))
        add(&line, "\n"); /* it does not come back */
    flush(t, &line);
}

void user_trace_result(struct user_thread *t, const struct user_syscall *row, int64_t result)
{
    enum { LARGEST_ERROR = 4095 };
    struct line line = {.length = 0};
    if (result == -USER_EINTERRUPTED)
        add(&line, " = ? (a signal comes first)\n");
    else if (result < 0 && result >= -LARGEST_ERROR)
        add(&line, " = -1 errno=%d (%s)\n", (int)-result, strerror((int)-result));
    else if (result > 0xffff)
        add(&line, " = 0x%" PRIx64 "\n", (uint64_t)result);
    else
        add(&line, " = %" PRId64 "\n", result);
    flush(t, &line);
}
