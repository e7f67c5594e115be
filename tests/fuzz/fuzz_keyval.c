/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts of command line options. What is accepted must mean the same after it has been written out again, and peeking
 * and looking for help must cope with any text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_type(const struct schema_type *type, const char *implied_key, const char *text)
{
    auto_error err = {0};
    void *value;
    if (!schema_read_text(type, text, implied_key, &value, &err)) {
        if (!err.message)
            abort();
        return;
    }
    auto_json *json = schema_write(type, value);
    auto_free char *written = schema_write_text(type, value);
    void *again = NULL;
    if (written) {
        if (!schema_read_text(type, written, NULL, &again, &err))
            abort();
        auto_json *second = schema_write(type, again);
        if (!json_equal(json, second))
            abort();
    }
    schema_free(type, again);
    schema_free(type, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = xstrndup((const char *)data, size);
    auto_free char *peeked = keyval_peek(text, "driver", "driver");
    keyval_wants_help(text);
    auto_json *tree = keyval_parse(text, NULL, NULL);
    json_free(TAKE(tree));
    check_type(&blockdev_options_type, "driver", text);
    check_type(&chardev_options_type, "backend", text);
    check_type(&block_export_options_type, "type", text);
    check_type(&nbd_server_options_type, NULL, text);
    check_type(&qcow2_create_options_type, NULL, text);
    check_type(&q_blockdev_reopen_arg_type, NULL, text);
    return 0;
}
