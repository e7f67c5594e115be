/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading JSON, from a stream or from a whole text.
 *
 * json-c does the parsing, but it does not find out where a value ends before it has parsed it, accepts a member twice,
 * does not check UTF-8 across pieces, and knows no single quotes. So a small scanner runs in front of it. It looks at
 * each byte once, knows only brackets, strings and words, and hands the bytes on, with single-quoted strings rewritten:
 *
 *     bytes --> scanner (where are we? depth, size, UTF-8, members) --> json-c's tokener --> value
 *
 * A member that stands twice is found by counting: json-c keeps only the last one, so the tree has fewer members than
 * the scanner has seen colons.
 *
 * After an error the scanner skips: to the end of the line or to where the brackets close, whichever comes first.
 * Values that are only too long or too deep are well-formed so far, and are skipped to their closing bracket alone,
 * because they may well have many lines.
 */
#include "qmp/schema/json.h"

#include <json.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "qmp/schema/json_internal.h"
#include "qmp/schema/json_number.h"
#include "qmp/schema/utf8.h"

enum place {
    BETWEEN, /* values */
    IN_BRACKETS,
    IN_TOP_STRING,
    IN_TOP_WORD,
    SKIP_LINE,  /* after a syntax error */
    SKIP_VALUE, /* after a value too long or too deep */
};

struct json_stream {
    struct json_tokener *tokener;
    enum place place;
    size_t max_size;
    size_t size;          /* of the current value so far */
    size_t n_members;     /* colons outside strings in the current value */
    unsigned depth;       /* open brackets */
    uint64_t is_object;   /* bit d: the bracket of depth d + 1 is '{' */
    char quote;           /* of the string we are in; 0 = none */
    bool escaped;         /* the last byte was a backslash in a string */
    uint8_t unicode_left; /* digits to come of a \u escape */
    uint16_t unicode;     /* its value so far */
    struct utf8_state utf8;
    bool in_word; /* number, true, false or null */
    struct json_number number;
    size_t buffered;
    char buffer[4096]; /* scanned bytes on their way to json-c */
};

struct json_stream *json_stream_new(size_t max_value_size)
{
    struct json_stream *stream = xcalloc(1, sizeof *stream);
    stream->max_size = max_value_size;
    stream->tokener = json_tokener_new_ex(JSON_MAX_DEPTH + 1);
    if (!stream->tokener)
        abort();
    json_tokener_set_flags(stream->tokener, JSON_TOKENER_STRICT);
    return stream;
}

void json_stream_free(struct json_stream *stream)
{
    if (!stream)
        return;
    json_tokener_free(stream->tokener);
    free(stream);
}

static void start_value(struct json_stream *stream)
{
    json_tokener_reset(stream->tokener);
    stream->place = BETWEEN;
    stream->size = stream->n_members = stream->buffered = 0;
    stream->depth = 0;
    stream->quote = 0;
    stream->escaped = false;
    stream->unicode_left = 0;
    stream->in_word = false;
    stream->utf8 = (struct utf8_state){0};
}

static bool broken(struct json_stream *stream, enum place skip, struct error *err, const char *what)
{
    stream->place = skip;
    stream->buffered = 0;
    return fail(err, EINVAL, "JSON: %s at byte %zu of the value", what, stream->size);
}

/* Hands what is buffered to json-c. *object is set when that completes the value. */
static bool flush(struct json_stream *stream, struct json_object **object, bool *complete, struct error *err)
{
    *complete = false;
    if (!stream->buffered)
        return true;
    size_t length = stream->buffered;
    stream->buffered = 0;
    *object = json_tokener_parse_ex(stream->tokener, stream->buffer, (int)length);
    enum json_tokener_error state = json_tokener_get_error(stream->tokener);
    if (state == json_tokener_continue)
        return true;
    if (state == json_tokener_success) {
        *complete = true;
        return true;
    }
    return broken(stream, SKIP_LINE, err, json_tokener_error_desc(state));
}

static void hand_on(struct json_stream *stream, char byte)
{
    stream->buffer[stream->buffered++] = byte;
}

/* The byte behind a backslash; json-c checks that it is one of those that may stand there. */
static bool scan_escape(struct json_stream *stream, char byte)
{
    stream->escaped = false;
    if (byte != '\'')
        hand_on(stream, '\\');
    hand_on(stream, byte);
    if (byte == 'u') {
        stream->unicode_left = 4;
        stream->unicode = 0;
    }
    return true;
}

static bool scan_unicode_digit(struct json_stream *stream, char byte, struct error *err)
{
    const char *digits = "0123456789abcdef";
    const char *digit = byte ? strchr(digits, byte | 0x20) : NULL;
    if (!digit || (byte < '0'))
        return broken(stream, SKIP_LINE, err, "\\u without four hexadecimal digits");
    stream->unicode = (uint16_t)(stream->unicode << 4 | (digit - digits));
    hand_on(stream, byte);
    if (--stream->unicode_left == 0 && stream->unicode == 0)
        return broken(stream, SKIP_LINE, err, "NUL character in a string");
    return true;
}

static bool scan_in_string(struct json_stream *stream, char byte, struct error *err)
{
    if (!utf8_feed(&stream->utf8, (uint8_t)byte))
        return broken(stream, SKIP_LINE, err, "a string that is not UTF-8");
    if ((unsigned char)byte < 0x20) {
        broken(stream, SKIP_LINE, err, "control character in a string");
        if (byte == '\n')
            start_value(stream); /* the line has ended already */
        return false;
    }
    if (stream->unicode_left)
        return scan_unicode_digit(stream, byte, err);
    if (stream->escaped)
        return scan_escape(stream, byte);
    if (byte == '\\') {
        stream->escaped = true;
        return true;
    }
    if (byte == stream->quote) {
        stream->quote = 0;
        byte = '"';
    } else if (byte == '"') {
        hand_on(stream, '\\'); /* inside single quotes */
    }
    hand_on(stream, byte);
    return true;
}

static bool open_bracket(struct json_stream *stream, char byte, struct error *err)
{
    if (stream->depth == JSON_MAX_DEPTH) {
        stream->depth++;
        return broken(stream, SKIP_VALUE, err, "more than 64 levels of nesting");
    }
    uint64_t bit = UINT64_C(1) << stream->depth++;
    stream->is_object = byte == '{' ? stream->is_object | bit : stream->is_object & ~bit;
    hand_on(stream, byte);
    return true;
}

static bool close_bracket(struct json_stream *stream, char byte, struct error *err)
{
    bool is_object = stream->is_object >> (stream->depth - 1) & 1;
    stream->depth--;
    if (is_object != (byte == '}')) {
        broken(stream, SKIP_LINE, err, is_object ? "']' where '}' is needed" : "'}' where ']' is needed");
        if (!stream->depth)
            start_value(stream);
        return false;
    }
    hand_on(stream, byte);
    return true;
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Bytes of numbers and of the words true, false and null; json-c checks how they are combined. */
static bool is_word(char byte)
{
    return byte && strchr("0123456789+-.eEtrufalsn", byte);
}

/* A word has ended. */
static bool end_word(struct json_stream *stream, struct error *err)
{
    stream->in_word = false;
    const char *wrong = json_number_end(&stream->number);
    return !wrong || broken(stream, SKIP_LINE, err, wrong);
}

/* Letters of true, false and null are left to json-c. */
static bool scan_word(struct json_stream *stream, char byte, struct error *err)
{
    if (!stream->in_word) {
        stream->in_word = true;
        stream->number = (struct json_number){0};
        if (byte != '-' && (byte < '0' || byte > '9'))
            return (byte != '+' && byte != '.') ||
                   broken(stream, SKIP_LINE, err, "a number that begins with '+' or '.'");
    } else if (stream->number.place == NO_NUMBER) {
        return true;
    }
    return json_number_scan(&stream->number, byte) ||
           broken(stream, SKIP_LINE, err, "a number that is not well formed");
}

static bool scan_outside_strings(struct json_stream *stream, char byte, struct error *err)
{
    if (is_word(byte)) {
        if (!scan_word(stream, byte, err))
            return false;
        hand_on(stream, byte);
        return true;
    }
    if (stream->in_word && !end_word(stream, err))
        return false;
    if (byte == '{' || byte == '[')
        return open_bracket(stream, byte, err);
    if (byte == '}' || byte == ']')
        return close_bracket(stream, byte, err);
    if (byte == '"' || byte == '\'') {
        stream->quote = byte;
        byte = '"';
    } else if (byte == ':') {
        stream->n_members++;
    } else if (byte != ',' && !is_space(byte)) {
        return broken(stream, SKIP_LINE, err, "unexpected character");
    }
    hand_on(stream, byte);
    return true;
}

static bool begin_value(struct json_stream *stream, char byte, struct error *err)
{
    start_value(stream);
    if (byte == '{' || byte == '[')
        stream->place = IN_BRACKETS;
    else if (byte == '"' || byte == '\'')
        stream->place = IN_TOP_STRING;
    else if (is_word(byte))
        stream->place = IN_TOP_WORD;
    else
        return broken(stream, SKIP_LINE, err, "unexpected character");
    return true;
}

/* Where do we go on? Brackets are counted as well as they can be in what is broken. */
static void skip(struct json_stream *stream, char byte)
{
    if (byte == '\n' && stream->place == SKIP_LINE) {
        start_value(stream);
    } else if (stream->quote) {
        if (stream->escaped)
            stream->escaped = false;
        else if (byte == '\\')
            stream->escaped = true;
        else if (byte == stream->quote)
            stream->quote = 0;
    } else if (byte == '"' || byte == '\'') {
        stream->quote = byte;
    } else if (byte == '{' || byte == '[') {
        stream->depth++;
    } else if ((byte == '}' || byte == ']') && stream->depth && --stream->depth == 0) {
        start_value(stream);
    }
}

/* What is in a value that json-c has made. */
struct tally {
    size_t n_members;
    bool is_infinite; /* a number was too large for a double */
};

static void take_stock(const struct json *json, struct tally *tally)
{
    enum json_kind kind = json_kind(json);
    if (kind == JSON_NUMBER)
        tally->is_infinite |= !isfinite(json_number(json));
    for (size_t i = 0; kind == JSON_ARRAY && i < json_length(json); i++)
        take_stock(json_at(json, i), tally);
    for (struct json_member member = json_first(json); member.key; member = json_next(member)) {
        tally->n_members++;
        take_stock(member.value, tally);
    }
}

static bool check_stock(const struct json_stream *stream, const struct json *value, struct error *err)
{
    struct tally tally = {0};
    take_stock(value, &tally);
    if (stream->n_members != tally.n_members)
        return fail(err, EINVAL, "JSON: a member stands twice in the same object");
    return !tally.is_infinite || fail(err, ERANGE, "JSON: a number is too large");
}

/* The last byte of a value has been scanned. */
static enum json_stream_result finish_value(struct json_stream *stream, struct json **value, struct error *err)
{
    struct json_object *object = NULL;
    bool complete = false, good = true, is_top_word = stream->place == IN_TOP_WORD;
    if (is_top_word) {
        hand_on(stream, '\0'); /* tells json-c that a number ends here */
        good = end_word(stream, err);
    }
    good = good && flush(stream, &object, &complete, err);
    if (good && !complete)
        good = fail(err, EINVAL, "JSON: the value is not complete");
    good = good && check_stock(stream, json_wrap(object), err);
    start_value(stream);
    if (!good) {
        stream->place = is_top_word ? SKIP_LINE : BETWEEN; /* more such words will follow it */
        json_object_put(object);
        return JSON_STREAM_ERROR;
    }
    *value = json_wrap(object);
    return JSON_STREAM_VALUE;
}

static bool at_end_of_value(const struct json_stream *stream)
{
    return (stream->place == IN_BRACKETS && !stream->depth) || (stream->place == IN_TOP_STRING && !stream->quote);
}

static bool scan(struct json_stream *stream, char byte, struct error *err)
{
    if (++stream->size > stream->max_size) {
        /* At the top level there is no bracket to wait for. */
        broken(stream, stream->depth ? SKIP_VALUE : SKIP_LINE, err, "too long: the limit is reached");
        skip(stream, byte);
        return false;
    }
    return stream->quote ? scan_in_string(stream, byte, err) : scan_outside_strings(stream, byte, err);
}

enum json_stream_result json_stream_read(struct json_stream *stream, const char **data, size_t *length,
                                         struct json **value, struct error *err)
{
    struct json_object *object = NULL;
    bool complete;
    while (*length) {
        char byte = **data;
        if (stream->place == IN_TOP_WORD && !is_word(byte))
            return finish_value(stream, value, err); /* the byte is looked at again next time */
        ++*data;
        --*length;
        if ((unsigned char)byte == 0xff)
            start_value(stream);
        else if (stream->place == SKIP_LINE || stream->place == SKIP_VALUE)
            skip(stream, byte);
        else if (stream->place != BETWEEN || !is_space(byte)) {
            if ((stream->place == BETWEEN && !begin_value(stream, byte, err)) || !scan(stream, byte, err))
                return JSON_STREAM_ERROR;
            if (at_end_of_value(stream))
                return finish_value(stream, value, err);
            /* A byte can become two. */
            if (stream->buffered >= sizeof stream->buffer - 2 && !flush(stream, &object, &complete, err))
                return JSON_STREAM_ERROR;
        }
    }
    /* What json-c has seen is found wrong now rather than when the brackets close. A word may be complete without
     * json-c knowing, or the other way round. */
    if (stream->place == IN_TOP_WORD)
        return JSON_STREAM_MORE;
    return flush(stream, &object, &complete, err) ? JSON_STREAM_MORE : JSON_STREAM_ERROR;
}

enum json_stream_result json_stream_end(struct json_stream *stream, struct json **value, struct error *err)
{
    if (stream->place == IN_TOP_WORD)
        return finish_value(stream, value, err);
    bool is_incomplete = stream->place == IN_BRACKETS || stream->place == IN_TOP_STRING;
    start_value(stream);
    if (!is_incomplete)
        return JSON_STREAM_MORE;
    fail(err, EINVAL, "JSON: the text ends in the middle of a value");
    return JSON_STREAM_ERROR;
}

static void stream_cleanup(struct json_stream **stream)
{
    json_stream_free(*stream);
}

struct json *json_parse(const char *text, size_t length, struct error *err)
{
    __attribute__((cleanup(stream_cleanup))) struct json_stream *stream = json_stream_new(JSON_MAX_SIZE);
    struct json *value = NULL;
    enum json_stream_result result = json_stream_read(stream, &text, &length, &value, err);
    if (result == JSON_STREAM_MORE)
        result = json_stream_end(stream, &value, err);
    if (result == JSON_STREAM_ERROR)
        return NULL;
    if (result == JSON_STREAM_MORE)
        return fail_null(err, EINVAL, "JSON: there is no value in the text");
    while (length && is_space(*text))
        text++, length--;
    if (length) {
        json_free(value);
        return fail_null(err, EINVAL, "JSON: unexpected text behind the value: '%.*s'",
                         (int)(length < 20 ? length : 20), text);
    }
    return value;
}
