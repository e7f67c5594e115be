/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of images that worlds are about: every writable format, and of qcow2 every layout that is written in
 * another way. Disks are small, so that what is rare in a large one (a second L2 table, a new refcount block) happens
 * often. */
#include "tests/sim/world.h"

#include <string.h>
#include "base/math.h"

#define QCOW2 (TRAIT_QCOW2 | TRAIT_COMPRESSES | TRAIT_RESIZES)
#define V3 (QCOW2 | TRAIT_V3 | TRAIT_KEEPS)

/* Encrypted: the smallest keys, quickly derived. */
#define ENCRYPTED (V3 & ~TRAIT_COMPRESSES)
#define LUKS_WITH(p) p "key-secret=key," p "iter-time=1," p "cipher-alg=aes-128," p "cipher-mode=cbc," p "hash-alg=sha1"
#define LUKS "encrypt.format=luks," LUKS_WITH("encrypt.")
#define AES "encrypt.format=aes,encrypt.key-secret=key"
#define KEY "'encrypt': {'key-secret': 'key'}"

const struct image_kind image_kinds[] = {
    {"raw", NULL, "", 256 * KiB, 4096, TRAIT_RESIZES | TRAIT_KEEPS},
    {"raw-writethrough", NULL, "", 128 * KiB, 4096, TRAIT_RESIZES | TRAIT_KEEPS, true},
    {"v3-4k", "size=256k,cluster_size=4k", "", 256 * KiB, 4096, V3},
    {"v3-64k", "size=512k", "", 512 * KiB, 65536, V3},
    {"v3-512", "size=128k,cluster_size=512", "'l2-cache-size': 1024, 'l2-cache-entry-size': 512", 128 * KiB, 512, V3},
    {"v3-writethrough", "size=128k,cluster_size=2k", "", 128 * KiB, 2048, V3, true},
    {"v2-4k", "size=256k,cluster_size=4k,compat=0.10", "", 256 * KiB, 4096, QCOW2},
    {"v2-512", "size=64k,cluster_size=512,compat=0.10", "", 64 * KiB, 512, QCOW2},
    {"backing", "size=256k,cluster_size=4k,backing_file=" BACKING ",backing_fmt=qcow2", "", 256 * KiB, 4096,
     V3 | TRAIT_BACKING},
    {"v2-backing", "size=256k,cluster_size=4k,compat=0.10,backing_file=" BACKING ",backing_fmt=qcow2", "", 256 * KiB,
     4096, QCOW2 | TRAIT_BACKING},
    {"extended", "size=512k,cluster_size=16k,extended_l2=on", "", 512 * KiB, 16384, V3},
    {"extended-backing", "size=512k,cluster_size=16k,extended_l2=on,backing_file=" BACKING ",backing_fmt=qcow2", "",
     512 * KiB, 16384, V3 | TRAIT_BACKING},
    {"lazy", "size=256k,cluster_size=4k,lazy_refcounts=on", "", 256 * KiB, 4096, V3 | TRAIT_LAZY},
    {"lazy-512", "size=128k,cluster_size=512,lazy_refcounts=on", "", 128 * KiB, 512, V3 | TRAIT_LAZY},
    {"refcount-1", "size=128k,cluster_size=1k,refcount_bits=1", "", 128 * KiB, 1024, V3},
    {"refcount-64", "size=128k,cluster_size=512,refcount_bits=64", "", 128 * KiB, 512, V3},
    {"many-refcounts", "size=1960k,cluster_size=512,refcount_bits=64,preallocation=metadata", "", 1960 * KiB, 512, V3},
    {"preallocated", "size=256k,cluster_size=4k,preallocation=metadata", "", 256 * KiB, 4096, V3},
    {"data-file", "size=256k,cluster_size=4k,data_file=" DATA_FILE, "", 256 * KiB, 4096,
     (V3 | TRAIT_EXTERNAL_DATA) & ~TRAIT_COMPRESSES},
    {"data-file-raw", "size=256k,cluster_size=4k,data_file=" DATA_FILE ",data_file_raw=on", "", 256 * KiB, 4096,
     (V3 | TRAIT_EXTERNAL_DATA) & ~TRAIT_COMPRESSES},
    {"no-unref", "size=256k,cluster_size=4k", "'discard-no-unref': true", 256 * KiB, 4096, V3},
    {"luks", "size=256k," LUKS_WITH(""), "'key-secret': 'key'", 256 * KiB, 4096, TRAIT_KEEPS | TRAIT_SLOTS},
    {"v3-luks", "size=256k,cluster_size=4k," LUKS, KEY, 256 * KiB, 4096, ENCRYPTED | TRAIT_SLOTS},
    {"extended-luks", "size=512k,cluster_size=16k,extended_l2=on,backing_file=" BACKING ",backing_fmt=qcow2," LUKS, KEY,
     512 * KiB, 16384, ENCRYPTED | TRAIT_BACKING | TRAIT_SLOTS},
    {"v3-aes", "size=128k,cluster_size=512," AES, KEY, 128 * KiB, 512, ENCRYPTED},
    {"v2-aes", "size=256k,cluster_size=4k,compat=0.10," AES, KEY, 256 * KiB, 4096,
     ENCRYPTED & ~(TRAIT_V3 | TRAIT_KEEPS)},
    /* Filters that keep something of their own: space, a log, a second copy. */
    {"preallocate", "size=256k,cluster_size=4k", "", 256 * KiB, 4096, V3,
     .daemon = "{'driver': 'qcow2', 'node-name': '" NODE "', 'discard': 'unmap', 'file': {'driver': 'preallocate', "
               "'node-name': '" NODE "-file', 'discard': 'unmap', 'prealloc-size': 16384, 'prealloc-align': 8192, "
               "'file': {'driver': 'file', 'discard': 'unmap', 'filename': '" IMAGE "'}}}"},
    {"logged", "size=128k,cluster_size=4k", "", 128 * KiB, 4096, V3, .with_copy = true,
     .daemon = "{'driver': 'qcow2', 'node-name': '" NODE "', 'discard': 'unmap', 'file': {'driver': 'blklogwrites', "
               "'node-name': '" NODE "-file', 'discard': 'unmap', 'log-super-update-interval': 5, "
               "'log': {'driver': 'file', 'filename': '" SECOND_FILE "'}, "
               "'file': {'driver': 'file', 'discard': 'unmap', 'filename': '" IMAGE "'}}}"},
    {"quorum", NULL, "", 128 * KiB, 4096, TRAIT_KEEPS, .with_copy = true,
     .daemon =
         "{'driver': 'quorum', 'node-name': '" NODE "', 'vote-threshold': 2, 'read-pattern': 'fifo', 'children': ["
         "{'driver': 'raw', 'file': {'driver': 'file', 'filename': '" IMAGE "'}}, "
         "{'driver': 'raw', 'file': {'driver': 'file', 'filename': '" SECOND_FILE "'}}]}"},
    {NULL},
};

const struct image_kind *image_kind_find(const char *name)
{
    for (const struct image_kind *kind = image_kinds; kind->name; kind++) {
        if (!strcmp(kind->name, name))
            return kind;
    }
    return NULL;
}
