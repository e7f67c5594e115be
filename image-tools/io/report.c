/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands print, and how they read numbers. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/size.h"
#include "image-tools/io/io.h"

#define SECTOR 512
#define MAX_LENGTH ((uint64_t)INT_MAX / SECTOR * SECTOR)

static void trim_fraction(char *text, const char *zeroes)
{
    size_t length = strlen(text), zero_length = strlen(zeroes);
    if (length > zero_length && !strcmp(text + length - zero_length, zeroes))
        text[length - zero_length] = 0;
}

const char *io_format_size(char text[IO_SIZE_MAX], double value)
{
    static const char *const units[] = {" bytes", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
        value /= 1024;
    char number[IO_SIZE_MAX / 2];
    snprintf(number, sizeof number, unit ? "%.3f" : "%f", value);
    trim_fraction(number, unit ? ".000" : ".000000");
    snprintf(text, IO_SIZE_MAX, "%s%s", number, units[unit]);
    return text;
}

static void format_time(char text[IO_SIZE_MAX], uint64_t ns, bool always_long)
{
    uint64_t centiseconds = ns / 10000000;
    uint64_t seconds = centiseconds / 100, minutes = seconds / 60;
    if (minutes || always_long)
        snprintf(text, IO_SIZE_MAX, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%02" PRIu64, minutes / 60, minutes % 60,
                 seconds % 60, centiseconds % 100);
    else
        snprintf(text, IO_SIZE_MAX, "%02" PRIu64 ".%02" PRIu64 " sec", seconds, centiseconds % 100);
}

void io_report(const char *verb, const struct io_timing *timing, uint64_t offset, uint64_t asked, uint64_t done,
               bool machine_readable)
{
    uint64_t ns = MAX(timing->end_ns - timing->start_ns, (uint64_t)1);
    double seconds = (double)ns / 1e9;
    char time[IO_SIZE_MAX], total[IO_SIZE_MAX], rate[IO_SIZE_MAX];
    format_time(time, ns, machine_readable);
    if (machine_readable) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", done, time, (double)done / seconds, 1 / seconds);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", verb, done, asked, offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", io_format_size(total, (double)done), time,
           io_format_size(rate, (double)done / seconds), 1 / seconds);
}

void io_failed(const char *verb, int error)
{
    printf("%s failed: %s\n", verb, strerror(-error));
}

void io_dump(const uint8_t *buffer, uint64_t offset, uint64_t length)
{
    for (uint64_t line = 0; line < length; line += 16) {
        uint64_t end = MIN(line + 16, length);
        printf("%08" PRIx64 ":  ", offset + line);
        for (uint64_t i = line; i < end; i++)
            printf("%02x ", buffer[i]);
        printf(" ");
        for (uint64_t i = line; i < end; i++)
            putchar(buffer[i] >= 0x20 && buffer[i] < 0x7f ? buffer[i] : '.');
        printf("\n");
    }
}

bool io_number(const char *text, uint64_t *value)
{
    auto_error err = {0};
    if (parse_size(text, value, &err) && *value <= INT64_MAX)
        return true;
    printf("Parsing error: %s\n", err.message ? err.message : "the number is too large");
    return false;
}

bool io_request_length(const char *text, uint64_t *length)
{
    if (!io_number(text, length))
        return false;
    if (*length <= MAX_LENGTH)
        return true;
    printf("length cannot exceed %" PRIu64 ", given %s\n", MAX_LENGTH, text);
    return false;
}

bool io_pattern(const char *text, int *pattern)
{
    char *end;
    long value = strtol(text, &end, 0);
    if (*text && !*end && value >= 0 && value <= 255) {
        *pattern = (int)value;
        return true;
    }
    printf("%s is not a valid pattern byte (0 to 255)\n", text);
    return false;
}
