/* SPDX-License-Identifier: Apache-2.0 */
/* The codecs of compressed clusters, as pure functions on buffers: they run on worker threads. */
#ifndef FORMATS_QCOW2_COMPRESS_H
#define FORMATS_QCOW2_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a codec keeps between clusters; one at a time uses it. */
struct codec_context;
struct codec_context *codec_context_new(uint32_t type); /* COMPRESSION_DEFLATE, COMPRESSION_ZSTD; NULL: no memory */
void codec_context_free(struct codec_context *context);

/* Fills exactly `out_size` bytes; what follows in `in` is ignored. False when the data does not give that. */
bool codec_decompress(struct codec_context *context, const void *in, size_t in_size, void *out, size_t out_size);
/* Bytes written to `out`, 0 when it does not fit. */
size_t codec_compress(struct codec_context *context, const void *in, size_t in_size, void *out, size_t out_size);

#endif
