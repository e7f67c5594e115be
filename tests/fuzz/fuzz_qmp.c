/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes a client may send to a monitor: the stream parser in pieces of changing size, and the arguments of every
 * kind of type behind it. What is accepted must survive a round trip: written out and read again, it is the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/math.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const struct json *value)
{
    auto_error err = {0};
    auto_free char *text = json_to_text(value);
    auto_json *again = json_parse(text, strlen(text), &err);
    if (!again)
        abort();
    /* 1.0 is written as 1, and is an integer from then on. */
    auto_free char *second = json_to_text(again);
    auto_json *third_value = json_parse(second, strlen(second), &err);
    auto_free char *third = json_to_text(third_value);
    if (strcmp(second, third))
        abort();
    auto_free char *pretty = json_to_pretty_text(value);
    auto_json *from_pretty = json_parse(pretty, strlen(pretty), &err);
    if (!from_pretty)
        abort();
}

static void check_type(const struct schema_type *type, const struct json *json)
{
    auto_error err = {0};
    void *value;
    if (!schema_read(type, json, SCHEMA_INPUT_JSON, &value, &err)) {
        if (!err.message)
            abort();
        return;
    }
    void *copy = schema_clone(type, value);
    auto_json *written = schema_write(type, copy);
    void *again;
    if (!schema_read(type, written, SCHEMA_INPUT_JSON, &again, &err))
        abort();
    auto_json *second = schema_write(type, again);
    if (!json_equal(written, second))
        abort();
    auto_free char *text = schema_write_text(type, value);
    void *from_text = NULL;
    if (text && *text && schema_read_text(type, text, NULL, &from_text, NULL)) {
        auto_json *third = schema_write(type, from_text);
        if (!json_equal(written, third))
            abort();
    }
    schema_free(type, from_text);
    schema_free(type, again);
    schema_free(type, copy);
    schema_free(type, value);
}

static void check_value(const struct json *value)
{
    static const struct schema_type *const types[] = {
        &blockdev_options_type, &q_blockdev_reopen_arg_type, &block_export_options_type, &q_nbd_server_start_arg_type,
        &chardev_options_type,  &schema_info_type,           &block_graph_info_type,     &qcow2_create_options_type,
    };
    check_text(value);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        check_type(types[i], value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    size_t piece = data[0] ? data[0] : SIZE_MAX;
    const char *at = (const char *)data + 1;
    size--;
    struct json_stream *stream = json_stream_new(4096);
    struct json *value;
    while (size) {
        size_t left = MIN(piece, size);
        const char *begin = at;
        at += left;
        size -= left;
        for (;;) {
            auto_error err = {0};
            enum json_stream_result result = json_stream_read(stream, &begin, &left, &value, &err);
            if (result == JSON_STREAM_MORE)
                break;
            if (result == JSON_STREAM_ERROR) {
                if (!err.message)
                    abort();
                continue;
            }
            check_value(value);
            json_free(value);
        }
    }
    if (json_stream_end(stream, &value, NULL) == JSON_STREAM_VALUE)
        json_free(value);
    json_stream_free(stream);
    return 0;
}
