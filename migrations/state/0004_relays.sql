-- Every node's snapshot lists the relays from here on: a role that relays moves the cluster's
-- config_version, not only its node's config_index.
CREATE INDEX node_role_assignments_by_role ON node_role_assignments (role, node_id)
    WHERE status = 'active';
