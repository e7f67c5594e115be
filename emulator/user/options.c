/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: options of the emulator, then the program and its arguments. Each option is a row of a table and
 * may also come from the environment, under the name that the ecosystem uses.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include "base/alloc.h"
#include "base/math.h"
#include "emulator/user/binfmt.h"
#include "emulator/user/user.h"

extern char **environ;

struct option {
    const char *name, *argument, *variable, *help;
    bool (*take)(struct user_options *o, const char *text, struct error *err);
};

static bool take_sysroot(struct user_options *o, const char *text, struct error *err)
{
    o->sysroot = *text ? text : NULL;
    return true;
}

static bool take_stack(struct user_options *o, const char *text, struct error *err)
{
    char *end;
    errno = 0;
    unsigned long long size = isdigit((unsigned char)*text) ? strtoull(text, &end, 0) : 0;
    unsigned shift = size && (*end == 'k' || *end == 'K') ? 10
                     : size && *end == 'M'                ? 20
                     : size && *end == 'G'                ? 30
                                                          : 0;
    if (!size || errno || end[shift != 0] || size > (1ull << 40) >> shift)
        return fail(err, EINVAL, "-s %s: a size in bytes is needed, such as 8388608 or 8M", text);
    o->stack_size = size << shift;
    return true;
}

static bool take_cpu(struct user_options *o, const char *text, struct error *err)
{
    static const char *const types[] = {"rv64", "max", "any"};
    if (!strcmp(text, "help") || !strcmp(text, "?")) {
        printf("Available CPUs:\n  rv64\n  max\n");
        return fail(err, ECANCELED, "help");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        if (!strcmp(text, types[i]))
            return true;
    }
    return fail(err, EINVAL, "-cpu %s: there are rv64 and max, which are the same: RV64GCV with Zba, Zbb, Zbs, Zicboz",
                text);
}

/* --- the environment of the program ------------------------------------------------------------------------------ */

static void drop_variable(struct user_options *o, const char *name, size_t length)
{
    char **to = o->environment;
    for (char **from = o->environment; *from; from++) {
        if (strncmp(*from, name, length) || (*from)[length] != '=')
            *to++ = *from;
    }
    *to = NULL;
}

static void set_variable(struct user_options *o, const char *text)
{
    size_t count = 0;
    drop_variable(o, text, strcspn(text, "="));
    while (o->environment[count])
        count++;
    o->environment = xrealloc_array(o->environment, count + 2, sizeof *o->environment);
    o->environment[count] = (char *)text;
    o->environment[count + 1] = NULL;
}

static bool take_set(struct user_options *o, const char *text, struct error *err)
{
    char *copy = xstrdup(text), *left = NULL; /* lives as long as the program */
    for (char *one = strtok_r(copy, ",", &left); one; one = strtok_r(NULL, ",", &left)) {
        if (!strchr(one, '=') || *one == '=')
            return fail(err, EINVAL, "-E %s: NAME=VALUE is needed, more of them behind commas", text);
        set_variable(o, one);
    }
    return true;
}

static bool take_unset(struct user_options *o, const char *text, struct error *err)
{
    char *copy = xstrdup(text), *left = NULL;
    for (char *one = strtok_r(copy, ",", &left); one; one = strtok_r(NULL, ",", &left)) {
        if (strchr(one, '='))
            return fail(err, EINVAL, "-U %s: names without '=' are needed", text);
        drop_variable(o, one, strlen(one));
    }
    free(copy);
    return true;
}

static bool take_argv0(struct user_options *o, const char *text, struct error *err)
{
    o->argv0 = text;
    return true;
}

static bool take_uname(struct user_options *o, const char *text, struct error *err)
{
    o->uname = text;
    return true;
}

static bool take_trace(struct user_options *o, const char *text, struct error *err)
{
    o->trace = true;
    return true;
}

static bool take_debug(struct user_options *o, const char *text, struct error *err)
{
    if (!strcmp(text, "help") || !strcmp(text, "?")) {
        printf("Log items (comma separated):\nstrace     every system call and its result\n");
        return fail(err, ECANCELED, "help");
    }
    if (strcmp(text, "strace"))
        return fail(err, EINVAL, "-d %s: there is only 'strace'", text);
    return take_trace(o, text, err);
}

static bool take_log(struct user_options *o, const char *text, struct error *err)
{
    o->log = text;
    return true;
}

static bool take_help(struct user_options *o, const char *text, struct error *err);

static bool take_version(struct user_options *o, const char *text, struct error *err)
{
    printf("spindle-riscv64 version %s\n", SPINDLE_VERSION);
    return fail(err, ECANCELED, "version");
}

static bool take_install(struct user_options *o, const char *text, struct error *err)
{
    return binfmt_install(err) && fail(err, ECANCELED, "installed");
}

static bool take_print(struct user_options *o, const char *text, struct error *err)
{
    return binfmt_print(stdout, err) && fail(err, ECANCELED, "printed");
}

/* --- the table --------------------------------------------------------------------------------------------------- */

static const struct option options[] = {
    {"-L", "path", "QEMU_LD_PREFIX", "directory with the libraries and data of the program's system", take_sysroot},
    {"-cpu", "model", "QEMU_CPU", "the processor (-cpu help lists them)", take_cpu},
    {"-E", "var=value[,...]", "QEMU_SET_ENV", "sets variables of the program's environment", take_set},
    {"-U", "var[,...]", "QEMU_UNSET_ENV", "removes variables from it", take_unset},
    {"-0", "argv0", "QEMU_ARGV0", "the program's own name, argv[0]", take_argv0},
    {"-s", "size", "QEMU_STACK_SIZE", "size of the stack; else the limit of the host (ulimit -s)", take_stack},
    {"-r", "uname", "QEMU_UNAME", "the kernel's release that uname tells", take_uname},
    {"-strace", NULL, "QEMU_STRACE", "prints system calls", take_trace},
    {"-d", "item", "QEMU_LOG", "the same, by the name 'strace'", take_debug},
    {"-D", "file", "QEMU_LOG_FILENAME", "where to print; else the standard error", take_log},
    {"--install-binfmt", NULL, NULL, "registers this program for RISC-V executables with the kernel (root)",
     take_install},
    {"--print-binfmt", NULL, NULL, "prints the line that would be registered", take_print},
    {"-h", NULL, NULL, "this text", take_help},
    {"-version", NULL, NULL, "the version", take_version},
};

static bool take_help(struct user_options *o, const char *text, struct error *err)
{
    printf("usage: spindle-riscv64 [options] program [arguments...]\n"
           "Runs a program made for Linux on 64-bit RISC-V.\n\n");
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", options[i].name, options[i].argument ? options[i].argument : "");
        printf("  %-22s %-18s %s\n", left, options[i].variable ? options[i].variable : "", options[i].help);
    }
    printf("\nThe variables of the environment in the middle column mean the same as the options.\n");
    return fail(err, ECANCELED, "help");
}

/* "--help" for "-h" and "-help", "--version"; options may begin with one dash or two. */
static const struct option *find(const char *text)
{
    const char *name = text[1] == '-' ? text + 1 : text;
    if (!strcmp(name, "-help"))
        name = "-h";
    if (!strcmp(name, "-v"))
        name = "-version";
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        const char *known = options[i].name[1] == '-' ? options[i].name + 1 : options[i].name;
        if (!strcmp(name, known))
            return &options[i];
    }
    return NULL;
}

static bool take_environment(struct user_options *o, struct error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        const char *text = options[i].variable ? getenv(options[i].variable) : NULL;
        if (text && !options[i].take(o, text, err))
            return fail_prefix(err, "%s in the environment: ", options[i].variable);
    }
    return true;
}

static bool take_arguments(struct user_options *o, char **argv, struct error *err)
{
    char **at = argv + 1;
    for (; *at && (*at)[0] == '-' && (*at)[1]; at++) {
        const struct option *option = find(*at);
        const char *text = NULL;
        if (!option)
            return fail(err, EINVAL, "unknown option '%s'; -h lists them", *at);
        if (option->argument && !(text = *++at))
            return fail(err, EINVAL, "%s needs an argument: %s", option->name, option->argument);
        if (!option->take(o, text, err))
            return false;
    }
    o->argv = at;
    return *at || fail(err, EINVAL, "no program was named; -h shows how");
}

/* The kernel ran us for a program: `interpreter path argv0 arguments` (binfmt_misc with flag P). */
static bool is_binfmt(char **argv)
{
    enum { PRESERVE_ARGV0 = 1 };
    return (getauxval(AT_FLAGS) & PRESERVE_ARGV0) && argv[1] && argv[2];
}

bool user_options_parse(struct user_options *o, int argc, char **argv, int *status)
{
    struct error err = {0};
    size_t count = 0;
    while (environ[count])
        count++;
    o->environment = new_array(char *, count + 1);
    memcpy(o->environment, environ, count * sizeof *o->environment);
    bool ok = take_environment(o, &err);
    if (ok && is_binfmt(argv)) {
        o->argv = argv + 2;
        o->argv0 = argv[2];
        argv[2] = argv[1];
    } else if (ok) {
        ok = take_arguments(o, argv, &err);
    }
    *status = !ok && err.code != ECANCELED;
    if (*status)
        fprintf(stderr, "spindle-riscv64: %s\n", err.message);
    error_clear(&err);
    return ok;
}
