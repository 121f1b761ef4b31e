#include "wire/trust_msg.h"

MSG_DEFINE(trust_root, TRUST_ROOT_FIELDS)
MSG_DEFINE(trust_record, TRUST_RECORD_FIELDS)
MSG_DEFINE(trust_signature, TRUST_SIGNATURE_FIELDS)
MSG_DEFINE(signed_trust, SIGNED_TRUST_FIELDS)
