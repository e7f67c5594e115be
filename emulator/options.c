/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: see the header. Options are a table; each has one short function. */
#include "emulator/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "base/size.h"
#include "base/trace.h"
#include "emulator/props.h"
#include "emulator/user_devices.h"

struct option {
    const char *name;
    const char *argument; /* as help shows it; NULL: takes none */
    const char *help;
    bool (*take)(struct machine_options *options, const char *text, struct error *err);
};

static bool wants_help(const char *text)
{
    return !strcmp(text, "help") || !strcmp(text, "?");
}

/* Stops parsing with status 0: help was asked for and given. */
static bool answered(struct error *err)
{
    return fail(err, ECANCELED, "help");
}

/* --- the machine -----------------------------------------------------------------------------------------------------
 */

static const struct board_type *find_board(const struct machine_options *options, const char *name)
{
    for (const struct board_type *const *board = options->boards; *board; board++) {
        if (!strcmp((*board)->name, name))
            return *board;
    }
    return NULL;
}

static bool take_machine(struct machine_options *options, const char *text, struct error *err)
{
    struct props props;
    if (wants_help(text)) {
        printf("Supported machines are:\n");
        for (const struct board_type *const *board = options->boards; *board; board++)
            printf("%-20s %s%s\n", (*board)->name, (*board)->description, board == options->boards ? " (default)" : "");
        return answered(err);
    }
    if (!props_parse(&props, "-machine", text, "type", err))
        return false;
    auto_free char *type = props_string(&props, "type"), *accel = props_string(&props, "accel");
    if (props_has(&props, "dumpdtb"))
        options->dumpdtb = props_string(&props, "dumpdtb");
    if (props_has(&props, "memory-backend"))
        options->memory_backend = props_string(&props, "memory-backend");
    bool ok = props_done(&props, "type, accel, dumpdtb, memory-backend", err);
    props_free(&props);
    if (!ok)
        return false;
    if (accel && strcmp(accel, "tcg"))
        return fail(err, EINVAL, "-machine: accel=%s: only tcg (binary translation) is there", accel);
    if (type && !(options->board = find_board(options, type)))
        return fail(err, EINVAL, "-machine: unknown machine '%s'; '-machine help' lists them", type);
    return true;
}

static bool take_accel(struct machine_options *options, const char *text, struct error *err)
{
    size_t length = strcspn(text, ",");
    if (length == 3 && !strncmp(text, "tcg", 3))
        return true;
    return fail(err, EINVAL, "-accel %s: only tcg (binary translation) is there", text);
}

static bool take_cpu(struct machine_options *options, const char *text, struct error *err)
{
    if (wants_help(text)) {
        for (const struct cpu_arch *const *cpu = options->cpu_types; *cpu; cpu++)
            printf("%-12s %s\n", (*cpu)->name, (*cpu)->isa);
        return answered(err);
    }
    for (const struct cpu_arch *const *cpu = options->cpu_types; *cpu; cpu++) {
        /* "rv64" is what the ecosystem calls the CPU that has all we have. */
        if (!strcmp((*cpu)->name, text) || !strcmp("rv64", text) || !strcmp("max", text)) {
            options->cpu = *cpu;
            return true;
        }
    }
    return fail(err, EINVAL, "-cpu %s: unknown; '-cpu help' lists them (properties cannot be set)", text);
}

static bool take_smp(struct machine_options *options, const char *text, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-smp", text, "cpus", err))
        return false;
    uint64_t sockets = props_number(&props, "sockets", 0, 512), clusters = props_number(&props, "clusters", 0, 512);
    uint64_t cores = props_number(&props, "cores", 0, 512), threads = props_number(&props, "threads", 0, 512);
    uint64_t product = MAX(sockets, 1u) * MAX(clusters, 1u) * MAX(cores, 1u) * MAX(threads, 1u);
    uint64_t count = props_number(&props, "cpus", product, 512), most = props_number(&props, "maxcpus", count, 512);
    bool ok = props_done(&props, "cpus, maxcpus, sockets, clusters, cores, threads", err);
    props_free(&props);
    if (!ok)
        return false;
    if (!count)
        return fail(err, EINVAL, "-smp %s: at least one CPU is needed", text);
    if (most != count)
        return fail(err, EINVAL, "-smp %s: CPUs cannot be added later: leave maxcpus out", text);
    if ((sockets || clusters || cores || threads) && product != count && !(!sockets && count % product == 0))
        return fail(err, EINVAL, "-smp %s: sockets * clusters * cores * threads is %" PRIu64 ", not %" PRIu64, text,
                    product, count);
    options->cpu_count = (unsigned)count;
    return true;
}

static bool take_memory(struct machine_options *options, const char *text, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-m", text, "size", err))
        return false;
    options->ram_size = props_size(&props, "size", MiB, options->ram_size);
    bool ok = props_done(&props, "size", err);
    props_free(&props);
    if (!ok)
        return false;
    uint64_t wanted = options->ram_size;
    options->ram_size = round_up(MIN(wanted, 1 * TiB), 4096);
    if (wanted < MiB || wanted > 1 * TiB)
        return fail(err, EINVAL, "-m %s: must be from 1M to 1T", text);
    return true;
}

/* Some tools name the backend of all memory this way. */
static bool take_numa(struct machine_options *options, const char *text, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-numa", text, "type", err))
        return false;
    auto_free char *type = props_string(&props, "type"), *memdev = props_string(&props, "memdev");
    bool ok = props_done(&props, "memdev", err);
    props_free(&props);
    if (!ok)
        return false;
    if (!type || strcmp(type, "node") || !memdev || options->memory_backend)
        return fail(err, EINVAL, "-numa %s: only a single 'node,memdev=ID' is supported", text);
    options->memory_backend = TAKE(memdev);
    return true;
}

/* --- texts for later
 * --------------------------------------------------------------------------------------------------- */

#define TAKE_TEXT(option, member)                                                                                      \
    static bool take_##option(struct machine_options *options, const char *text, struct error *err)                    \
    {                                                                                                                  \
        options->member = text;                                                                                        \
        return true;                                                                                                   \
    }
#define TAKE_LIST(option)                                                                                              \
    static bool take_##option(struct machine_options *options, const char *text, struct error *err)                    \
    {                                                                                                                  \
        vec_push(&options->option, text);                                                                              \
        return true;                                                                                                   \
    }
#define TAKE_FLAG(option, member)                                                                                      \
    static bool take_##option(struct machine_options *options, const char *text, struct error *err)                    \
    {                                                                                                                  \
        options->member = true;                                                                                        \
        return true;                                                                                                   \
    }

TAKE_TEXT(bios, bios)
TAKE_TEXT(kernel, kernel)
TAKE_TEXT(initrd, initrd)
TAKE_TEXT(append, append)
TAKE_TEXT(dtb, dtb)
TAKE_TEXT(pidfile, pidfile)
TAKE_LIST(serial)
TAKE_LIST(monitor)
TAKE_LIST(qmp)
TAKE_LIST(mon)
TAKE_LIST(chardev)
TAKE_LIST(object)
TAKE_FLAG(nographic, nographic)
TAKE_FLAG(nodefaults, no_defaults)
TAKE_FLAG(no_reboot, no_reboot)
TAKE_FLAG(no_shutdown, no_shutdown)
TAKE_FLAG(stopped, start_stopped)

static bool take_drive(struct machine_options *options, const char *text, struct error *err)
{
    vec_push(&options->disks, ((struct disk_text){true, text}));
    return true;
}

static bool take_blockdev(struct machine_options *options, const char *text, struct error *err)
{
    vec_push(&options->disks, ((struct disk_text){false, text}));
    return true;
}

static bool take_device(struct machine_options *options, const char *text, struct error *err)
{
    if (user_device_help(text))
        return answered(err);
    vec_push(&options->device, text);
    return true;
}

/* Threads have names anyway, so debug-threads asks for what is there. */
static bool take_name(struct machine_options *options, const char *text, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-name", text, "guest", err))
        return false;
    free(options->name);
    options->name = props_string(&props, "guest");
    auto_free char *process = props_string(&props, "process");
    props_bool(&props, "debug-threads", true);
    bool ok = props_done(&props, "guest, process, debug-threads", err);
    props_free(&props);
    if (process)
        prctl(PR_SET_NAME, process);
    return ok;
}

static bool take_display(struct machine_options *options, const char *text, struct error *err)
{
    options->display_given = true;
    return !strcmp(text, "none") || fail(err, EINVAL, "-display %s: only 'none' is supported; see -nographic", text);
}

static bool take_sandbox(struct machine_options *options, const char *text, struct error *err)
{
    return walls_options_parse(text, &options->walls, err) || fail_prefix(err, "-sandbox: ");
}

static bool take_none(struct machine_options *options, const char *text, struct error *err)
{
    return !strcmp(text, "none") || fail(err, EINVAL, "only 'none' is supported here, not '%s'", text);
}

static bool take_user_config(struct machine_options *options, const char *text, struct error *err)
{
    return true; /* there are no configuration files to leave unread */
}

static bool take_trace(struct machine_options *options, const char *text, struct error *err)
{
    if (!wants_help(text))
        return trace_enable(text, err);
    trace_list(stdout);
    return answered(err);
}

static bool take_version(struct machine_options *options, const char *text, struct error *err)
{
    printf("%s version %s\n", log_program(), SPINDLE_VERSION);
    return answered(err);
}

static bool take_help(struct machine_options *options, const char *text, struct error *err);

static const struct option table[] = {
    {"machine", "[type=]NAME[,dumpdtb=FILE][,memory-backend=ID]", "the board; 'help' lists them", take_machine},
    {"M", "NAME", "as -machine", take_machine},
    {"accel", "tcg", "how guest code is executed", take_accel},
    {"cpu", "NAME", "the processor; 'help' lists them", take_cpu},
    {"smp", "[cpus=]N", "number of processors", take_smp},
    {"m", "[size=]MEGABYTES", "guest memory; suffixes M, G and others", take_memory},
    {"numa", "node,memdev=ID", "memory from this backend", take_numa},
    {"object", "memory-backend-memfd,id=ID,size=SIZE[,share=on]", "a memory backend, for -machine memory-backend=ID",
     take_object},
    {"bios", "FILE", "firmware, ELF or raw; 'none' for none", take_bios},
    {"kernel", "FILE", "kernel, ELF or raw image", take_kernel},
    {"initrd", "FILE", "initial RAM disk", take_initrd},
    {"append", "TEXT", "kernel command line", take_append},
    {"dtb", "FILE", "device tree to use instead of the board's own", take_dtb},
    {"drive", "file=FILE[,format=F][,if=none][,id=ID][,...]",
     "a disk image; without if=none it becomes a virtio disk of the guest", take_drive},
    {"blockdev", "driver=DRIVER,node-name=ID[,...]", "a block node in the storage daemon, or JSON", take_blockdev},
    {"device", "NAME[,PROPERTY=VALUE...]", "a device; 'help' lists them, 'NAME,help' its properties", take_device},
    {"chardev", "BACKEND,id=ID[,...]", "a character device: null, stdio, file, socket, pty", take_chardev},
    {"serial", "WHERE",
     "serial port: stdio, mon:stdio, null, none, pty, file:FILE, unix:PATH, tcp:HOST:PORT, chardev:ID", take_serial},
    {"monitor", "WHERE", "human monitor; WHERE as for -serial", take_monitor},
    {"qmp", "WHERE", "QMP monitor; unix:PATH,server=on,wait=off and the like", take_qmp},
    {"mon", "[chardev=]ID[,mode=readline|control]", "a monitor on a chardev", take_mon},
    {"nographic", NULL, "serial port and monitor on this terminal (Ctrl-A H for help)", take_nographic},
    {"display", "none", "no display", take_display},
    {"vga", "none", "no graphics card", take_none},
    {"net", "none", "no network card", take_none},
    {"nic", "none", "no network card", take_none},
    {"nodefaults", NULL, "no default serial port and monitor", take_nodefaults},
    {"no-user-config", NULL, "accepted; there are no configuration files", take_user_config},
    {"nodefconfig", NULL, "accepted; there are no configuration files", take_user_config},
    {"name", "[guest=]TEXT[,process=TEXT]", "name of the guest, and of the process", take_name},
    {"no-reboot", NULL, "end instead of rebooting", take_no_reboot},
    {"no-shutdown", NULL, "stop instead of ending when the guest powers off", take_no_shutdown},
    {"S", NULL, "do not start the processors: 'cont' in a monitor does", take_stopped},
    {"pidfile", "FILE", "write the process number to this file", take_pidfile},
    {"sandbox", WALLS_OPTIONS_HELP,
     "what the process gives up before the guest runs (default: on, with network=allow and the rest denied)",
     take_sandbox},
    {"trace", "GLOB[,...]", "switch trace points on; 'help' lists them", take_trace},
    {"version", NULL, "print the version", take_version},
    {"h", NULL, "print this text", take_help},
    {"help", NULL, "print this text", take_help},
};

static bool take_help(struct machine_options *options, const char *text, struct error *err)
{
    printf("Usage: %s [options]\nEmulates a whole machine.\n\n", log_program());
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        printf("  -%s%s%s\n      %s\n", table[i].name, table[i].argument ? " " : "",
               table[i].argument ? table[i].argument : "", table[i].help);
    printf("\nExample:\n  %s -M virt -smp 2 -m 1G -nographic -kernel Image -append 'root=/dev/vda' \\\n"
           "      -drive file=disk.qcow2,format=qcow2,if=virtio\n",
           log_program());
    return answered(err);
}

/* --- reading
 * ------------------------------------------------------------------------------------------------------------- */

static const struct option *find_option(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (!strcmp(table[i].name, name))
            return &table[i];
    }
    return NULL;
}

static bool parse(struct machine_options *options, int argc, char **argv, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || !word[1])
            return fail(err, EINVAL, "'%s' is not an option; disks are given with -drive file=%s", word, word);
        const struct option *option = find_option(word + (word[1] == '-' ? 2 : 1));
        if (!option)
            return fail(err, EINVAL, "unknown option '%s'; -help lists all", word);
        if (option->argument && i + 1 == argc)
            return fail(err, EINVAL, "%s needs an argument: %s", word, option->argument);
        if (!option->take(options, option->argument ? argv[++i] : NULL, err))
            return false;
    }
    if (options->cpu_count > options->board->max_cpus)
        return fail(err, EINVAL, "-smp: machine '%s' has at most %u CPUs, not %u", options->board->name,
                    options->board->max_cpus, options->cpu_count);
    if (options->append && !options->kernel)
        return fail(err, EINVAL, "-append needs -kernel");
    if (options->initrd && !options->kernel)
        return fail(err, EINVAL, "-initrd needs -kernel");
    return true;
}

bool machine_options_parse(struct machine_options *options, int argc, char **argv, int *status)
{
    auto_error err = {0};
    options->board = options->boards[0];
    options->cpu = options->cpu_types[0];
    options->cpu_count = 1;
    options->ram_size = options->board->default_ram;
    if (parse(options, argc, argv, &err))
        return true;
    *status = err.code == ECANCELED ? 0 : 1;
    if (*status)
        log_error("%s", err.message);
    return false;
}

void machine_options_free(struct machine_options *options)
{
    free(options->memory_backend);
    free(options->dumpdtb);
    free(options->name);
    vec_free(&options->serial);
    vec_free(&options->monitor);
    vec_free(&options->qmp);
    vec_free(&options->mon);
    vec_free(&options->chardev);
    vec_free(&options->device);
    vec_free(&options->object);
    vec_free(&options->disks);
}
