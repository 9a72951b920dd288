PRAGMA user_version = 5;
CREATE TABLE behind (node TEXT PRIMARY KEY) STRICT;
CREATE TABLE epochs (key_uid TEXT PRIMARY KEY, gateway TEXT NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE examined (node TEXT PRIMARY KEY, next INTEGER NOT NULL, anchor TEXT) STRICT;
CREATE TABLE fields (
    index_uid TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (index_uid, name)
) STRICT;
CREATE TABLE indexes (
    uid TEXT PRIMARY KEY, primary_key TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE intents (uid INTEGER PRIMARY KEY, state TEXT NOT NULL, body TEXT NOT NULL, ending TEXT) STRICT;
CREATE TABLE leases (vm TEXT PRIMARY KEY) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE missed (uid INTEGER NOT NULL, node TEXT NOT NULL, shards TEXT NOT NULL, PRIMARY KEY (uid, node)) STRICT;
CREATE TABLE missed_documents (
    index_uid TEXT NOT NULL, node TEXT NOT NULL, shard INTEGER NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (index_uid, node, shard, id)
) STRICT;
CREATE TABLE node_tasks (
    uid INTEGER NOT NULL,
    node TEXT NOT NULL,
    node_task INTEGER NOT NULL,
    step TEXT NOT NULL,
    shards TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (uid, node, node_task)
) STRICT;
CREATE TABLE placement (
    shard INTEGER NOT NULL, position INTEGER NOT NULL, node TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (shard, node)
) STRICT;
CREATE TABLE settings (index_uid TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE stale (
    index_uid TEXT NOT NULL, node TEXT NOT NULL, shard INTEGER NOT NULL, missed TEXT NOT NULL,
    PRIMARY KEY (index_uid, node, shard)
) STRICT;
CREATE TABLE steps (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE tasks (
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
CREATE TABLE untold_tasks (uid INTEGER PRIMARY KEY) STRICT;
CREATE TABLE webhooks (uuid TEXT PRIMARY KEY, url TEXT NOT NULL, headers TEXT NOT NULL) STRICT;
CREATE INDEX tasks_by_canceled_by ON tasks (canceled_by) WHERE canceled_by IS NOT NULL;
CREATE INDEX tasks_by_enqueued_at ON tasks (enqueued_at);
CREATE INDEX tasks_by_finished_at ON tasks (finished_at);
CREATE INDEX tasks_by_index ON tasks (index_uid);
CREATE INDEX tasks_by_index_status_type ON tasks (index_uid, status, type);
CREATE INDEX tasks_by_started_at ON tasks (started_at);
CREATE INDEX tasks_by_status ON tasks (status);
CREATE INDEX tasks_by_type_status ON tasks (type, status);
INSERT INTO epochs (key_uid, gateway, state) VALUES ('<random>', 'g', 'live');
INSERT INTO epochs (key_uid, gateway, state) VALUES ('<random>', 'mover/n0', 'live');
INSERT INTO epochs (key_uid, gateway, state) VALUES ('<random>', 'mover/n1', 'live');
INSERT INTO epochs (key_uid, gateway, state) VALUES ('<random>', 'mover/n2', 'live');
INSERT INTO fields (index_uid, position, name) VALUES ('books', 0, 'title');
INSERT INTO fields (index_uid, position, name) VALUES ('books', 1, 'id');
INSERT INTO indexes (uid, primary_key, created_at, updated_at) VALUES ('books', 'id', 1700000000000000000, 1700000000000000000);
INSERT INTO indexes (uid, primary_key, created_at, updated_at) VALUES ('movies', 'isbn', 1700000000000000000, 1700000000000000000);
INSERT INTO intents (uid, state, body, ending) VALUES (7, 'sent', '{"kind":"write","gateway":"g","index":"books","operation":{"kind":"addDocuments","update":false,"documents":2,"distinct":2,"requestedPrimaryKey":null,"primaryKey":"id","assumed":false,"failure":null},"writers":[[1,["n0","n1"]]],"begun":"<random>"}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (8, 'open', '{"kind":"write","gateway":"g","index":"books","operation":{"kind":"addDocuments","update":false,"documents":2,"distinct":2,"requestedPrimaryKey":null,"primaryKey":"id","assumed":false,"failure":null},"writers":[[0,["n1","n2"]]],"begun":"<random>"}', NULL);
INSERT INTO leases (vm) VALUES ('vm');
INSERT INTO meta (key, value) VALUES ('chatCompletions', '{"support":{"orgId":"o"}}');
INSERT INTO meta (key, value) VALUES ('desired', '[["n1","n2"],["n1","n0"],["n2","n0"],["n1","n0"]]');
INSERT INTO meta (key, value) VALUES ('floor', '<version>');
INSERT INTO meta (key, value) VALUES ('instance', '<random>');
INSERT INTO meta (key, value) VALUES ('instance/<random>', '1');
INSERT INTO meta (key, value) VALUES ('keys', 'equal');
INSERT INTO meta (key, value) VALUES ('leases', 'known');
INSERT INTO meta (key, value) VALUES ('legacy_search', 'true');
INSERT INTO meta (key, value) VALUES ('network', '{"self":null,"remotes":null,"shards":null}');
INSERT INTO meta (key, value) VALUES ('next_task', '9');
INSERT INTO meta (key, value) VALUES ('nodes', '[{"name":"n0","url":"http://127.0.0.1:<port>/","cluster":"n0","weight":1,"zone":null,"since":<version>,"draining":false,"leaving":false},{"name":"n1","url":"http://127.0.0.1:<port>/","cluster":"n1","weight":1,"zone":null,"since":<version>,"draining":false,"leaving":false},{"name":"n2","url":"http://127.0.0.1:<port>/","cluster":"n2","weight":1,"zone":null,"since":<version>,"draining":false,"leaving":false}]');
INSERT INTO meta (key, value) VALUES ('pace', '{"shardsAtOnce":2}');
INSERT INTO meta (key, value) VALUES ('place', '<place>');
INSERT INTO meta (key, value) VALUES ('read_key', '<random>');
INSERT INTO meta (key, value) VALUES ('replication', '2');
INSERT INTO meta (key, value) VALUES ('shards', '4');
INSERT INTO meta (key, value) VALUES ('stale_by_index', 'true');
INSERT INTO meta (key, value) VALUES ('version', '<version>');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n0', 'main', '[0,2]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'n1', 'main', '[0,2]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n0', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (1, 'n1', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (2, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (2, 'n0', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (2, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (2, 'n1', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (3, 'n0', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (3, 'n1', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n0', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n0', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n1', 'extra', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (4, 'n1', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (5, 'n0', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (5, 'n1', 'main', '[]', 'settled');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (7, 'n0', 'extra', '[]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (7, 'n0', 'main', '[1]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (7, 'n1', 'extra', '[]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (7, 'n1', 'main', '[1]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (7, 'n2', 'extra', '[]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (8, 'n0', 'extra', '[]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (8, 'n1', 'extra', '[]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (8, 'n2', 'extra', '[]', 'enqueued');
INSERT INTO placement (shard, position, node, state) VALUES (0, 0, 'n1', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (0, 1, 'n2', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (1, 0, 'n0', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (1, 1, 'n1', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (2, 0, 'n0', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (2, 1, 'n2', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (3, 0, 'n0', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (3, 1, 'n1', 'active');
INSERT INTO settings (index_uid, body) VALUES ('books', '{"stopWords":["the"],"faceting":{"maxValuesPerFacet":7},"rankingRules":["words"]}');
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (0, 'books', 'documentAdditionOrUpdate', 'succeeded', '{"receivedDocuments":2,"indexedDocuments":2}', NULL, NULL, 'the client''s', 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (1, 'movies', 'indexCreation', 'succeeded', '{"primaryKey":"isbn"}', NULL, NULL, NULL, 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (2, 'books', 'settingsUpdate', 'succeeded', '{"deletedDocuments":3}', NULL, NULL, NULL, 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (3, NULL, 'indexSwap', 'succeeded', '{"swaps":[{"indexes":["movies","books"],"rename":false}]}', NULL, NULL, NULL, 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (4, 'gone', 'indexCreation', 'succeeded', '{"primaryKey":null}', NULL, NULL, NULL, 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (5, 'gone', 'indexDeletion', 'succeeded', '{"deletedDocuments":3}', NULL, NULL, NULL, 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (6, 'books', 'documentAdditionOrUpdate', 'failed', '{"receivedDocuments":3,"indexedDocuments":0}', '{"message":"m","code":"c","type":"k","link":"l"}', NULL, 'the client''s', 1700000000000000000, 1700000000000000000, 1700000000000000000);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (7, 'books', 'documentAdditionOrUpdate', 'processing', '{"receivedDocuments":2,"indexedDocuments":null}', NULL, NULL, 'the client''s', 1700000000000000000, 1700000000000000000, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (8, 'books', 'documentAdditionOrUpdate', 'enqueued', '{"receivedDocuments":2,"indexedDocuments":null}', NULL, NULL, 'the client''s', 1700000000000000000, NULL, NULL);
