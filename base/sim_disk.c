/* SPDX-License-Identifier: Apache-2.0 */
/* Simulated disks. TODO: arrives with the next commit; until then a simulated loop has no files. */
#include <stdlib.h>
#include "base/io_file_private.h"
#include "base/sim_private.h"

struct sim_disk *sim_disk_new(struct sim *sim)
{
    return NULL;
}

void sim_disk_free(struct sim_disk *disk)
{
}

struct io_file *sim_file_open(struct loop *loop, const char *path, int flags, struct error *err)
{
    return fail_null(err, ENOTSUP, "cannot open '%s': no simulated disk", path);
}
