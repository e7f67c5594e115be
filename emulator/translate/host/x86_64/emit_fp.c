#include "emulator/translate/host/x86_64/emit.h"
bool x86_emit_fp(struct emitter *e, const struct ir_op *op)
{
    return false;
}
