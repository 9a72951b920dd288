CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
-- Tasks as clients see them. Moments are nanoseconds since 1970, UTC.
CREATE TABLE IF NOT EXISTS tasks (
    uid INTEGER PRIMARY KEY,
    index_uid TEXT,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    details TEXT,
    error TEXT,
    canceled_by INTEGER,
    custom_metadata TEXT,
    enqueued_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status);
CREATE INDEX IF NOT EXISTS tasks_by_index ON tasks (index_uid);
-- What nodes know of a task: several rows a node where it takes several steps.
CREATE TABLE IF NOT EXISTS node_tasks (
    uid INTEGER NOT NULL,
    node TEXT NOT NULL,
    node_task INTEGER NOT NULL,
    step TEXT NOT NULL,
    shards TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (uid, node, node_task)
) STRICT;
-- Mutations between begin and commit ('open'), and then until they are settled ('sent').
CREATE TABLE IF NOT EXISTS intents (uid INTEGER PRIMARY KEY, state TEXT NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS indexes (
    uid TEXT PRIMARY KEY, primary_key TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
-- The fields of indexes, which all nodes have been told, in the order in which nodes took them up.
CREATE TABLE IF NOT EXISTS fields (
    index_uid TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (index_uid, name)
) STRICT;
-- Settings as clients set them, merged: JSON.
CREATE TABLE IF NOT EXISTS settings (index_uid TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS placement (
    shard INTEGER NOT NULL, position INTEGER NOT NULL, node TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (shard, node)
) STRICT;
-- Nodes that missed an operation on indexes or keys.
CREATE TABLE IF NOT EXISTS behind (node TEXT PRIMARY KEY) STRICT;
-- Epoch keys: one a gateway; 'fenced' ones are to be deleted on every node.
CREATE TABLE IF NOT EXISTS epochs (key_uid TEXT PRIMARY KEY, gateway TEXT NOT NULL, state TEXT NOT NULL) STRICT;
-- Where to post ended tasks; headers: JSON. Then the ended tasks that have not been posted.
CREATE TABLE IF NOT EXISTS webhooks (uuid TEXT PRIMARY KEY, url TEXT NOT NULL, headers TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS untold_tasks (uid INTEGER PRIMARY KEY) STRICT;
-- VMs of gateways that have, or may have, a lease: after a restart they are waited for until they report.
CREATE TABLE IF NOT EXISTS leases (vm TEXT PRIMARY KEY) STRICT;
