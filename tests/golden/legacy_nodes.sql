-- Node rows as an installation without clusters had them: no membership, one of them revoked (CLU-02).
INSERT INTO nodes (id, name, fingerprint, enrollment_status, health_status, identity_state, facts)
VALUES
    ('018f0000-0000-7000-8000-000000000001', 'legacy-a',
     'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'enrolled', 'healthy',
     'active', '{"os":"debian"}'),
    ('018f0000-0000-7000-8000-000000000002', 'legacy-b',
     'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'enrolled', 'unknown',
     'active', NULL),
    ('018f0000-0000-7000-8000-000000000003', 'legacy-gone',
     'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 'revoked', 'stale',
     'revoked', NULL);
