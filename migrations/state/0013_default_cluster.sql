-- SPEC CLU-02: a node of before there were memberships belongs to the one cluster there is. Its row stays
-- as it is. No state made by this product has such a node; one that was carried over from elsewhere may.
INSERT INTO cluster_memberships (cluster_id, node_id, membership_status, joined_at)
SELECT c.id, n.id,
    CASE n.enrollment_status WHEN 'enrolled' THEN 'active' ELSE 'revoked' END,
    c.created_at
FROM nodes n CROSS JOIN clusters c
WHERE NOT EXISTS (SELECT 1 FROM cluster_memberships m WHERE m.node_id = n.id)
ORDER BY n.id;
