/* SPDX-License-Identifier: Apache-2.0 */
/* QMP: the commands of machine.json. */
#include "base/alloc.h"
#include "emulator/machine.h"
#include "qmp/schema/commands.h"
#include "qmp/schema/events.h"

bool qmp_query_status(struct qmp_context *context, struct status_info **ret, struct error *err)
{
    struct machine *machine = context->app;
    *ret = new (struct status_info);
    (*ret)->status = machine->run_state;
    (*ret)->running = machine->run_state == RUN_STATE_RUNNING;
    return true;
}

bool qmp_stop(struct qmp_context *context, struct error *err)
{
    machine_stop(context->app);
    return true;
}

bool qmp_cont(struct qmp_context *context, struct error *err)
{
    return machine_cont(context->app, err);
}

bool qmp_system_reset(struct qmp_context *context, struct error *err)
{
    machine_request_reset(context->app, SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
    return true;
}

bool qmp_system_powerdown(struct qmp_context *context, struct error *err)
{
    machine_request_powerdown(context->app);
    return true;
}

bool qmp_query_cpus_fast(struct qmp_context *context, struct cpu_info_fast_list **ret, struct error *err)
{
    struct machine *machine = context->app;
    const struct board *board = machine->board;
    struct cpu_info_fast_list *list = new (struct cpu_info_fast_list);
    list->items = new_array(struct cpu_info_fast *, board->cpu_count);
    for (unsigned i = 0; i < board->cpu_count; i++) {
        struct cpu_info_fast *info = new (struct cpu_info_fast);
        info->cpu_index = i;
        info->qom_path = xasprintf("/machine/unattached/device[%u]", i);
        info->thread_id = board->cpus[i]->thread_id;
        info->target = SYS_EMU_TARGET_RISCV64;
        list->items[list->n++] = info;
    }
    *ret = list;
    return true;
}
