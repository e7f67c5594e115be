/* SPDX-License-Identifier: Apache-2.0 */
/* What the image tools share: a loop and a block graph around their main function, opening of images by the options of
 * a command line, and texts. */
#ifndef IMAGE_TOOLS_TOOL_H
#define IMAGE_TOOLS_TOOL_H

#include "block/name.h"
#include "block/node.h"
#include "image-tools/options.h"
#include "walls/walls.h"

struct loop;
struct object_set;

struct tool {
    struct loop *loop;
    struct object_set *objects; /* of --object */
    struct graph *graph;
    struct doorman *doorman; /* NULL: the command line does not speak of confined images */
    bool confined;           /* set by a command: what tool_open() opens for reading is parsed by a confined process */
    void *arg;
};

/* Runs fn(tool) in a coroutine, behind walls (walls/walls.h), and returns its exit status. The command line is looked
 * at for what must be made before: a doorman, if it speaks of confined images. */
int tool_run(int (*fn)(struct tool *tool), void *arg, int argc, char **argv);
/* The same for a program that is more than a tool. */
int tool_run_as(enum walls_role role, int (*fn)(struct tool *tool), void *arg, int argc, char **argv);

/* A confined worker is the same program again. First thing in main. */
bool tool_is_worker(int argc, char **argv);
int tool_worker_main(void);

/* The format of an image as users name it, also of a confined one. */
const char *tool_format(const struct node *node);

/* The arguments of --object, in their order. true in *helped: one asked for help, and got it. YIELDS. */
bool tool_add_objects(struct tool *tool, const struct texts *arguments, bool *helped, struct error *err);

void tool_print_version(void);
void tool_print_formats(void);             /* "Supported formats: ..." */
bool tool_enable_trace(const char *globs); /* says what is wrong */

/* Cache modes of command lines: none, writeback, writethrough, directsync, unsafe. `writethrough` is set when every
 * write has to be durable by itself. */
bool tool_cache_mode(const char *name, struct open_mode *mode, bool *writethrough, struct error *err);

/* Opens an image, by name or by --image-opts text, as one user with these permissions. Readers let others only read
 * (so that a running guest's image is refused), unless mode->force_share. YIELDS. */
struct edge *tool_open(struct tool *tool, const char *name, bool is_image_opts, const char *format,
                       const struct open_mode *mode, uint32_t perm, struct error *err);
/* The same with a temporary overlay on it that takes the writes, in $TMPDIR. YIELDS. */
struct edge *tool_open_overlay(struct tool *tool, const char *path, const char *format, const struct open_mode *mode,
                               struct error *err);
void tool_close(struct edge *edge); /* NULL is allowed. YIELDS */

/* Members of an object as indented lines "name: value", the way `info` prints what is special to a format. Hyphens of
 * names become spaces. */
struct json;
void tool_print_members(const struct json *object, unsigned indent);

#endif
