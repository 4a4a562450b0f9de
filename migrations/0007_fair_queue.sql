-- Whose work is due, and what each org has running: the queue is shared out between orgs.

CREATE INDEX queue_by_org ON queue (kind, org_id, run_at, id) WHERE dead_at IS NULL;
CREATE INDEX queue_held_by_org ON queue (kind, org_id) WHERE lease_until IS NOT NULL;
