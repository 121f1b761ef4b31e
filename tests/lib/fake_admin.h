/* A node's API with canned answers: the real HTTP server (admin_open) on a loop in a thread, behind
 * it a list of rules instead of a core. */
#ifndef RAP_TESTS_FAKE_ADMIN_H
#define RAP_TESTS_FAKE_ADMIN_H

#include "admin/admin.h"

struct fake_admin;

/* Opens <dir>/rap.sock in a fresh directory. deadline_ms as in admin_config. */
struct fake_admin *fake_admin_open(uint32_t deadline_ms);
/* Answers what is held, closes, joins, removes the directory. */
void fake_admin_close(struct fake_admin *f);
const char *fake_admin_dir(const struct fake_admin *f);
const char *fake_admin_socket(const struct fake_admin *f);
/* The loopback port it serves metrics on. A rule of "metrics" has the text in place of json. */
uint16_t fake_admin_metrics_port(const struct fake_admin *f);

/* The first rule of this method with answers left is used. json: the document; NULL or "" none.
 * times 0: always. A call without a rule gets -ERR_UNSUPPORTED. */
void fake_admin_rule(struct fake_admin *f, const char *method, int rc, const char *json, int times);
/* Calls of this method are held until fake_admin_release (which waits until there is one). */
void fake_admin_hold(struct fake_admin *f, const char *method);
void fake_admin_release(struct fake_admin *f, int rc, const char *json);
/* Starts admin_close while calls may be held; returns at once. fake_admin_close still follows. */
void fake_admin_begin_close(struct fake_admin *f);
/* Waits until a call is held. */
void fake_admin_wait_held(struct fake_admin *f);

/* What arrived, oldest first: "method {args}" with flags appended: " stale", " dry_run". */
size_t fake_admin_calls(struct fake_admin *f);
/* Copies; "" past the end. */
void fake_admin_call(struct fake_admin *f, size_t i, char *out, size_t size);
struct uuid fake_admin_request_id(struct fake_admin *f, size_t i);
void fake_admin_actor(struct fake_admin *f, size_t i, char *out, size_t size);

#endif
