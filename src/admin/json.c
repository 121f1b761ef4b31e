#include "admin/json.h"

#include "base/text.h"
#include "wire/mp.h"

#include <jansson.h>

static const char *const text_columns[] = {
    "facts", "reported_facts",        "policy",          "metadata", "details", "telemetry",
    "scope", "reported_capabilities", "requested_roles",
};

bool json_is_text_column(struct blob key)
{
    for (size_t i = 0; i < ARRAY_SIZE(text_columns); i++) {
        if (blob_equal(key, blob_str(text_columns[i]))) {
            return true;
        }
    }
    return false;
}

/* jansson reports an allocation that failed and text that is not UTF-8 in the same way. With
 * xmalloc only the second is left. */
static void use_our_malloc(void)
{
    json_set_alloc_funcs(xmalloc, free);
}

static int put_value(const json_t *v, int depth, struct mp_writer *w, struct errmsg *em);

static int put_object(const json_t *o, int depth, struct mp_writer *w, struct errmsg *em)
{
    const char *key;
    json_t *v;
    int rc;
    mp_put_map(w, (uint32_t)json_object_size(o));
    /* The macro casts away const of an object it only reads. */
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        mp_put_str(w, key);
        if ((json_is_object(v) || json_is_array(v)) && json_is_text_column(blob_str(key))) {
            char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
            if (text == NULL) {
                return errmsg_set(em, -ERR_MALFORMED, "%s cannot be kept as text", key);
            }
            mp_put_str(w, text);
            free(text);
            continue;
        }
        rc = put_value(v, depth + 1, w, em);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int put_array(const json_t *a, int depth, struct mp_writer *w, struct errmsg *em)
{
    mp_put_array(w, (uint32_t)json_array_size(a));
    for (size_t i = 0; i < json_array_size(a); i++) {
        int rc = put_value(json_array_get(a, i), depth + 1, w, em);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int put_value(const json_t *v, int depth, struct mp_writer *w, struct errmsg *em)
{
    if (depth >= MP_DEPTH_MAX) {
        return errmsg_set(em, -ERR_MALFORMED, "nested more than %d levels deep", MP_DEPTH_MAX - 1);
    }
    switch (json_typeof(v)) {
        case JSON_OBJECT:
            return put_object(v, depth, w, em);
        case JSON_ARRAY:
            return put_array(v, depth, w, em);
        case JSON_STRING:
            mp_put_strn(w, json_string_value(v), json_string_length(v));
            return 0;
        case JSON_INTEGER:
            mp_put_i64(w, json_integer_value(v));
            return 0;
        case JSON_REAL:
            return errmsg_set(em, -ERR_MALFORMED, "a number with a fraction or exponent");
        case JSON_TRUE:
        case JSON_FALSE:
            mp_put_bool(w, json_is_true(v));
            return 0;
        case JSON_NULL:
            mp_put_nil(w);
            return 0;
    }
    return -ERR_MALFORMED;
}

int json_to_doc(struct blob text, struct buf *out, struct errmsg *em)
{
    use_our_malloc();
    if (text.len > JSON_TEXT_MAX * 16u) {
        return errmsg_set(em, -ERR_TOO_LARGE, "JSON text over %u bytes", JSON_TEXT_MAX * 16u);
    }
    json_error_t where;
    json_t *v = json_loadb(text.len == 0 ? "" : (const char *)text.data, text.len,
                           JSON_REJECT_DUPLICATES, &where);
    if (v == NULL) {
        return errmsg_set(em, -ERR_MALFORMED, "not JSON: line %d, column %d: %s", where.line,
                          where.column, where.text);
    }
    size_t start = out->len;
    int rc = 0;
    if (!json_is_object(v)) {
        rc = errmsg_set(em, -ERR_MALFORMED, "not a JSON object");
        goto out;
    }
    struct mp_writer w;
    mp_writer_init(&w, out);
    rc = put_value(v, 0, &w, em);
    if (rc == 0 && out->err != 0) {
        rc = errmsg_set(em, out->err, "document over %zu bytes", out->max);
    }
out:
    if (rc != 0) {
        out->len = start;
        out->err = 0;
    }
    json_decref(v);
    return rc;
}

static json_t *hex_value(struct blob b)
{
    char *text = xmalloc(2 * b.len + 1);
    hex_encode(b.data, b.len, text);
    json_t *v = json_string(text);
    free(text);
    return v;
}

static json_t *text_value(struct blob s)
{
    if (s.len == 0) {
        return json_string("");
    }
    json_t *v = NULL;
    if (memchr(s.data, 0, s.len) == NULL) {
        /* A text cut to fit a fixed buffer may end within a character: up to 3 bytes too many. */
        for (size_t cut = 0; v == NULL && cut < 4 && cut < s.len; cut++) {
            v = json_stringn((const char *)s.data, s.len - cut);
        }
    }
    return v != NULL ? v : hex_value(s);
}

static json_t *column_value(struct blob key, struct blob s)
{
    if (json_is_text_column(key) && s.len > 0 && (s.data[0] == '{' || s.data[0] == '[')) {
        json_t *v = json_loadb((const char *)s.data, s.len, JSON_REJECT_DUPLICATES, NULL);
        if (v != NULL) {
            return v;
        }
    }
    return text_value(s);
}

static json_t *get_value(struct mp_reader *r, struct blob key, unsigned flags, int depth);

static json_t *get_map(struct mp_reader *r, unsigned flags, int depth)
{
    json_t *o = json_object();
    uint32_t n = mp_get_map(r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r->err == 0; i++) {
        struct blob key = mp_get_str(r, JSON_TEXT_MAX);
        json_t *v = get_value(r, key, flags & ~(unsigned)JSON_HIDE, depth + 1);
        bool hide = (flags & JSON_HIDE) != 0 && key.len > 0 && key.data[0] == '_';
        char *name = xmalloc(key.len + 1);
        memcpy(name, key.len == 0 ? (const uint8_t *)"" : key.data, key.len);
        name[key.len] = '\0';
        if (r->err != 0 || hide) {
            json_decref(v);
        } else if (json_object_set_new(o, name, v) != 0) {
            mp_fail(r, -ERR_MALFORMED); /* a key that is not UTF-8 */
        }
        free(name);
    }
    return o;
}

static json_t *get_array(struct mp_reader *r, unsigned flags, int depth)
{
    json_t *a = json_array();
    uint32_t n = mp_get_array(r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r->err == 0; i++) {
        json_t *v = get_value(r, blob_of(NULL, 0), flags & ~(unsigned)JSON_HIDE, depth + 1);
        if (v != NULL) {
            (void)json_array_append_new(a, v);
        }
    }
    return a;
}

/* NULL only with an error in r. */
static json_t *get_value(struct mp_reader *r, struct blob key, unsigned flags, int depth)
{
    if (depth >= MP_DEPTH_MAX) {
        mp_fail(r, -ERR_MALFORMED);
        return NULL;
    }
    uint64_t u;
    switch (mp_peek(r)) {
        case MP_NIL:
            mp_get_nil(r);
            return json_null();
        case MP_BOOL:
            return json_boolean(mp_get_bool(r));
        case MP_UINT:
            u = mp_get_u64(r);
            if (u > INT64_MAX) {
                mp_fail(r, -ERR_MALFORMED); /* not exact in any reader of ours */
                return NULL;
            }
            return json_integer((json_int_t)u);
        case MP_INT:
            return json_integer(mp_get_i64(r));
        case MP_STR:
            return column_value(key, mp_get_str(r, SIZE_MAX));
        case MP_BIN:
            return hex_value(mp_get_bin(r, SIZE_MAX));
        case MP_ARRAY:
            return get_array(r, flags, depth);
        case MP_MAP:
            return get_map(r, flags, depth);
        case MP_BAD:
            break;
    }
    mp_fail(r, -ERR_MALFORMED);
    return NULL;
}

static int add_text(const char *text, size_t len, void *data)
{
    buf_add(data, text, len);
    return 0;
}

int json_from_doc(struct blob doc, unsigned flags, struct buf *out)
{
    use_our_malloc();
    struct mp_reader r;
    mp_reader_init(&r, doc);
    json_t *v = get_value(&r, blob_of(NULL, 0), flags, 0);
    int rc = mp_reader_finish(&r);
    if (rc == 0) {
        size_t how = (flags & JSON_NICE) != 0 ? (size_t)JSON_INDENT(2) : (size_t)JSON_COMPACT;
        /* Dumping fails only where a string is not UTF-8, and none of these are. */
        CHECK(json_dump_callback(v, add_text, out, how | JSON_ENCODE_ANY) == 0);
        rc = out->err;
    }
    json_decref(v);
    return rc;
}
