/* SPDX-License-Identifier: Apache-2.0 */
/* The table of this folder's kinds of objects. */
#include "crypto/objects.h"

#include "crypto/authz.h"
#include "crypto/secret.h"
#include "crypto/tls_creds.h"

const struct object_kind *const crypto_object_kinds[] = {
    &authz_list_kind,     &authz_listfile_kind, &authz_simple_kind,   &secret_kind, &secret_keyring_kind,
    &tls_creds_anon_kind, &tls_creds_psk_kind,  &tls_creds_x509_kind, NULL,
};
