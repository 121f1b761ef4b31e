#include "admin/api.h"

#define ID {"id", "id", API_PATH, API_STR, true}
#define PAGE                                     \
    {"limit", "limit", API_QUERY, API_UINT, false}, \
    {"cursor", "cursor", API_QUERY, API_STR, false}
#define BODY(name, key) {name, key, API_BODY, API_STR, true}
#define BODY_OPT(name, key) {name, key, API_BODY, API_STR, false}
#define QUERY(name) {name, name, API_QUERY, API_STR, false}

/* clang-format off */
const struct api_route api_routes[] = {
    {"GET", "/livez", NULL, API_LIVE, 200, {{0}}},
    {"GET", "/readyz", "status", API_READY, 200, {{0}}},
    {"GET", "/v1/status", "status", API_READ, 200, {{0}}},
    {"GET", "/v1/cluster", "cluster", API_READ, 200, {{0}}},
    {"GET", "/v1/memberships", "memberships", API_READ, 200, {PAGE}},

    {"GET", "/v1/tokens", "token.list", API_READ, 200, {PAGE}},
    {"POST", "/v1/tokens", "token.create", API_MUTATION, 201,
     {{"ttl", "ttl_ms", API_BODY, API_DURATION, false},
      {"max_uses", "uses", API_BODY, API_UINT, false},
      {"roles", "roles", API_BODY, API_STRS, false},
      BODY_OPT("name", "name"),
      BODY_OPT("secret_hash", "secret_hash")}},
    {"GET", "/v1/tokens/{id}", "token.show", API_READ, 200, {ID}},
    {"DELETE", "/v1/tokens/{id}", "token.revoke", API_MUTATION, 200, {ID}},

    {"GET", "/v1/requests", "request.list", API_READ, 200, {PAGE, QUERY("status")}},
    {"GET", "/v1/requests/{id}", "request.show", API_READ, 200, {ID}},
    {"POST", "/v1/requests/{id}/approve", "request.approve", API_MUTATION, 200,
     {ID, BODY("fingerprint", "fingerprint")}},
    {"POST", "/v1/requests/{id}/reject", "request.reject", API_MUTATION, 200,
     {ID, BODY("reason", "reason")}},

    {"GET", "/v1/nodes", "node.list", API_READ, 200, {PAGE}},
    {"GET", "/v1/nodes/{id}", "node.show", API_READ, 200, {ID}},
    {"PATCH", "/v1/nodes/{id}", "node.rename", API_MUTATION, 200, {ID, BODY("name", "name")}},
    {"POST", "/v1/nodes/{id}/revoke", "node.revoke", API_MUTATION, 200,
     {ID, BODY("reason", "reason")}},
    {"POST", "/v1/nodes/{id}/ping", "node.ping", API_ACTION, 200,
     {ID, BODY_OPT("via", "via"),
      {"count", "count", API_BODY, API_UINT, false},
      {"size", "size", API_BODY, API_UINT, false},
      {"bytes", "bytes", API_BODY, API_UINT, false}}},
    {"DELETE", "/v1/nodes/{id}", "node.remove", API_MUTATION, 200, {ID}},

    {"GET", "/v1/authorities", "authority.list", API_READ, 200, {{0}}},
    {"POST", "/v1/authorities/prepare", "authority.prepare", API_ACTION, 200, {BODY("node", "id")}},
    {"POST", "/v1/authorities", "authority.add", API_MUTATION, 202,
     {BODY("node", "id"), BODY("issuer", "issuer")}},
    {"POST", "/v1/authorities/{id}/renew", "authority.renew", API_MUTATION, 200,
     {ID, BODY("issuer", "issuer")}},
    {"DELETE", "/v1/authorities/{id}", "authority.remove", API_MUTATION, 200,
     {ID, QUERY("reason"), QUERY("force")}},
    {"POST", "/v1/authorities/transfer", "authority.transfer", API_ACTION, 200,
     {BODY_OPT("node", "id")}},

    {"POST", "/v1/backups", "backup.create", API_ACTION, 201, {{0}}},
    {"GET", "/v1/backups/{id}", "backup.read", API_READ, 200,
     {ID, {"offset", "offset", API_QUERY, API_UINT, true}}},
    {"GET", "/v1/terms", "terms", API_READ, 200, {PAGE}},
    {"GET", "/v1/partitions", "partition.list", API_READ, 200, {PAGE}},
    {"GET", "/v1/partitions/{id}", "partition.show", API_READ, 200, {ID}},
    {"POST", "/v1/partitions/probe", "partition.probe", API_ACTION, 200, {{0}}},
    {"POST", "/v1/partitions/promote", "partition.promote", API_ACTION, 202,
     {BODY("statement", "statement")}},
    {"POST", "/v1/partitions/merge", "partition.merge", API_MUTATION, 200,
     {BODY("node", "id"),
      {"epoch", "epoch", API_BODY, API_UINT, true},
      {"rows", "rows", API_BODY, API_UINT, true},
      BODY("signature", "signature")}},
    {"GET", "/v1/divergence", "divergence.list", API_READ, 200, {PAGE}},
    {"GET", "/v1/divergence/own", "divergence.own", API_READ, 200, {PAGE}},
    {"GET", "/v1/divergence/{id}", "divergence.show", API_READ, 200, {ID, PAGE}},
    {"GET", "/v1/trust", "trust.show", API_READ, 200, {{0}}},
    {"PATCH", "/v1/trust", "trust.policy", API_MUTATION, 200,
     {{"leaf_lifetime", "leaf_life_ms", API_BODY, API_DURATION, true}}},
    {"POST", "/v1/trust/rotate", "trust.rotate", API_MUTATION, 200,
     {BODY("record", "record"), BODY_OPT("authority_set", "authority_set"),
      {"issuers", "issuers", API_BODY, API_STRS, false},
      {"force", "force", API_BODY, API_BOOL, false}}},

    {"GET", "/v1/roles", "role.list", API_READ, 200, {PAGE, QUERY("node")}},
    {"POST", "/v1/roles", "role.assign", API_MUTATION, 201,
     {BODY("node", "id"), BODY("role", "role"), BODY_OPT("organization_id", "organization_id")}},
    {"POST", "/v1/roles/unassign", "role.unassign", API_MUTATION, 200,
     {BODY("node", "id"), BODY("role", "role"), BODY_OPT("organization_id", "organization_id")}},

    {"GET", "/v1/mirror", "mirror.status", API_READ, 200, {{0}}},
    {"PUT", "/v1/mirror", "mirror.enable", API_MUTATION, 200,
     {BODY("dsn", "dsn"), BODY_OPT("mode", "mode"),
      {"max_lag", "max_lag_ms", API_BODY, API_DURATION, false},
      {"allow_insecure", "allow_insecure", API_BODY, API_BOOL, false}}},
    {"DELETE", "/v1/mirror", "mirror.disable", API_MUTATION, 200, {{0}}},
    {"POST", "/v1/mirror/verify", "mirror.verify", API_ACTION, 200,
     {{"preview", "preview", API_BODY, API_BOOL, false}}},
    {"POST", "/v1/mirror/rebuild", "mirror.rebuild", API_MUTATION, 200,
     {BODY_OPT("reason", "reason")}},

    {"GET", "/v1/audit", "audit.list", API_READ, 200,
     {PAGE, QUERY("event_type"), QUERY("subject_id"), QUERY("node"), QUERY("category")}},
    {"GET", "/v1/audit/verify", "audit.verify", API_READ, 200, {{0}}},
    {"GET", "/v1/config", "config.show", API_READ, 200, {{0}}},
    {"GET", "/v1/config/verify", "config.verify", API_READ, 200, {{0}}},
    {"GET", "/v1/fabric/sessions", "fabric.sessions", API_READ, 200, {{0}}},
    {"GET", "/v1/routes", "route.list", API_READ, 200, {{0}}},
    {"GET", "/v1/routes/{dst}", "route.explain", API_READ, 200,
     {{"dst", "dst", API_PATH, API_STR, true}}},
    {0},
};
/* clang-format on */
