/* SPDX-License-Identifier: Apache-2.0 */
/* The commands on the monitor itself: negotiation, versions, lists of what there is, and quit. */
#include "qmp/internal.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "qmp/schema/commands.h"

/* The level of the ecosystem's interface whose commands, options and results we follow. */
#define INTERFACE_MAJOR 10
#define INTERFACE_MINOR 0
#define INTERFACE_MICRO 0

struct version_info *qmp_version(void)
{
    struct version_info *version = version_info_new();
    version->qemu = version_triple_new();
    *version->qemu =
        (struct version_triple){.major = INTERFACE_MAJOR, .minor = INTERFACE_MINOR, .micro = INTERFACE_MICRO};
    version->package = xstrdup("spindle " SPINDLE_VERSION);
    return version;
}

/* No capability is offered, so none can be enabled. */
bool qmp_qmp_capabilities(struct qmp_context *context, struct q_qmp_capabilities_arg *arg, struct error *err)
{
    if (arg->n_enable)
        return fail(err, EINVAL, "capability '%s' is not available; the greeting names those that are",
                    qmp_capability_name(arg->enable[0]));
    if (context->monitor)
        monitor_end_negotiation(context->monitor);
    return true;
}

bool qmp_query_version(struct qmp_context *context, struct version_info **ret, struct error *err)
{
    *ret = qmp_version();
    return true;
}

bool qmp_query_commands(struct qmp_context *context, struct command_info_list **ret, struct error *err)
{
    *ret = command_info_list_new();
    for (size_t i = 0; i < context->server->modules.count; i++) {
        const struct qmp_module *module = context->server->modules.items[i];
        for (size_t j = 0; j < module->n_commands; j++) {
            struct command_info *info = command_info_new();
            info->name = xstrdup(module->commands[j].name);
            command_info_list_append(*ret, info);
        }
    }
    return true;
}

bool qmp_query_qmp_schema(struct qmp_context *context, struct json **ret, struct error *err)
{
    *ret = qmp_introspect(context->server);
    return true;
}

bool qmp_quit(struct qmp_context *context, struct error *err)
{
    if (!context->server->quit)
        return fail(err, ENOTSUP, "this program does not end on request");
    context->server->quit(context->app);
    return true;
}
