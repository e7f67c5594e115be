/* SPDX-License-Identifier: Apache-2.0 */
/* What subcommands share. */
#include "image-tools/img/command.h"

#include <string.h>
#include "base/log.h"
#include "base/size.h"

bool img_output_format(const char *text, enum output_format *format)
{
    bool is_human = !text || !strcmp(text, "human");
    if (!is_human && strcmp(text, "json")) {
        log_error("--output must be used with human or json as argument, not '%s'", text);
        return false;
    }
    *format = is_human ? OUTPUT_HUMAN : OUTPUT_JSON;
    return true;
}

bool img_size(const char *what, const char *text, uint64_t *size, struct error *err)
{
    return parse_size(text, size, err) || fail_prefix(err, "Invalid %s: ", what);
}

int img_fail(struct error *err, int status)
{
    log_failure(err);
    error_clear(err);
    return status;
}
