/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse bytes; see the header. Every walk goes page by page through page_of(). */
#include "base/sim_image.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"

/* The slot of a page; NULL when its leaf does not exist. */
static struct image_page **slot_of(const struct image *image, uint64_t page)
{
    uint64_t leaf = page / IMAGE_LEAF_PAGES;
    if (leaf >= image->leaves.count || !image->leaves.items[leaf])
        return NULL;
    return &image->leaves.items[leaf]->pages[page % IMAGE_LEAF_PAGES];
}

static const unsigned char *page_of(const struct image *image, uint64_t page)
{
    struct image_page **slot = slot_of(image, page);
    return slot && *slot ? (*slot)->bytes : NULL;
}

static void page_release(struct image_page *page)
{
    if (page && --page->references == 0)
        free(page);
}

/* The page to write to: made when there is none, and a page of its own when copies of the image share it. */
static unsigned char *page_make(struct image *image, uint64_t page)
{
    uint64_t leaf = page / IMAGE_LEAF_PAGES;
    while (image->leaves.count <= leaf)
        vec_push(&image->leaves, NULL);
    if (!image->leaves.items[leaf])
        image->leaves.items[leaf] = new (struct image_leaf);
    struct image_page **slot = slot_of(image, page);
    if (!*slot) {
        *slot = new (struct image_page);
        (*slot)->references = 1;
        image->pages++;
    } else if ((*slot)->references > 1) {
        struct image_page *own = xmalloc(sizeof *own);
        memcpy(own->bytes, (*slot)->bytes, IMAGE_PAGE);
        own->references = 1;
        page_release(*slot);
        *slot = own;
    }
    return (*slot)->bytes;
}

static void page_drop(struct image *image, uint64_t page)
{
    struct image_page **slot = slot_of(image, page);
    if (!slot || !*slot)
        return;
    page_release(TAKE(*slot));
    image->pages--;
}

/* Bytes from `offset` to the end of its page, at most `length`. */
static uint64_t in_page(uint64_t offset, uint64_t length)
{
    return MIN(length, IMAGE_PAGE - offset % IMAGE_PAGE);
}

void image_read(const struct image *image, uint64_t offset, void *data, uint64_t length)
{
    for (uint64_t n; length; offset += n, length -= n, data = (char *)data + n) {
        n = in_page(offset, length);
        const unsigned char *page = page_of(image, offset / IMAGE_PAGE);
        if (page)
            memcpy(data, page + offset % IMAGE_PAGE, n);
        else
            memset(data, 0, n);
    }
}

void image_write(struct image *image, uint64_t offset, const void *data, uint64_t length)
{
    if (length && offset + length > image->size)
        image->size = offset + length;
    for (uint64_t n; length; offset += n, length -= n, data = (const char *)data + n) {
        n = in_page(offset, length);
        memcpy(page_make(image, offset / IMAGE_PAGE) + offset % IMAGE_PAGE, data, n);
    }
}

void image_allocate(struct image *image, uint64_t offset, uint64_t length)
{
    for (uint64_t n; length; offset += n, length -= n) {
        n = in_page(offset, length);
        page_make(image, offset / IMAGE_PAGE);
    }
}

void image_zero(struct image *image, uint64_t offset, uint64_t length)
{
    for (uint64_t n; length; offset += n, length -= n) {
        n = in_page(offset, length);
        memset(page_make(image, offset / IMAGE_PAGE) + offset % IMAGE_PAGE, 0, n);
    }
}

void image_punch(struct image *image, uint64_t offset, uint64_t length)
{
    uint64_t end = image->leaves.count * IMAGE_LEAF_PAGES * IMAGE_PAGE;
    length = offset < end ? MIN(length, end - offset) : 0;
    for (uint64_t n; length; offset += n, length -= n) {
        n = in_page(offset, length);
        if (n == IMAGE_PAGE)
            page_drop(image, offset / IMAGE_PAGE);
        else if (page_of(image, offset / IMAGE_PAGE))
            memset(page_make(image, offset / IMAGE_PAGE) + offset % IMAGE_PAGE, 0, n);
    }
}

void image_resize(struct image *image, uint64_t size)
{
    if (size < image->size)
        image_punch(image, size, round_up(image->size, IMAGE_PAGE) - size);
    if (size < image->size && size % IMAGE_PAGE == 0)
        page_drop(image, size / IMAGE_PAGE);
    image->size = size;
}

void image_copy(struct image *to, const struct image *from)
{
    image_free(to);
    for (size_t i = 0; i < from->leaves.count; i++) {
        const struct image_leaf *leaf = from->leaves.items[i];
        vec_push(&to->leaves, NULL);
        if (!leaf)
            continue;
        struct image_leaf *copy = to->leaves.items[i] = xmalloc(sizeof *copy);
        *copy = *leaf;
        for (unsigned page = 0; page < IMAGE_LEAF_PAGES; page++) {
            if (copy->pages[page])
                copy->pages[page]->references++;
        }
    }
    to->size = from->size;
    to->pages = from->pages;
}

void image_free(struct image *image)
{
    for (size_t i = 0; i < image->leaves.count; i++) {
        struct image_leaf *leaf = image->leaves.items[i];
        for (unsigned page = 0; leaf && page < IMAGE_LEAF_PAGES; page++)
            page_release(leaf->pages[page]);
        free(leaf);
    }
    vec_free(&image->leaves);
    image->size = image->pages = 0;
}

uint64_t image_allocated(const struct image *image)
{
    return image->pages * IMAGE_PAGE;
}

uint64_t image_allocation_needed(const struct image *image, uint64_t offset, uint64_t length)
{
    uint64_t needed = 0;
    for (uint64_t n; length; offset += n, length -= n) {
        n = in_page(offset, length);
        if (!page_of(image, offset / IMAGE_PAGE))
            needed += IMAGE_PAGE;
    }
    return needed;
}

uint64_t image_next(const struct image *image, uint64_t offset, bool allocated)
{
    while (offset < image->size) {
        uint64_t page = offset / IMAGE_PAGE, leaf = page / IMAGE_LEAF_PAGES;
        bool has_leaf = leaf < image->leaves.count && image->leaves.items[leaf];
        if ((page_of(image, page) != NULL) == allocated)
            return offset;
        offset = has_leaf ? (page + 1) * IMAGE_PAGE : (leaf + 1) * IMAGE_LEAF_PAGES * IMAGE_PAGE;
    }
    return image->size;
}
