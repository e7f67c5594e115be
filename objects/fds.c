/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of clients; see the header. */
#include "objects/fds.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"

struct named {
    struct list link;
    char *name;
    int fd;
};

struct fds {
    struct list names; /* of struct named */
    struct list sets;  /* of struct fd_set_entry, by rising id */
};

struct fds *fds_new(void)
{
    struct fds *fds = new (struct fds);
    list_init(&fds->names);
    list_init(&fds->sets);
    return fds;
}

/* Names ---------------------------------------------------------------------------------------------------------- */

static struct named *find_name(const struct fds *fds, const char *name)
{
    struct named *named;
    list_for_each (named, &fds->names, link)
        if (!strcmp(named->name, name))
            return named;
    return NULL;
}

static void forget_name(struct named *named)
{
    list_remove(&named->link);
    free(named->name);
    free(named);
}

/* A name that begins with a digit would be taken for the number of a descriptor. */
bool fds_put_name(struct fds *fds, const char *name, int fd, struct error *err)
{
    if (!*name || (*name >= '0' && *name <= '9')) {
        close(fd);
        return fail(err, EINVAL, "'%s': the name of a file descriptor does not begin with a digit", name);
    }
    struct named *named = find_name(fds, name);
    if (named) {
        close(named->fd);
    } else {
        named = new (struct named);
        named->name = xstrdup(name);
        list_append(&fds->names, &named->link);
    }
    named->fd = fd;
    return true;
}

int fds_take_name(struct fds *fds, const char *name)
{
    struct named *named = fds ? find_name(fds, name) : NULL;
    if (!named)
        return -1;
    int fd = named->fd;
    forget_name(named);
    return fd;
}

bool fds_close_name(struct fds *fds, const char *name, struct error *err)
{
    int fd = fds_take_name(fds, name);
    if (fd < 0)
        return fail(err, ENOENT, "File descriptor named '%s' not found", name);
    close(fd);
    return true;
}

/* Sets ----------------------------------------------------------------------------------------------------------- */

static struct fd_set_entry *find_set(const struct fds *fds, int64_t id)
{
    struct fd_set_entry *set;
    list_for_each (set, &fds->sets, link)
        if (set->id == id)
            return set;
    return NULL;
}

static void forget_member(struct fd_member *member)
{
    list_remove(&member->link);
    close(member->fd);
    free(member->opaque);
    free(member);
}

static void forget_set(struct fd_set_entry *set)
{
    struct fd_member *member;
    while ((member = list_first(&set->members, struct fd_member, link)))
        forget_member(member);
    list_remove(&set->link);
    free(set);
}

/* With id -1 the lowest free one. */
static struct fd_set_entry *make_set(struct fds *fds, int64_t id)
{
    struct fd_set_entry *set, *made = new (struct fd_set_entry);
    struct list *place = &fds->sets;
    int64_t free_id = 0;
    list_for_each (set, &fds->sets, link) {
        if (id < 0 ? set->id > free_id : set->id > id) {
            place = &set->link;
            break;
        }
        free_id = set->id + 1;
    }
    made->id = id < 0 ? free_id : id;
    list_init(&made->members);
    list_insert_before(place, &made->link);
    return made;
}

struct fd_set_entry *fds_add(struct fds *fds, int64_t id, int fd, const char *opaque, struct error *err)
{
    if (id < -1) {
        close(fd);
        return fail_null(err, EINVAL, "fdset-id %" PRId64 ": expected a number that is not negative", id);
    }
    struct fd_set_entry *set = id < 0 ? NULL : find_set(fds, id);
    if (!set)
        set = make_set(fds, id);
    struct fd_member *member = new (struct fd_member);
    member->fd = fd;
    member->opaque = xstrdup(opaque);
    list_append(&set->members, &member->link);
    return set;
}

bool fds_remove(struct fds *fds, int64_t id, int fd, struct error *err)
{
    struct fd_set_entry *set = find_set(fds, id);
    struct fd_member *member, *found = NULL;
    if (!set)
        return fail(err, ENOENT, "File descriptor named 'fdset-id:%" PRId64 "' not found", id);
    if (fd < 0) {
        forget_set(set);
        return true;
    }
    list_for_each (member, &set->members, link)
        if (member->fd == fd)
            found = member;
    if (!found)
        return fail(err, ENOENT, "File descriptor named 'fdset-id:%" PRId64 ", fd:%d' not found", id, fd);
    forget_member(found);
    if (list_empty(&set->members))
        forget_set(set);
    return true;
}

struct fd_set_entry *fds_next(const struct fds *fds, const struct fd_set_entry *after)
{
    const struct list *link = after ? after->link.next : fds->sets.next;
    return link == &fds->sets ? NULL : list_entry(link, struct fd_set_entry, link);
}

void fds_free(struct fds *fds)
{
    if (!fds)
        return;
    struct named *named;
    while ((named = list_first(&fds->names, struct named, link))) {
        close(named->fd);
        forget_name(named);
    }
    struct fd_set_entry *set;
    while ((set = list_first(&fds->sets, struct fd_set_entry, link)))
        forget_set(set);
    free(fds);
}

/* Opening -------------------------------------------------------------------------------------------------------- */

bool fds_is_path(const char *path, int64_t *id)
{
    static const char prefix[] = "/dev/fdset/";
    if (strncmp(path, prefix, sizeof prefix - 1))
        return false;
    char *end;
    errno = 0;
    *id = strtoll(path + sizeof prefix - 1, &end, 10);
    return !errno && end != path + sizeof prefix - 1 && !*end && *id >= 0;
}

/* What can be read and written serves readers as well. */
static const struct fd_member *find_member(const struct fd_set_entry *set, int flags)
{
    const struct fd_member *member, *found = NULL;
    list_for_each (member, &set->members, link) {
        int has = fcntl(member->fd, F_GETFL), wants = flags & O_ACCMODE;
        if (has < 0 || (flags ^ has) & O_DIRECT)
            continue;
        if ((has & O_ACCMODE) == wants)
            return member;
        if ((has & O_ACCMODE) == O_RDWR && wants == O_RDONLY && !found)
            found = member;
    }
    return found;
}

/* The copy shares offset and status flags with the client's descriptor: offsets are given with every request, O_DIRECT
 * must be as the client has opened it. */
int fds_open(const struct fds *fds, const char *path, int flags, struct error *err)
{
    int64_t id;
    const struct fd_set_entry *set = fds && fds_is_path(path, &id) ? find_set(fds, id) : NULL;
    if (!set) {
        fail(err, ENOENT, "Could not open '%s': there is no such set of file descriptors (see add-fd)", path);
        return -1;
    }
    const struct fd_member *member = find_member(set, flags);
    int copy = member ? fcntl(member->fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (!member)
        fail(err, EACCES, "Could not open '%s': no descriptor of the set is open for %s%s", path,
             (flags & O_ACCMODE) == O_RDONLY ? "reading" : "reading and writing",
             flags & O_DIRECT ? " with O_DIRECT" : " without O_DIRECT");
    else if (copy < 0)
        fail_errno(err, errno, "Could not open '%s'", path);
    return copy;
}
