/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as text. Written here and not by json-c because the layout is part of the interface: one line with a space
 * behind
 * ',' and ':', or four spaces a level, with an empty object or array closed on a line of its own; pure ASCII, so that a
 * file name in any encoding gives valid JSON.
 */
#include "qmp/schema/json.h"

#include <inttypes.h>
#include <math.h>
#include "base/strbuf.h"
#include "qmp/schema/utf8.h"

struct writer {
    struct strbuf text;
    bool pretty;
    unsigned depth;
};

static void write_value(struct writer *writer, const struct json *json);

static void write_unit(struct strbuf *text, unsigned unit)
{
    strbuf_printf(text, "\\u%04X", unit);
}

static void write_character(struct strbuf *text, uint32_t character)
{
    static const char short_form[256] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't', ['"'] = '"', ['\\'] = '\\'};
    if (character < 256 && short_form[character])
        strbuf_printf(text, "\\%c", short_form[character]);
    else if (character >= 0x20 && character < 0x7f)
        strbuf_append_char(text, (char)character);
    else if (character < 0x10000)
        write_unit(text, character);
    else {
        write_unit(text, 0xd800 + ((character - 0x10000) >> 10));
        write_unit(text, 0xdc00 + ((character - 0x10000) & 0x3ff));
    }
}

static void write_string(struct strbuf *text, const char *string)
{
    strbuf_append_char(text, '"');
    while (*string)
        write_character(text, utf8_next(&string));
    strbuf_append_char(text, '"');
}

static void write_break(struct writer *writer)
{
    if (!writer->pretty)
        return;
    strbuf_append_char(&writer->text, '\n');
    for (unsigned i = 0; i < writer->depth; i++)
        strbuf_append(&writer->text, "    ");
}

static void write_begin(struct writer *writer, char bracket)
{
    strbuf_append_char(&writer->text, bracket);
    writer->depth++;
}

static void write_end(struct writer *writer, char bracket)
{
    writer->depth--;
    write_break(writer);
    strbuf_append_char(&writer->text, bracket);
}

static void write_separator(struct writer *writer, bool is_first)
{
    if (!is_first)
        strbuf_append(&writer->text, writer->pretty ? "," : ", ");
    write_break(writer);
}

static void write_object(struct writer *writer, const struct json *object)
{
    write_begin(writer, '{');
    bool is_first = true;
    for (struct json_member member = json_first(object); member.key; member = json_next(member)) {
        write_separator(writer, is_first);
        is_first = false;
        write_string(&writer->text, member.key);
        strbuf_append(&writer->text, ": ");
        write_value(writer, member.value);
    }
    write_end(writer, '}');
}

static void write_array(struct writer *writer, const struct json *array)
{
    write_begin(writer, '[');
    for (size_t i = 0; i < json_length(array); i++) {
        write_separator(writer, i == 0);
        write_value(writer, json_at(array, i));
    }
    write_end(writer, ']');
}

static void write_integer(struct strbuf *text, const struct json *json)
{
    int64_t value;
    uint64_t large = 0;
    if (json_int64(json, &value))
        strbuf_printf(text, "%" PRId64, value);
    else if (json_uint64(json, &large))
        strbuf_printf(text, "%" PRIu64, large);
}

static void write_number(struct strbuf *text, double value)
{
    if (isfinite(value))
        strbuf_printf(text, "%.17g", value);
    else
        strbuf_append(text, "null"); /* JSON has no such numbers */
}

static void write_value(struct writer *writer, const struct json *json)
{
    switch (json_kind(json)) {
    case JSON_NULL: strbuf_append(&writer->text, "null"); break;
    case JSON_BOOL: strbuf_append(&writer->text, json_boolean(json) ? "true" : "false"); break;
    case JSON_INT: write_integer(&writer->text, json); break;
    case JSON_NUMBER: write_number(&writer->text, json_number(json)); break;
    case JSON_STRING: write_string(&writer->text, json_string(json)); break;
    case JSON_ARRAY: write_array(writer, json); break;
    case JSON_OBJECT: write_object(writer, json); break;
    }
}

char *json_to_text(const struct json *json)
{
    struct writer writer = {0};
    write_value(&writer, json);
    return strbuf_take(&writer.text);
}

char *json_to_pretty_text(const struct json *json)
{
    struct writer writer = {.pretty = true};
    write_value(&writer, json);
    return strbuf_take(&writer.text);
}
