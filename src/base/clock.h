/* Time. Only drivers call these: decisions get the time in their events (DESIGN D8). */
#ifndef RAP_BASE_CLOCK_H
#define RAP_BASE_CLOCK_H

#include "base/base.h"

/* CLOCK_MONOTONIC. For deadlines and intervals. */
uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
/* Milliseconds since 1970, UTC. May jump; for stamps people read and certificates. */
int64_t clock_wall_ms(void);

#define CLOCK_TEXT_MAX 32
/* RFC 3339, UTC, milliseconds: 2026-01-31T12:00:00.123Z. Times before 1970 and after 9999 print as the
 * first and last there are. */
void clock_format(int64_t wall_ms, char out[CLOCK_TEXT_MAX]);
/* Reads what clock_format writes (0 to 9 digits of fraction). -ERR_INVALID otherwise. */
int clock_parse(const char *text, int64_t *ret_wall_ms);

/* "250ms", "30s", "15m", "1h", "7d": one number and one unit, result in ms.
 * -ERR_INVALID on anything else, on overflow and on negative numbers. */
int clock_parse_duration(const char *text, int64_t *ret_ms);

#endif
