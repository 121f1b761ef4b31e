-- No table changes. From here on the state itself checks the owner's signature under what only the owner
-- may decide (authority_add, authority_renew, trust_rotate), and a command names the authority that passed
-- it on (docs/decisions/0018).
SELECT 1;
