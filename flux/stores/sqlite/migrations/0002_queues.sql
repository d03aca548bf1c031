-- Where an execution stands in a queue, and when it first got a place there.
ALTER TABLE executions ADD COLUMN queue TEXT;
ALTER TABLE executions ADD COLUMN partition TEXT;
ALTER TABLE executions ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN deduplication TEXT;
ALTER TABLE executions ADD COLUMN admitted_at REAL;
CREATE INDEX executions_waiting ON executions (queue, admitted_at IS NULL, priority DESC, created_at, number)
  WHERE queue IS NOT NULL AND status = 'running' AND owner_token IS NULL;
CREATE INDEX executions_admitted ON executions (queue, partition) WHERE queue IS NOT NULL AND owner_token IS NOT NULL;
CREATE INDEX executions_begun ON executions (queue, admitted_at) WHERE admitted_at IS NOT NULL;
CREATE INDEX executions_deduplicated ON executions (queue, deduplication) WHERE deduplication IS NOT NULL;
