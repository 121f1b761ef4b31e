#include "fabric/mesh_intents.h"

static int by_id(const void *a, const void *b)
{
    return memcmp(((const struct uuid *)a)->b, ((const struct uuid *)b)->b, sizeof(struct uuid));
}

void mesh_intents_add(struct mesh_intents *p, const struct mesh_intent *intent)
{
    if (p->count == p->cap) {
        p->cap = p->cap == 0 ? 8 : p->cap * 2;
        p->intent = xrealloc(p->intent, p->cap * sizeof *p->intent);
    }
    struct mesh_intent *i = &p->intent[p->count++];
    *i = *intent;
    if (i->count > 0) {
        qsort(i->destination, i->count, sizeof *i->destination, by_id);
    }
}

void mesh_intents_add_authority(struct mesh_intents *p, const struct uuid *id)
{
    p->authority = xrealloc(p->authority, (p->authorities + 1) * sizeof *p->authority);
    p->authority[p->authorities++] = *id;
}

void mesh_intents_fini(struct mesh_intents *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->intent[i].destination);
    }
    free(p->intent);
    free(p->authority);
    *p = (struct mesh_intents){0};
}

static bool exempt(const struct mesh_intents *p, const struct uuid *dst, bool relays)
{
    bool is = relays;
    for (size_t i = 0; i < p->authorities && !is; i++) {
        is = uuid_equal(&p->authority[i], dst);
    }
    return is;
}

static bool is_about(const struct mesh_intent *i, const struct uuid *dst)
{
    return i->any_destination || (i->count > 0 && bsearch(dst, i->destination, i->count,
                                                          sizeof *i->destination, by_id) != NULL);
}

static bool matches(const struct mesh_intent *i, const struct mesh_way *way)
{
    bool direct = uuid_equal(&way->next, &way->dst);
    switch (i->via) {
        case MESH_VIA_ANY:
            return true;
        case MESH_VIA_DIRECT:
            return direct;
        case MESH_VIA_NODE:
            return !direct && uuid_equal(&way->next, &i->via_node);
        case MESH_VIA_REGION:
            return !direct && way->next_region == i->via_region;
    }
    return false;
}

struct mesh_verdict mesh_intents_judge(const struct mesh_intents *p, const struct mesh_way *way)
{
    struct mesh_verdict v = {.intent = NULL};
    if (p == NULL || p->count == 0 || exempt(p, &way->dst, way->dst_relays)) {
        return v;
    }
    for (size_t k = 0; k < p->count; k++) {
        const struct mesh_intent *i = &p->intent[k];
        if (i->service[0] != '\0' || !is_about(i, &way->dst)) {
            continue;
        }
        bool match = matches(i, way);
        bool refused = (i->kind == MESH_INTENT_DENY && match) ||
                       (i->kind == MESH_INTENT_REQUIRE && !match);
        bool dear = (i->kind == MESH_INTENT_AVOID && match) ||
                    (i->kind == MESH_INTENT_PREFER && !match);
        bool absolute = i->kind == MESH_INTENT_DENY && i->via == MESH_VIA_ANY;
        if (refused && (!v.refused || absolute)) {
            v.refused = true;
            v.absolute = absolute;
            v.intent = i;
        }
        if (dear) {
            v.cost_us += MESH_INTENT_COST_US;
            v.intent = v.intent == NULL ? i : v.intent;
        }
    }
    return v;
}

static bool is_of_class(struct blob service, const char *class)
{
    size_t len = strlen(class);
    return service.len >= len && memcmp(service.data, class, len) == 0 &&
           (service.len == len || service.data[len] == '.');
}

const struct mesh_intent *mesh_intents_deny_service(const struct mesh_intents *p,
                                                    const struct uuid *dst, bool dst_relays,
                                                    struct blob service)
{
    if (p == NULL || p->count == 0 || service.len == 0 || exempt(p, dst, dst_relays)) {
        return NULL;
    }
    for (size_t k = 0; k < p->count; k++) {
        const struct mesh_intent *i = &p->intent[k];
        if (i->service[0] != '\0' && is_about(i, dst) && is_of_class(service, i->service)) {
            return i;
        }
    }
    return NULL;
}

enum overlay_class mesh_intents_class(const struct mesh_intents *p, const struct uuid *dst,
                                      bool dst_relays)
{
    if (p == NULL || p->count == 0 || exempt(p, dst, dst_relays)) {
        return OVERLAY_BULK;
    }
    for (size_t k = 0; k < p->count; k++) {
        if (p->intent[k].classed && is_about(&p->intent[k], dst)) {
            return p->intent[k].class;
        }
    }
    return OVERLAY_BULK;
}
