-- One row an execution: its head, by which it is found, and its lease.
CREATE TABLE executions (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  workflow TEXT NOT NULL,
  status TEXT NOT NULL,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  wake_at REAL,
  principal TEXT,
  parent TEXT,
  key TEXT,
  epoch INTEGER NOT NULL DEFAULT 0,
  owner_host TEXT,
  owner_pid INTEGER,
  owner_started REAL,
  owner_token TEXT,
  lease_until REAL
);
CREATE INDEX executions_newest ON executions (created_at, id);
CREATE INDEX executions_of_workflow ON executions (workflow, created_at, id);
CREATE INDEX executions_in_status ON executions (status, created_at, id);
CREATE INDEX executions_of_principal ON executions (principal, created_at, id) WHERE principal IS NOT NULL;
CREATE INDEX executions_of_parent ON executions (parent, created_at, id) WHERE parent IS NOT NULL;
CREATE INDEX executions_with_key ON executions (key, created_at, id) WHERE key IS NOT NULL;
CREATE INDEX executions_to_wake ON executions (wake_at) WHERE wake_at IS NOT NULL;

-- One row a fact. kind: see flux/stores/rows.py. at: a JSON number as text, so that it comes back to the last bit.
-- value: the fact's one big JSON value as the codec wrote it. facts: a JSON object of what is left, NULL for nothing.
CREATE TABLE events (
  execution INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  at TEXT NOT NULL,
  call TEXT,
  value TEXT,
  facts TEXT
);
CREATE UNIQUE INDEX events_in_order ON events (execution, seq);
CREATE INDEX events_of_lifecycle ON events (execution, seq) WHERE kind < 50;

-- Small texts by key: where each schedule stands.
CREATE TABLE notes (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
