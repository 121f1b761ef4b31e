/* Writes the text exposition format of Prometheus, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Pure.
 *
 *     prom_family(&p, PROM_COUNTER, "rap_fabric_bytes_total", "Bytes of UDP payload.");
 *     prom_label(&p, "direction", "in");
 *     prom_uint(&p, bytes_in);
 *
 * Names, types and labels are our own and are CHECKed: the grammar, and that a counter ends in _total.
 * Label values may be anything and are escaped; what is no UTF-8 becomes "?". Who calls this sees to it
 * that each label has few values. Writing past the buffer's maximum sets its error, which the caller
 * looks at in the end. */
#ifndef RAP_BASE_PROM_H
#define RAP_BASE_PROM_H

#include "base/buf.h"
#include "base/histogram.h"

#define PROM_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define PROM_LABELS_MAX 4
#define PROM_VALUE_MAX 128 /* bytes of a label's value; the rest is cut off */

enum prom_type { PROM_COUNTER, PROM_GAUGE, PROM_HISTOGRAM };

struct prom {
    struct buf *out;
    const char *name; /* of the family; the caller's constant */
    enum prom_type type;
    struct {
        const char *name;
        char value[PROM_VALUE_MAX + 1];
    } label[PROM_LABELS_MAX]; /* of the next sample */
    size_t labels;
};

void prom_init(struct prom *p, struct buf *out);
/* The samples that follow are of this family; each family is begun once. help: one line. */
void prom_family(struct prom *p, enum prom_type type, const char *name, const char *help);
/* For the next sample only. */
void prom_label(struct prom *p, const char *name, const char *value);
void prom_uint(struct prom *p, uint64_t v);
void prom_real(struct prom *p, double v);
/* Microseconds and milliseconds, as the seconds that Prometheus wants. */
void prom_us(struct prom *p, uint64_t us);
void prom_ms(struct prom *p, int64_t ms);
/* Of a PROM_HISTOGRAM. */
void prom_histogram(struct prom *p, const struct histogram *h);
/* A family of one sample without labels. */
void prom_one(struct prom *p, enum prom_type type, const char *name, const char *help, uint64_t v);

#endif
