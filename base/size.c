/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes in text. Fractions are computed in integers (digits times unit over a power of ten), so that "0.1G" is the same
 * number on every machine; digits beyond the 18th of a fraction no longer count.
 */
#include "base/size.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/math.h"

static const char units[] = "BKMGTPE";

/* Reads decimal digits; false when the number does not fit. */
static bool read_digits(const char **text, uint64_t *value)
{
    *value = 0;
    for (; isdigit((unsigned char)**text); (*text)++)
        if (mul_overflows(*value, 10, value) || add_overflows(*value, (uint64_t)(**text - '0'), value))
            return false;
    return true;
}

/* Reads ".ddd" as digits / scale; drops digits beyond the 18th. */
static void read_fraction(const char **text, uint64_t *digits, uint64_t *scale)
{
    *digits = 0;
    *scale = 1;
    for (; isdigit((unsigned char)**text); (*text)++) {
        if (*scale >= 1000000000000000000ull)
            continue;
        *digits = *digits * 10 + (uint64_t)(**text - '0');
        *scale *= 10;
    }
}

static bool read_hex(const char *text, const char **end, uint64_t *size)
{
    char *stop;
    errno = 0;
    *size = strtoull(text + 2, &stop, 16);
    *end = stop;
    return !errno;
}

static uint64_t read_unit(const char **text, uint64_t default_unit)
{
    const char *unit = **text ? strchr(units, toupper((unsigned char)**text)) : NULL;
    if (!unit)
        return default_unit;
    (*text)++;
    return 1ull << 10 * (unit - units);
}

bool parse_size_prefix(const char *text, uint64_t default_unit, const char **end, uint64_t *size, struct error *err)
{
    const char *at = text;
    while (isspace((unsigned char)*at))
        at++;
    if (*at == '-')
        return fail(err, ERANGE, "size '%s': must not be negative", text);
    if (*at == '+')
        at++;
    if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X') && isxdigit((unsigned char)at[2]))
        return read_hex(at, end, size) || fail(err, ERANGE, "size '%s': more than 64 bits", text);

    const char *first = at;
    uint64_t whole, digits = 0, scale = 1;
    if (!read_digits(&at, &whole))
        return fail(err, ERANGE, "size '%s': more than 64 bits", text);
    bool has_digits = at != first;
    if (*at == '.') {
        const char *dot = at++;
        read_fraction(&at, &digits, &scale);
        has_digits = has_digits || at - dot > 1;
    }
    if (!has_digits)
        return fail(err, EINVAL, "size '%s': expected a number, perhaps with a unit (B, K, M, G, T, P or E)", text);

    uint64_t unit = read_unit(&at, default_unit);
    if (digits && unit == 1)
        return fail(err, EINVAL, "size '%s': a fraction of a byte; add a unit (K, M, G, T, P or E)", text);
    uint64_t fraction = (uint64_t)((unsigned __int128)digits * unit / scale);
    if (mul_overflows(whole, unit, size) || add_overflows(*size, fraction, size))
        return fail(err, ERANGE, "size '%s': more than 64 bits", text);
    *end = at;
    return true;
}

bool parse_size(const char *text, uint64_t *size, struct error *err)
{
    const char *end;
    if (!parse_size_prefix(text, 1, &end, size, err))
        return false;
    if (*end)
        return fail(err, EINVAL, "size '%s': '%s' does not belong to a size (units are B, K, M, G, T, P and E)", text,
                    end);
    return true;
}

const char *format_size(char buffer[FORMAT_SIZE_MAX], uint64_t size)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    /* 1000 of a unit would need four digits, so it is written as 0.977 of the next. */
    unsigned unit = 0;
    double value = (double)size;
    while (value >= 1000 && unit + 1 < ARRAY_SIZE(names)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, FORMAT_SIZE_MAX, "%.3g %s", value, names[unit]);
    return buffer;
}
