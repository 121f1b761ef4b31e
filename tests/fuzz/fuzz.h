/* What every fuzz target defines. */
#ifndef RAP_TESTS_FUZZ_H
#define RAP_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
