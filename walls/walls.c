/* SPDX-License-Identifier: Apache-2.0 */
/* All of it in the right order: see the header. The filter comes last, as it refuses what the others call. */
#include "walls/walls.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "walls/internal.h"

bool walls_are_relaxed(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
    return true;
#endif
#endif
    return false;
}

static bool build_walls(enum walls_role role, const struct walls_options *options, struct error *err)
{
    struct walls_list lists[WALLS_LISTS];
    size_t count = walls_lists(role, options, lists);
    return walls_drop(role, options, err) && walls_filter(lists, count, err);
}

bool walls_enter(enum walls_role role, const struct walls_options *options, struct error *err)
{
    auto_error cause = {0};
    if (options->off || build_walls(role, options, &cause))
        return true;
    fail_prefix(&cause, "sandbox: ");
    if (options->demanded || role == WALLS_WORKER) {
        error_move(err, &cause);
        return false;
    }
    log_warning("%s; the program goes on without", cause.message);
    return true;
}
