/* Every bound on what a peer, a file or a user may send. One list, so that it can be read at once. */
#ifndef RAP_WIRE_LIMITS_H
#define RAP_WIRE_LIMITS_H

#define NAME_MAX_BYTES 63       /* node and cluster names: an RFC 1123 label */
#define ADDRESS_MAX_BYTES 260   /* host:port */
#define REASON_MAX_BYTES 256
#define LOG_DAMAGE_MAX 400 /* why a log does not load */
#define FACTS_MAX_BYTES 4096    /* JSON text */
#define POLICY_MAX_BYTES 1024   /* JSON text */
#define ROLE_MAX_BYTES 32
#define ROLES_MAX 32            /* of one node or token */
#define CAPABILITIES_MAX 32
#define CERT_DER_MAX 2048
#define CHAIN_MAX 4             /* certificates in a presented chain */
#define CSR_DER_MAX 1024
#define CMD_CERT_MAX 6144       /* an encoded cmd_cert */
#define CMD_BODY_MAX 24576
#define CMD_BATCH_MAX 1024      /* commands in one log entry */
#define ENTRY_MAX_BYTES (4u << 20)
#define RAFT_FRAME_MAX (512u << 20) /* one Raft message, a packed image included */
#define RPC_FRAME_MAX (1u << 20)
#define SNAPSHOT_MAX_BYTES (1u << 20) /* a node's signed configuration */
#define SNAPSHOT_WITNESS_MAX (96u << 10)  /* signatures, paths, authority sets */
#define IMAGE_MAX_BYTES (1u << 30)    /* the replicated state, decompressed */
#define CLOCK_AHEAD_WARN_MS 60000    /* between two members' clocks */
#define MIRROR_DSN_MAX 1024          /* connection string of PostgreSQL, without secrets */
#define MIRROR_RING_ENTRIES 65536    /* entries every authority keeps for PostgreSQL, and */
#define MIRROR_RING_BYTES (64u << 20) /* how large they may be together */
#define MIRROR_LAG_ENTRIES_MAX 16384 /* with the mirror required: farther behind, or */
#define MIRROR_RESERVE 16384         /* that may be decided nevertheless, if they only take rights away */
#define MIRROR_LAG_MS_DEFAULT 10000  /* for longer, and high-risk requests are refused */
#define MIRROR_LAG_MS_MIN 1000
#define MIRROR_LAG_MS_MAX (3600 * 1000)
#define MIRROR_DIFFERENCES_MAX 50    /* rows that a verification names */
#define MIRROR_DETAIL_MAX 256        /* what an alarm says */
#define TOKEN_TTL_MAX_MS (30LL * 86400 * 1000)
#define TOKEN_USES_MAX 100000
#define JOIN_PENDING_MAX_MS (24LL * 3600 * 1000) /* a request nobody decided */
#define AUTHORITY_WAIT_MAX_MS (24LL * 3600 * 1000) /* to catch up and vote, once it was added */
#define JOIN_PENDING_MAX 20000  /* requests waiting at once */
#define ENROLL_RATE_MAX 1000000 /* attempts to join a second from one address, as configured */
#define AUTHORITIES_MAX 9
#define LINKS_MAX 32              /* that one node reports */
#define ROUTE_SAMPLES_MAX 32      /* that one node reports */
#define SAMPLE_BYTES_MAX 128      /* a link or a route of a report, encoded */
#define SPLIT_NODES_MAX 256       /* that leave for a new cluster at once */
#define SPLIT_REPORT_LIFE_MS (3600LL * 1000) /* what the new cluster said of itself counts so long */
#define SPLIT_REPORT_AHEAD_MS (300LL * 1000) /* by a clock that is ahead */
#define RELAYS_MAX 64             /* that every node is told of */
#define SIGNED_SET_MAX 4096      /* an authority set with its signatures */
#define FORGERY_KIND_MAX_BYTES 32
#define PEERS_MAX 64              /* addresses of others that a node is told, beside relays and authorities */
#define BANDWIDTH_MBPS_MAX 1000000u
#define TRUST_LEVEL_MAX 100u
#define MESH_CHANGES_MAX 64       /* links, and routes, in one entry of the log */
#define MESH_LINKS_KEPT 20        /* of one node, in the state */
#define MESH_ROUTE_LIFE_MS (24LL * 3600 * 1000)
#define SELECTOR_REF_MAX 64       /* a node id, a role, a region, an organization */
#define INTENTS_MAX 256           /* of a cluster */
#define POOLS_MAX 64
#define POOL_MEMBERS_MAX 64
#define ORGANIZATION_MAX_BYTES 64
#define RESOURCES_MAX 1024        /* of a cluster */
#define PROTOCOL_MAX_BYTES 16
#define RESOURCE_REF_MAX_BYTES 256
#define SERVICE_CLASS_MAX_BYTES 32
#define QOS_PRIORITY_MAX 9
#define QOS_RATE_KBPS_MAX 100000000u
#define QOS_FLOOR_PERMILLE_MAX 500
#define QOS_LIMIT_KIB_MIN 16
#define QOS_LIMIT_KIB_MAX 16384
#define QOS_LIFE_MS_MIN 20
#define QOS_LIFE_MS_MAX 10000
#define GROUPS_MAX 1000
#define GROUP_DEPTH_MAX 8
#define HEARTBEATS_KEPT 16        /* observations of one node */
#define HEARTBEAT_SAMPLES_MAX 128 /* in one command */
#define HEARTBEAT_SAMPLE_MIN_MS 1000LL
#define HEARTBEAT_SAMPLE_MAX_MS (24LL * 3600 * 1000)
#define LEAF_LIFE_MIN_MS (60LL * 1000)
#define LEAF_LIFE_MAX_MS (90LL * 86400 * 1000)
#define PAGE_DEFAULT 100
#define PAGE_MAX 500

#endif
