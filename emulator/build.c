/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From options to a machine: chardevs, board, serial ports, disks, devices, monitors, in the order in which they need
 * each other; and back.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "emulator/hmp.h"
#include "emulator/hw/devices.h"
#include "emulator/machine.h"
#include "emulator/props.h"
#include "emulator/storage/storage.h"
#include "qmp/server.h"

extern const struct qmp_module qmp_module_machine;

/* --- memory backends
 * -------------------------------------------------------------------------------------------------------- */

/* All guest memory is a shared memfd anyway: an -object only has to agree with that. */
static bool check_object(struct machine *machine, const char *text, bool *found, struct error *err)
{
    const struct machine_options *options = machine->options;
    struct props props;
    if (!props_parse(&props, "-object", text, "qom-type", err))
        return false;
    auto_free char *type = props_string(&props, "qom-type"), *id = props_string(&props, "id");
    uint64_t size = props_size(&props, "size", 1, 0);
    props_bool(&props, "share", true);
    bool ok = !type || strcmp(type, "memory-backend-memfd")
                  ? fail(err, EINVAL, "-object %s: only memory-backend-memfd is supported", text)
                  : props_done(&props, "id, size, share", err);
    props_free(&props);
    if (!ok)
        return false;
    if (!id || !size)
        return fail(err, EINVAL, "-object %s: needs id=ID and size=SIZE", text);
    if (!options->memory_backend || strcmp(options->memory_backend, id))
        return fail(err, EINVAL, "-object %s: nothing uses it; add -machine memory-backend=%s", text, id);
    if (size != options->ram_size)
        return fail(err, EINVAL, "-object %s: its size is not that of the guest's memory, %" PRIu64 " bytes (-m)", text,
                    options->ram_size);
    *found = true;
    return true;
}

static bool check_objects(struct machine *machine, struct error *err)
{
    const char **text;
    bool found = !machine->options->memory_backend;
    vec_for_each (text, &machine->options->object) {
        if (!check_object(machine, *text, &found, err))
            return false;
    }
    return found ||
           fail(err, ENOENT, "there is no -object memory-backend-memfd,id=%s", machine->options->memory_backend);
}

/* --- board
 * ------------------------------------------------------------------------------------------------------------------ */

static void power_shutdown(void *arg, int exit_status)
{
    machine_request_shutdown(arg, SHUTDOWN_CAUSE_GUEST_SHUTDOWN, exit_status);
}

static void power_reset(void *arg)
{
    machine_request_reset(arg, SHUTDOWN_CAUSE_GUEST_RESET);
}

/* On the vCPU's thread, which has stopped. */
static void cpu_failed(void *arg, struct cpu *cpu)
{
    log_error("CPU %u cannot go on: %s", cpu->index, cpu->fatal ? cpu->fatal : "unknown reason");
    cpu->arch->dump(cpu, stderr);
    machine_request_shutdown(arg, SHUTDOWN_CAUSE_HOST_ERROR, 1);
}

static bool build_board(struct machine *machine, struct error *err)
{
    const struct machine_options *options = machine->options;
    struct board_config config = {
        .arch = options->cpu,
        .cpu_count = options->cpu_count,
        .ram_size = options->ram_size,
        .bios = options->bios,
        .kernel = options->kernel,
        .initrd = options->initrd,
        .append = options->append,
        .dtb = options->dtb,
    };
    struct power_control power = {power_shutdown, power_reset, machine};
    machine->board = options->board->create(machine->loop, machine->clock, &config, &power, err);
    if (!machine->board)
        return false;
    for (unsigned i = 0; i < machine->board->cpu_count; i++) {
        machine->board->cpus[i]->fatal_handler = cpu_failed;
        machine->board->cpus[i]->fatal_arg = machine;
    }
    return true;
}

static bool dump_tree(struct machine *machine, struct error *err)
{
    size_t size;
    auto_free void *blob = machine->board->describe(machine->board, &size, err);
    if (!blob)
        return false;
    auto_close int fd = open(machine->options->dumpdtb, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, blob, size) != (ssize_t)size)
        return fail_errno(err, errno, "dumpdtb=%s", machine->options->dumpdtb);
    return true;
}

/* --- serial ports and monitors
 * ----------------------------------------------------------------------------------------------- */

static void quit_by_key(void *arg)
{
    machine_request_shutdown(arg, SHUTDOWN_CAUSE_HOST_SIGNAL, 0);
}

static bool add_hmp(struct machine *machine, struct line_definition *definition, struct error *err)
{
    struct char_line *line = lines_open(&machine->lines, definition, err);
    struct hmp *monitor = line ? hmp_new(machine, line, err) : NULL;
    if (!monitor)
        return false;
    vec_push(&machine->monitors, monitor);
    return true;
}

static struct line_definition *where(struct machine *machine, const char *option, const char *text, const char *kind,
                                     unsigned number, bool *with_monitor, struct error *err)
{
    char label[32];
    snprintf(label, sizeof label, "%s%u", kind, number);
    struct line_definition *definition = lines_parse_where(&machine->lines, option, text, label, with_monitor, err);
    if (definition && definition->mux) {
        struct char_line *line = lines_open(&machine->lines, definition, err);
        if (!line)
            return NULL;
        char_line_set_quit(line, quit_by_key, machine);
    }
    return definition;
}

static bool add_serial(struct machine *machine, unsigned port, const char *text, struct error *err)
{
    bool with_monitor;
    struct line_definition *definition = where(machine, "-serial", text, "serial", port, &with_monitor, err);
    if (!definition)
        return !error_is_set(err);
    if (port >= machine->board->type->serial_count)
        return fail(err, ENOSPC, "-serial %s: the machine has %u serial port", text,
                    machine->board->type->serial_count);
    struct char_line *line = lines_open(&machine->lines, definition, err);
    return line && uart16550_connect(machine->board->serial[port], line, err) &&
           (!with_monitor || add_hmp(machine, definition, err));
}

static bool add_monitor(struct machine *machine, unsigned number, const char *text, struct error *err)
{
    bool with_monitor;
    struct line_definition *definition = where(machine, "-monitor", text, "compat_monitor", number, &with_monitor, err);
    return definition ? add_hmp(machine, definition, err) : !error_is_set(err);
}

static bool add_qmp(struct machine *machine, struct line_definition *definition, bool pretty, struct error *err)
{
    auto_chardev_options *chardev = lines_take_for_qmp(definition, err);
    struct monitor_options monitor = {.chardev = definition->id, .has_pretty = true, .pretty = pretty};
    return chardev && qmp_server_add_chardev(machine->qmp, chardev, err) &&
           qmp_server_add_monitor(machine->qmp, &monitor, err);
}

static bool add_qmp_where(struct machine *machine, unsigned number, const char *text, struct error *err)
{
    bool with_monitor;
    struct line_definition *definition = where(machine, "-qmp", text, "compat_qmp", number, &with_monitor, err);
    return definition ? add_qmp(machine, definition, false, err) : !error_is_set(err);
}

static bool add_mon(struct machine *machine, const char *text, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-mon", text, "chardev", err))
        return false;
    auto_free char *id = props_string(&props, "chardev"), *mode = props_string(&props, "mode");
    bool pretty = props_bool(&props, "pretty", false);
    bool ok = props_done(&props, "chardev, mode, pretty", err);
    props_free(&props);
    bool control = mode && !strcmp(mode, "control");
    if (ok && mode && !control && strcmp(mode, "readline"))
        ok = fail(err, EINVAL, "-mon mode=%s: must be readline or control", mode);
    struct line_definition *definition = ok && id ? lines_find(&machine->lines, id, err) : NULL;
    if (!definition)
        return ok && !id ? fail(err, EINVAL, "-mon %s: needs chardev=ID", text) : false;
    return control ? add_qmp(machine, definition, pretty, err) : add_hmp(machine, definition, err);
}

/* What is there without being asked for, as the ecosystem's scripts expect it: with -nographic (or no word about
 * displays at all) the serial port and the monitor share the terminal, each only if it was not placed elsewhere. */
static bool add_defaults(struct machine *machine, struct error *err)
{
    const struct machine_options *options = machine->options;
    bool terminal = options->nographic || !options->display_given;
    bool serial = !options->serial.count && !options->no_defaults;
    bool monitor = !options->monitor.count && !options->qmp.count && !options->mon.count && !options->no_defaults;
    if (!terminal || options->dumpdtb)
        return true;
    if (serial && monitor)
        return add_serial(machine, 0, "mon:stdio", err);
    if (serial)
        return add_serial(machine, 0, "stdio", err);
    bool stdio_taken = false;
    for (size_t i = 0; i < machine->lines.list.count; i++)
        stdio_taken = stdio_taken || machine->lines.list.items[i]->kind == CHAR_LINE_STDIO;
    return !monitor || stdio_taken || !options->nographic || add_monitor(machine, 0, "stdio", err);
}

static bool build_lines(struct machine *machine, struct error *err)
{
    const struct machine_options *options = machine->options;
    for (size_t i = 0; i < options->serial.count; i++) {
        if (!add_serial(machine, (unsigned)i, options->serial.items[i], err))
            return false;
    }
    for (size_t i = 0; i < options->monitor.count; i++) {
        if (!add_monitor(machine, (unsigned)i, options->monitor.items[i], err))
            return false;
    }
    for (size_t i = 0; i < options->qmp.count; i++) {
        if (!add_qmp_where(machine, (unsigned)i, options->qmp.items[i], err))
            return false;
    }
    for (size_t i = 0; i < options->mon.count; i++) {
        if (!add_mon(machine, options->mon.items[i], err))
            return false;
    }
    return add_defaults(machine, err);
}

/* --- disks and devices
 * ------------------------------------------------------------------------------------------------------- */

/* *plug: the id of a disk that becomes a device by itself; owned. */
static bool add_drive(struct machine *machine, unsigned number, const char *text, char **plug, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-drive", text, NULL, err))
        return false;
    auto_free char *id = props_string(&props, "id"), *interface = props_string(&props, "if");
    auto_free char *file = props_string(&props, "file"), *format = props_string(&props, "format");
    auto_free char *cache = props_string(&props, "cache"), *discard = props_string(&props, "discard");
    auto_free char *aio = props_string(&props, "aio"), *media = props_string(&props, "media");
    auto_free char *detect_zeroes = props_string(&props, "detect-zeroes");
    const char *read_only_key = props_has(&props, "read-only") ? "read-only" : "readonly";
    bool read_only = props_bool(&props, read_only_key, false);
    bool ok = props_done(&props, "file, format, if, id, media, cache, discard, detect-zeroes, aio, readonly", err);
    props_free(&props);
    if (!ok)
        return false;
    bool none = interface && !strcmp(interface, "none");
    if (interface && !none && strcmp(interface, "virtio"))
        return fail(err, EINVAL, "-drive %s: if=%s: this machine has virtio (the default) and none", text, interface);
    if (media && strcmp(media, "disk"))
        return fail(err, EINVAL, "-drive %s: media=%s: this machine has disks only", text, media);
    if (!file)
        return fail(err, EINVAL, "-drive %s: needs file=FILE", text);
    if (!id)
        id = xasprintf("%s%u", none ? "none" : "virtio", number);
    struct storage_drive drive = {id, file, format, cache, discard, aio, read_only, detect_zeroes};
    if (!storage_add_drive(machine->storage, &drive, err))
        return false;
    *plug = none ? NULL : TAKE(id);
    return true;
}

static bool build_disks(struct machine *machine, struct error *err)
{
    const struct disk_text *text;
    unsigned number = 0;
    vec(char *) plugs = {0};
    bool ok = true;
    vec_for_each (text, &machine->options->disks) {
        char *plug = NULL;
        ok = text->is_drive ? add_drive(machine, number++, text->text, &plug, err)
                            : storage_add_blockdev(machine->storage, text->text, err);
        if (plug)
            vec_push(&plugs, plug);
        if (!ok)
            break;
    }
    for (size_t i = 0; i < plugs.count; i++) {
        ok = ok && machine_add_virtio_disk(machine, plugs.items[i], err);
        free(plugs.items[i]);
    }
    vec_free(&plugs);
    return ok;
}

static bool build_devices(struct machine *machine, struct error *err)
{
    const char **text;
    vec_for_each (text, &machine->options->device) {
        if (!machine_add_device(machine, *text, err))
            return false;
    }
    return true;
}

/* --- all
 * -----------------------------------------------------------------------------------------------------------------------
 */

static void quit_by_command(void *app)
{
    machine_request_shutdown(app, SHUTDOWN_CAUSE_HOST_QMP_QUIT, 0);
}

/* Without its disks there is nothing left to run for; whoever started us sees that by the code. */
static void disks_are_lost(void *arg)
{
    machine_request_shutdown(arg, SHUTDOWN_CAUSE_HOST_ERROR, 1);
}

static bool build_chardevs(struct machine *machine, struct error *err)
{
    const char **text;
    vec_for_each (text, &machine->options->chardev) {
        if (!lines_define(&machine->lines, *text, err))
            return false;
    }
    return true;
}

static bool write_pidfile(const char *path, struct error *err)
{
    FILE *file = fopen(path, "we");
    if (!file || fprintf(file, "%d\n", getpid()) < 0 || fclose(file))
        return fail_errno(err, errno, "-pidfile %s", path);
    return true;
}

bool machine_build(struct machine *machine, struct error *err)
{
    const struct machine_options *options = machine->options;
    machine->lines.loop = machine->loop;
    machine->clock = clock_new(machine->loop);
    machine->storage = storage_new(machine->loop);
    storage_on_lost(machine->storage, disks_are_lost, machine);
    machine->qmp = qmp_server_new(machine->loop, machine);
    qmp_server_add_module(machine->qmp, &qmp_module_machine);
    qmp_server_on_quit(machine->qmp, quit_by_command);
    if (!check_objects(machine, err) || !build_chardevs(machine, err) || !build_board(machine, err))
        return false;
    if (options->dumpdtb) {
        machine_request_shutdown(machine, SHUTDOWN_CAUSE_NONE, 0);
        return dump_tree(machine, err);
    }
    return build_lines(machine, err) && build_disks(machine, err) && build_devices(machine, err) &&
           (!options->pidfile || write_pidfile(options->pidfile, err));
}

void machine_demolish(struct machine *machine)
{
    for (size_t i = 0; i < machine->monitors.count; i++)
        hmp_free(machine->monitors.items[i]);
    vec_free(&machine->monitors);
    qmp_server_free(machine->qmp);
    board_free(machine->board); /* closes its disks */
    storage_free(machine->storage);
    lines_free(&machine->lines);
    clock_free(machine->clock);
    for (size_t i = 0; i < machine->console_ids.count; i++)
        free(machine->console_ids.items[i]);
    vec_free(&machine->console_ids);
    vec_free(&machine->consoles);
    if (machine->options->pidfile)
        unlink(machine->options->pidfile);
}
