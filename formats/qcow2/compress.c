/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw deflate by libdeflate, which takes about half the time of zlib; zstd by its own library.
 *
 * libdeflate decompresses whole streams only. An image may hold a stream that does not end properly, or that goes on
 * behind the cluster: by the specification decompression stops as soon as a cluster is full. zlib can do that, and gets
 * those. Deflate streams use the full window of 32 KiB, which all readers of the format accept.
 */
#include "formats/qcow2/compress.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include "base/alloc.h"
#include "formats/qcow2/layout.h"

enum {
    DEFLATE_LEVEL = 6,
    ZSTD_LEVEL = 3,
    ZSTD_WINDOW_LOG_MAX = 24, /* 16 MiB: a cluster has at most 2 */
};

struct codec_context {
    uint32_t type;
    struct libdeflate_decompressor *inflater;
    struct libdeflate_compressor *deflater;
    ZSTD_DCtx *zstd_in;
    ZSTD_CCtx *zstd_out;
};

struct codec_context *codec_context_new(uint32_t type)
{
    struct codec_context *context = try_calloc(1, sizeof *context);
    if (context)
        context->type = type;
    return context;
}

void codec_context_free(struct codec_context *context)
{
    libdeflate_free_decompressor(context->inflater);
    libdeflate_free_compressor(context->deflater);
    ZSTD_freeDCtx(context->zstd_in);
    ZSTD_freeCCtx(context->zstd_out);
    free(context);
}

static bool inflate_prefix(const void *in, size_t in_size, void *out, size_t out_size)
{
    z_stream stream = {
        .next_in = (void *)(uintptr_t)in, .avail_in = (uInt)in_size, .next_out = out, .avail_out = (uInt)out_size};
    if (inflateInit2(&stream, -15) != Z_OK)
        return false;
    (void)inflate(&stream, Z_FINISH);
    bool full = stream.avail_out == 0;
    inflateEnd(&stream);
    return full;
}

static bool inflate_cluster(struct codec_context *context, const void *in, size_t in_size, void *out, size_t out_size)
{
    if (!context->inflater)
        context->inflater = libdeflate_alloc_decompressor();
    size_t used, made;
    if (context->inflater && libdeflate_deflate_decompress_ex(context->inflater, in, in_size, out, out_size, &used,
                                                              &made) == LIBDEFLATE_SUCCESS)
        return made == out_size;
    return inflate_prefix(in, in_size, out, out_size);
}

static bool zstd_cluster(struct codec_context *context, const void *in, size_t in_size, void *out, size_t out_size)
{
    if (!context->zstd_in)
        context->zstd_in = ZSTD_createDCtx();
    if (!context->zstd_in)
        return false;
    ZSTD_DCtx_reset(context->zstd_in, ZSTD_reset_session_only);
    ZSTD_DCtx_setParameter(context->zstd_in, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    ZSTD_inBuffer input = {in, in_size, 0};
    ZSTD_outBuffer output = {out, out_size, 0};
    while (output.pos < output.size) {
        size_t before_in = input.pos, before_out = output.pos;
        size_t result = ZSTD_decompressStream(context->zstd_in, &output, &input);
        if (ZSTD_isError(result) || (input.pos == before_in && output.pos == before_out))
            return false;
        if (result == 0 && output.pos < output.size)
            return false; /* one frame holds one cluster */
    }
    return true;
}

bool codec_decompress(struct codec_context *context, const void *in, size_t in_size, void *out, size_t out_size)
{
    return context->type == COMPRESSION_ZSTD ? zstd_cluster(context, in, in_size, out, out_size)
                                             : inflate_cluster(context, in, in_size, out, out_size);
}

size_t codec_compress(struct codec_context *context, const void *in, size_t in_size, void *out, size_t out_size)
{
    if (context->type == COMPRESSION_ZSTD) {
        if (!context->zstd_out)
            context->zstd_out = ZSTD_createCCtx();
        size_t made =
            context->zstd_out ? ZSTD_compressCCtx(context->zstd_out, out, out_size, in, in_size, ZSTD_LEVEL) : 0;
        return ZSTD_isError(made) ? 0 : made;
    }
    if (!context->deflater)
        context->deflater = libdeflate_alloc_compressor(DEFLATE_LEVEL);
    return context->deflater ? libdeflate_deflate_compress(context->deflater, in, in_size, out, out_size) : 0;
}
