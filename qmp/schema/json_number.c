/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of JSON; see the header. */
#include "qmp/schema/json_number.h"

#include "base/math.h"

static void add_digit(struct json_number *number, char byte)
{
    number->is_too_large |= mul_overflows(number->magnitude, 10, &number->magnitude) ||
                            add_overflows(number->magnitude, (uint64_t)(byte - '0'), &number->magnitude);
}

/* The place behind the byte, if the byte is right; json_number_scan() checks that a digit stands where one must. */
static enum number_place next_place(enum number_place place, char byte)
{
    bool is_exponent = byte == 'e' || byte == 'E';
    switch (place) {
    case NO_NUMBER:
        if (byte == '-')
            return NUMBER_SIGN;
        /* fall through */
    case NUMBER_SIGN: return byte == '0' ? NUMBER_ZERO : NUMBER_DIGITS;
    case NUMBER_ZERO:
    case NUMBER_DIGITS: return byte == '.' ? NUMBER_POINT : is_exponent ? NUMBER_EXPONENT : NUMBER_DIGITS;
    case NUMBER_POINT: return NUMBER_FRACTION;
    case NUMBER_FRACTION: return is_exponent ? NUMBER_EXPONENT : NUMBER_FRACTION;
    case NUMBER_EXPONENT: return byte == '+' || byte == '-' ? NUMBER_EXPONENT_SIGN : NUMBER_EXPONENT_DIGITS;
    case NUMBER_EXPONENT_SIGN:
    case NUMBER_EXPONENT_DIGITS: return NUMBER_EXPONENT_DIGITS;
    }
    return place;
}

static bool ends_with_digit(enum number_place place)
{
    return place == NUMBER_ZERO || place == NUMBER_DIGITS || place == NUMBER_FRACTION ||
           place == NUMBER_EXPONENT_DIGITS;
}

bool json_number_scan(struct json_number *number, char byte)
{
    enum number_place before = number->place;
    number->place = next_place(before, byte);
    if (before == NO_NUMBER)
        number->is_negative = byte == '-';
    if ((byte >= '0' && byte <= '9') != ends_with_digit(number->place))
        return false;
    if (number->place == NUMBER_DIGITS)
        add_digit(number, byte);
    return before != NUMBER_ZERO || number->place != NUMBER_DIGITS; /* no leading zero */
}

const char *json_number_end(const struct json_number *number)
{
    if (number->place == NO_NUMBER)
        return NULL;
    if (!ends_with_digit(number->place))
        return "an incomplete number";
    bool is_integer = number->place == NUMBER_DIGITS;
    if (is_integer && (number->is_too_large || (number->is_negative && number->magnitude > (uint64_t)INT64_MAX + 1)))
        return "an integer that does not fit 64 bits";
    return NULL;
}
