/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people and images write, turned into nodes: file names, `json:{...}`, image options on a command line, and the
 * names of backing and data files inside an image.
 *
 *     disk.img   ./a:b   /dev/sdb       a path: driver file, or host_device where it is a block device
 *     file:disk.img                     the same, said explicitly
 *     json:{"driver": "qcow2", ...}     options of a node
 *     word:rest                         a protocol; an error unless this program has it. A path with a colon is written
 *                                       ./word:rest, so that no file name can turn into something else.
 *
 * A name inside an image is relative to the folder of that image.
 */
#ifndef BLOCK_NAME_H
#define BLOCK_NAME_H

#include "block/node.h"

/* What the caller wants where the name itself does not say. Zeroed: read-write, buffered, no discard. */
struct open_mode {
    bool read_only, auto_read_only, force_share;
    bool direct, no_flush;
    bool unmap;         /* discard=unmap */
    bool no_backing;    /* the image alone, without the backing file it names */
    bool metadata_only; /* to describe or check a stranger's image: files that it names for its data are not opened
                           either, and so its data must not be asked for */
    enum block_detect_zeroes detect_zeroes;
    int aio;               /* enum blockdev_aio_options + 1; 0 = the default */
    const char *node_name; /* of the top node; NULL = made up */
};

/* Opens the image `filename`. `format` NULL: found by its first bytes (block/probe.h), and a raw image found that way
 * refuses writes that would make it look like another format. One reference for the caller. YIELDS. */
struct node *node_open_filename(struct graph *graph, const char *filename, const char *format,
                                const struct open_mode *mode, struct error *err);

/* The same for `driver=qcow2,file.filename=...` (--image-opts). Without a driver the format is probed. YIELDS. */
struct node *node_open_image_opts(struct graph *graph, const char *text, const struct open_mode *mode,
                                  struct error *err);

/* Only the protocol layer of a file name: the bytes of the file itself. YIELDS. */
struct node *node_open_protocol(struct graph *graph, const char *filename, const struct open_mode *mode,
                                struct error *err);

/* A driver opens the file that its image names (backing, external data) as a child. `format` NULL: probed for a backing
 * file, raw for any other role. What an image leads to must be what its owner meant: an image whose own format was only
 * probed from the name in an overlay may not lead to further files; the error says how to name the format. YIELDS. */
struct edge *node_open_child_by_name(struct node *parent, const char *role, const char *filename, const char *format,
                                     uint32_t perm, uint32_t shared, struct error *err);

/* `name` as it stands in the image `base`, made absolute or relative to the current folder: "a/b/top.img" + "base.img"
 * = "a/b/base.img". Names with a protocol and absolute paths stay as they are. `base` NULL: unchanged. Owned. */
char *name_resolve(const char *base, const char *name);

/* Length of the protocol prefix ("nbd" in "nbd:unix:/x"), 0 when the name is a path. */
size_t name_protocol_length(const char *name);

#endif
