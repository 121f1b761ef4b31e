/* CRC-32C (Castagnoli; RFC 3720 appendix B.4): notices damage of stored bytes. No protection against
 * somebody who writes them on purpose. */
#ifndef RAP_BASE_CRC32C_H
#define RAP_BASE_CRC32C_H

#include "base/base.h"

/* crc is 0 for the first piece, then the result of the piece before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
