/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -device: see the header. A device is one row of the table and one function that reads its properties and makes it.
 *
 * Disks. A virtio-blk device of a -drive or -blockdev is served by the private storage daemon through shared memory
 * (vhost-user) when the disk can be had that way, and by NBD otherwise; the guest sees the same device.
 */
#include "emulator/user_devices.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "emulator/hw/virtio_device.h"
#include "emulator/machine.h"
#include "emulator/props.h"
#include "emulator/storage/storage.h"

struct user_device {
    const char *name, *description;
    const char *properties; /* the keys, for messages and help */
    bool (*add)(struct machine *machine, struct props *props, const struct user_device *type, struct error *err);
};

/* --- disks
 * ---------------------------------------------------------------------------------------------------------------- */

struct disk_props {
    char *id, *serial, *bus;
    struct virtio_blk_options options;
};

static void read_disk_props(struct disk_props *disk, struct props *props)
{
    *disk = (struct disk_props){props_string(props, "id"), props_string(props, "serial"), props_string(props, "bus")};
    disk->options.id = disk->id;
    disk->options.serial = disk->serial;
    disk->options.num_queues = (uint16_t)props_number(props, "num-queues", 0, 256);
    disk->options.queue_size = (uint16_t)props_number(props, "queue-size", 0, 1024);
    disk->options.packed = props_bool(props, "packed", false);
}

static void disk_props_cleanup(struct disk_props *disk)
{
    free(disk->id);
    free(disk->serial);
    free(disk->bus);
}
#define auto_disk_props __attribute__((cleanup(disk_props_cleanup))) struct disk_props

static bool plug(struct machine *machine, struct virtio_device *device, const char *bus, struct error *err)
{
    return device && board_plug_virtio(machine->board, device, bus, err);
}

static bool add_disk(struct machine *machine, const char *drive, const struct disk_props *props, struct error *err)
{
    struct hw *hw = &machine->board->hw;
    struct error vhost_error = {0};
    /* The serial number is the daemon's to tell over vhost-user; a chosen one is told by our own device. */
    struct vhost_backend *backend =
        props->serial ? NULL
                      : storage_open_vhost(machine->storage, drive, MAX(props->options.num_queues, 1u), &vhost_error);
    if (error_is_set(&vhost_error)) {
        error_move(err, &vhost_error);
        return false;
    }
    if (backend)
        return plug(machine, vhost_user_blk_create(hw, backend, &props->options, err), props->bus, err);
    struct disk *disk = storage_open_disk(machine->storage, drive, err);
    return disk && plug(machine, virtio_blk_create(hw, disk, &props->options, err), props->bus, err);
}

static bool add_virtio_blk(struct machine *machine, struct props *props, const struct user_device *type,
                           struct error *err)
{
    auto_free char *drive = props_string(props, "drive");
    auto_disk_props disk;
    read_disk_props(&disk, props);
    if (!props_done(props, type->properties, err))
        return false;
    if (!drive)
        return fail(err, EINVAL, "needs drive=ID of a -drive or -blockdev");
    if (!storage_has(machine->storage, drive))
        return fail(err, ENOENT, "there is no -drive or -blockdev '%s'", drive);
    return add_disk(machine, drive, &disk, err);
}

bool machine_add_virtio_disk(struct machine *machine, const char *drive, struct error *err)
{
    return add_disk(machine, drive, &(struct disk_props){0}, err) || fail_prefix(err, "drive '%s': ", drive);
}

static bool add_vhost_user_blk(struct machine *machine, struct props *props, const struct user_device *type,
                               struct error *err)
{
    auto_free char *id = props_string(props, "chardev");
    auto_disk_props disk;
    read_disk_props(&disk, props);
    if (!props_done(props, type->properties, err))
        return false;
    if (!id)
        return fail(err, EINVAL, "needs chardev=ID of a -chardev socket,path=PATH");
    if (disk.serial)
        return fail(err, EINVAL,
                    "has no property 'serial': the daemon tells the disk's serial number (the export's id)");
    struct line_definition *definition = lines_find(&machine->lines, id, err);
    const char *path = definition ? lines_take_socket(definition, "a vhost-user device", err) : NULL;
    struct vhost_backend *backend = path ? storage_connect_vhost(machine->storage, id, path, err) : NULL;
    return backend &&
           plug(machine, vhost_user_blk_create(&machine->board->hw, backend, &disk.options, err), disk.bus, err);
}

/* --- others
 * --------------------------------------------------------------------------------------------------------------- */

static bool add_rng(struct machine *machine, struct props *props, const struct user_device *type, struct error *err)
{
    auto_free char *id = props_string(props, "id"), *bus = props_string(props, "bus");
    return props_done(props, type->properties, err) &&
           plug(machine, virtio_rng_create(&machine->board->hw, id, err), bus, err);
}

static bool add_serial(struct machine *machine, struct props *props, const struct user_device *type, struct error *err)
{
    auto_free char *id = props_string(props, "id"), *bus = props_string(props, "bus");
    if (!props_done(props, type->properties, err))
        return false;
    struct virtio_device *console = virtio_console_create(&machine->board->hw, id, err);
    if (!plug(machine, console, bus, err))
        return false;
    vec_push(&machine->consoles, console);
    vec_push(&machine->console_ids, TAKE(id));
    return true;
}

/* `bus` is "ID.0" of a virtio-serial-device; without it the last one is taken. */
static struct virtio_device *find_console(struct machine *machine, const char *bus, struct error *err)
{
    for (size_t i = machine->consoles.count; i-- > 0;) {
        const char *id = machine->console_ids.items[i];
        size_t length = id ? strlen(id) : 0;
        if (!bus || (id && !strncmp(bus, id, length) && !strcmp(bus + length, ".0")))
            return machine->consoles.items[i];
    }
    return fail_null(err, ENOENT, "no virtio-serial-device%s%s stands before it", bus ? " for bus " : "",
                     bus ? bus : "");
}

static bool add_virtconsole(struct machine *machine, struct props *props, const struct user_device *type,
                            struct error *err)
{
    auto_free char *id = props_string(props, "id"), *bus = props_string(props, "bus");
    auto_free char *chardev = props_string(props, "chardev");
    if (!props_done(props, type->properties, err))
        return false;
    if (!chardev)
        return fail(err, EINVAL, "needs chardev=ID");
    struct virtio_device *console = find_console(machine, bus, err);
    struct line_definition *definition = console ? lines_find(&machine->lines, chardev, err) : NULL;
    struct char_line *line = definition ? lines_open(&machine->lines, definition, err) : NULL;
    return line && virtio_console_connect(console, line, err);
}

#define DISK_PROPERTIES "num-queues, queue-size, packed, bus, id"

static const struct user_device table[] = {
    {"virtio-blk-device", "virtio disk of a -drive or -blockdev", "drive, serial, " DISK_PROPERTIES, add_virtio_blk},
    {"vhost-user-blk", "virtio disk served by another process", "chardev, " DISK_PROPERTIES, add_vhost_user_blk},
    {"virtio-rng-device", "virtio source of random numbers", "bus, id", add_rng},
    {"virtio-serial-device", "virtio console controller", "bus, id", add_serial},
    {"virtconsole", "console of a virtio-serial-device (hvc0)", "chardev, bus, id", add_virtconsole},
};

static const struct user_device *find_device(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (!strcmp(table[i].name, name))
            return &table[i];
    }
    return NULL;
}

bool user_device_help(const char *text)
{
    if (!strcmp(text, "help") || !strcmp(text, "?")) {
        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
            printf("name \"%s\", desc \"%s\"\n", table[i].name, table[i].description);
        return true;
    }
    const char *comma = strrchr(text, ',');
    if (!comma || (strcmp(comma, ",help") && strcmp(comma, ",?")))
        return false;
    auto_free char *name = xstrndup(text, strcspn(text, ","));
    const struct user_device *device = find_device(name);
    if (device)
        printf("%s properties: %s\n", device->name, device->properties);
    return device;
}

static bool refuse(const char *name, struct error *err)
{
    size_t length = strlen(name);
    if (length > 4 && !strcmp(name + length - 4, "-pci"))
        return fail(err, EINVAL, "-device %s: this machine has no PCI; its virtio devices are called ...-device", name);
    return fail(err, EINVAL, "-device %s: there is no such device; '-device help' lists them", name);
}

bool machine_add_device(struct machine *machine, const char *text, struct error *err)
{
    struct props props;
    if (!props_parse(&props, "-device", text, "driver", err))
        return false;
    auto_free char *name = props_string(&props, "driver");
    const struct user_device *device = name ? find_device(name) : NULL;
    bool ok = device ? device->add(machine, &props, device, err) : refuse(name ? name : "", err);
    props_free(&props);
    return ok || (device && fail_prefix(err, "-device %s: ", device->name));
}
