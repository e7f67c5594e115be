/* SPDX-License-Identifier: Apache-2.0 */
/* Permutations of elements of BITS = 8 << SEW bits. Included by permute.c only. */
#define U VECTOR_PASTE(vector_u, BITS)
#define S VECTOR_PASTE(vector_s, BITS)
#define DEFINE(op) static uint64_t VECTOR_PASTE(op##_, BITS)(struct riscv_vector * v, uint64_t args, uint64_t scalar)
#define VD ((U *)vector_register(v, VECTOR_VD(args)))
#define VS2 ((const U *)vector_register(v, VECTOR_VS2(args)))
#define VLMAX vector_vlmax(SEW, VECTOR_LMUL(args))

DEFINE(IOTA)
{
    const uint8_t *from = vector_register(v, VECTOR_VS2(args));
    U *to = VD, count = 0;

    for (uint64_t i = 0; i < v->vl; i++) {
        if (is_active(v, args, i)) {
            to[i] = count;
            count += vector_mask_bit(from, i);
        }
    }
    return 0;
}

DEFINE(ID)
{
    U *to = VD;
    VECTOR_EACH(to[i] = (U)i;)
}

/* The scalars: element 0, whatever LMUL is. */
DEFINE(MV_XS)
{
    v->vstart = 0;
    return (uint64_t)(S)*VS2;
}

DEFINE(MV_SX)
{
    if (v->vstart < v->vl)
        *VD = (U)scalar;
    v->vstart = 0;
    return 0;
}

#if BITS >= 32
DEFINE(MV_FS)
{
    v->vstart = 0;
    return BITS == 32 ? 0xffffffff00000000ull | *VS2 : *VS2;
}

DEFINE(MV_SF)
{
    return VECTOR_PASTE(MV_SX_, BITS)(v, args, scalar);
}
#endif

/* Element i comes from i - scalar; those below stay. vd may not overlap vs2. */
DEFINE(SLIDEUP)
{
    U *to = VD;
    const U *from = VS2;
    uint64_t i = MAX(v->vstart, scalar);

    for (; i < v->vl; i++)
        if (is_active(v, args, i))
            to[i] = from[i - scalar];
    v->vstart = 0;
    return 0;
}

/* Element i comes from i + scalar, which is 0 from VLMAX on. vd may be vs2: upwards, nothing is read late. */
DEFINE(SLIDEDOWN)
{
    U *to = VD;
    const U *from = VS2;
    uint64_t limit = VLMAX;

    for (uint64_t i = v->vstart; i < v->vl; i++)
        if (is_active(v, args, i))
            to[i] = scalar < limit - i ? from[i + scalar] : 0;
    v->vstart = 0;
    return 0;
}

DEFINE(SLIDE1UP)
{
    U *to = VD;
    const U *from = VS2;

    for (uint64_t i = v->vstart; i < v->vl; i++)
        if (is_active(v, args, i))
            to[i] = i ? from[i - 1] : (U)scalar;
    v->vstart = 0;
    return 0;
}

DEFINE(SLIDE1DOWN)
{
    U *to = VD;
    const U *from = VS2;

    for (uint64_t i = v->vstart; i < v->vl; i++)
        if (is_active(v, args, i))
            to[i] = i + 1 == v->vl ? (U)scalar : from[i + 1];
    v->vstart = 0;
    return 0;
}

/* vd may overlap no source of a gather, so the order does not matter. */
DEFINE(RGATHER_VV)
{
    U *to = VD;
    const U *from = VS2, *index = (const U *)vector_register(v, VECTOR_VS1(args));
    uint64_t limit = VLMAX;
    VECTOR_EACH(to[i] = index[i] < limit ? from[index[i]] : 0;)
}

DEFINE(RGATHEREI16)
{
    U *to = VD;
    const U *from = VS2;
    const vector_u16 *index = (const vector_u16 *)vector_register(v, VECTOR_VS1(args));
    uint64_t limit = VLMAX;
    VECTOR_EACH(to[i] = index[i] < limit ? from[index[i]] : 0;)
}

DEFINE(RGATHER_VX)
{
    U *to = VD, value = scalar < VLMAX ? VS2[scalar] : 0;
    VECTOR_EACH(to[i] = value;)
}

DEFINE(COMPRESS)
{
    U *to = VD;
    const U *from = VS2;
    const uint8_t *which = vector_register(v, VECTOR_VS1(args));
    uint64_t count = 0;

    for (uint64_t i = 0; i < v->vl; i++)
        if (vector_mask_bit(which, i))
            to[count++] = from[i];
    return 0;
}

#undef U
#undef S
#undef DEFINE
#undef VD
#undef VS2
#undef VLMAX
