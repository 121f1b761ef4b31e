/* The owner's intents and queue policies, out of the signed configuration (SPEC RTE-09, QOS-01). What this
 * program does not know of them is left out: a newer authority may have said it. */
#include "node/overlay_impl.h"

#include "wire/cmd_mesh.h"

/* FNV-1a. */
uint32_t overlay_word_hash(struct blob word)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < word.len; i++) {
        h = (h ^ word.data[i]) * 16777619u;
    }
    return word.len == 0 ? 0 : h == 0 ? 1 : h;
}

static void read_intent(const struct snapshot_intent *s, struct mesh_intents *ret)
{
    /* Places in intent_policy_names and intent_via_names, from 1. */
    static const enum mesh_intent_kind kinds[] = {MESH_INTENT_PREFER, MESH_INTENT_AVOID,
                                                  MESH_INTENT_REQUIRE, MESH_INTENT_DENY};
    static const enum mesh_intent_via vias[] = {MESH_VIA_ANY, MESH_VIA_DIRECT, MESH_VIA_NODE,
                                                MESH_VIA_REGION};
    struct mp_reader r;
    bool service = s->policy == SNAPSHOT_INTENT_DENY_SERVICE;
    if ((!service && (s->policy < 1 || s->policy > ARRAY_SIZE(kinds))) || s->via < 1 ||
        s->via > ARRAY_SIZE(vias) || service != (s->service_class.len > 0)) {
        return;
    }
    struct mesh_intent i = {
        .id = s->intent_id,
        .kind = service ? MESH_INTENT_DENY : kinds[s->policy - 1],
        .any_destination = s->any_destination,
        .via = vias[s->via - 1],
        .via_node = s->via_node_id,
        .via_region = overlay_word_hash(s->via_region),
        .classed = s->qos_class > 1 && s->qos_class <= OVERLAY_CLASSES,
    };
    i.class = i.classed ? (enum overlay_class)(s->qos_class - 1) : OVERLAY_BULK;
    (void)snprintf(i.name, sizeof i.name, "%.*s", (int)s->name.len,
                   s->name.len == 0 ? "" : (const char *)s->name.data);
    (void)snprintf(i.service, sizeof i.service, "%.*s", (int)s->service_class.len,
                   s->service_class.len == 0 ? "" : (const char *)s->service_class.data);
    if (s->destinations.count > 0) {
        i.destination = xcalloc(s->destinations.count, sizeof *i.destination);
    }
    mp_reader_init(&r, s->destinations.raw);
    for (; i.count < s->destinations.count; i.count++) {
        i.destination[i.count] = mp_get_uuid(&r);
    }
    mesh_intents_add(ret, &i);
}

void overlay_read_policy(const struct config *cfg, struct mesh_intents *ret)
{
    const struct mp_list lists[] = {cfg->body.all_intents, cfg->body.intents};
    struct config_iter it;
    struct snapshot_intent intent;
    struct snapshot_authority authority;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        config_iter_init(&it, lists[i]);
        while (config_next_intent(&it, &intent) == 1) {
            read_intent(&intent, ret);
        }
    }
    config_iter_init(&it, cfg->body.authorities);
    while (config_next_authority(&it, &authority) == 1) {
        mesh_intents_add_authority(ret, &authority.node_id);
    }
}

/* What was signed is in range; what an authority with other ranges signed is brought into ours. */
static uint64_t within(uint64_t v, uint64_t low, uint64_t high)
{
    return v < low ? low : v > high ? high : v;
}

void overlay_read_qos(const struct config *cfg, struct overlay_qos ret[OVERLAY_CLASSES])
{
    struct config_iter it;
    struct snapshot_qos q;
    overlay_qos_default(ret);
    config_iter_init(&it, cfg->body.qos);
    while (config_next_qos(&it, &q) == 1) {
        if (q.channel_class < 1 || q.channel_class > OVERLAY_CLASSES) {
            continue;
        }
        ret[q.channel_class - 1] = (struct overlay_qos){
            .priority = (uint8_t)within(q.priority, 0, QOS_PRIORITY_MAX),
            .floor_permille = (uint16_t)within(q.floor_permille, 0, QOS_FLOOR_PERMILLE_MAX),
            .rate_kbps = (uint32_t)within(q.rate_kbps, 0, QOS_RATE_KBPS_MAX),
            .limit_bytes = (uint32_t)within(q.limit_kib, QOS_LIMIT_KIB_MIN, QOS_LIMIT_KIB_MAX)
                           << 10,
            .life_ms = (uint32_t)within(q.life_ms, QOS_LIFE_MS_MIN, QOS_LIFE_MS_MAX),
            .early = q.droppable,
        };
    }
}

/* --- which intent decided --- */

struct decision {
    const struct overlay *o;
    bool has_selected, has_other;
    uint32_t other_metric; /* of the nearest way that was not chosen, and the intent about it: */
    struct route_path selected;
    const struct mesh_intent *other, *any;
};

static void weigh(void *data, const struct route_path *p)
{
    struct decision *d = data;
    bool usable = p->refusal == ROUTE_NONE || p->refusal == ROUTE_POLICY;
    struct mesh_verdict v = mesh_judge_way(d->o->mesh, &p->dst, &p->next);
    if (!usable || p->metric == MESH_METRIC_INFINITE) {
        return;
    }
    if (v.refused && d->any == NULL) {
        d->any = v.intent;
    }
    if (p->selected) {
        d->has_selected = true;
        d->selected = *p;
    } else if (!d->has_other || p->metric < d->other_metric) {
        d->has_other = true;
        d->other_metric = p->metric;
        d->other = v.intent;
    }
}

const struct mesh_intent *overlay_decided(const struct overlay *o, const struct uuid *dst)
{
    struct decision d = {.o = o};
    struct mesh_verdict direct = mesh_judge_way(o->mesh, dst, dst);
    route_paths(mesh_routes(o->mesh), dst, weigh, &d);
    if (d.has_selected && d.has_other && d.other_metric < d.selected.metric) {
        return d.other; /* the nearer way was not taken; without an intent about it: inertia */
    }
    if (d.has_selected) {
        bool relayed = !uuid_equal(&d.selected.next, dst);
        return relayed && direct.refused ? direct.intent : NULL;
    }
    return d.any != NULL ? d.any : direct.intent;
}

static void take_selected(void *data, const struct route_path *p)
{
    uint64_t *us = data;
    if (p->selected) {
        *us = (uint64_t)p->metric + p->dislike;
    }
}

bool overlay_denies(const struct overlay *o, const struct uuid *peer, const char *service)
{
    return mesh_denies_service(o->mesh, peer, blob_str(service)) != NULL;
}

int overlay_cost(struct overlay *o, const struct uuid *dst, uint64_t *ret_us)
{
    struct uuid next;
    enum route_refusal why = mesh_next_hop(o->mesh, dst, NULL, overlay_now_us(), &next);
    if (why == ROUTE_NONE) {
        *ret_us = 0;
        route_paths(mesh_routes(o->mesh), dst, take_selected, ret_us);
        return 0;
    }
    bool direct = !mesh_judge_way(o->mesh, dst, dst).refused;
    if (!direct && why == ROUTE_POLICY) {
        return -ERR_DENIED;
    }
    struct mesh_event ev = {.kind = MESH_WANT, .peer = *dst};
    overlay_step(o, &ev);
    return -ERR_UNREACHABLE;
}
