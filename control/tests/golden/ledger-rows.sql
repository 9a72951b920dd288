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
INSERT INTO behind (node) VALUES ('b');
INSERT INTO epochs (key_uid, gateway, state) VALUES ('00000000-0000-0000-0000-000000000000', 'g', 'live');
INSERT INTO epochs (key_uid, gateway, state) VALUES ('00000000-0000-0000-0000-000000000001', 'mover/a', 'fenced');
INSERT INTO fields (index_uid, position, name) VALUES ('movies', 0, 'id');
INSERT INTO fields (index_uid, position, name) VALUES ('movies', 1, 'title''s');
INSERT INTO indexes (uid, primary_key, created_at, updated_at) VALUES ('books', NULL, 5, 6);
INSERT INTO indexes (uid, primary_key, created_at, updated_at) VALUES ('movies', 'id', 5, 6);
INSERT INTO intents (uid, state, body, ending) VALUES (0, 'sent', '{"kind":"write","gateway":"g","index":"movies","operation":{"kind":"addDocuments","update":true,"documents":3,"distinct":2,"requestedPrimaryKey":"id","primaryKey":"id","assumed":true,"failure":{"message":"m","code":"c","type":"k","link":"l"}},"writers":[[0,["a","b"]],[1,["a"]]],"begun":"begun"}', '{"status":"canceled","details":{"indexedDocuments":3},"error":null,"startedAt":11,"finishedAt":12}');
INSERT INTO intents (uid, state, body, ending) VALUES (10, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"settings","index":"movies","change":{"stopWords":null},"creates":true},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (11, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"settings","index":"movies","change":null,"creates":false},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (12, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"swap","pairs":[["movies","films",false],["a","b",true]]},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (13, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"rules","change":{"change":"update","uid":"r","body":{"active":false}}},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (14, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"rules","change":{"change":"delete","uid":"r"}},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (15, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"rules","change":{"change":"clear"}},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (16, 'open', '{"kind":"export","export":{"url":"http://other","apiKey":"k","payloadSize":"1 MiB","indexes":{"*":{"filter":null,"overrideSettings":false},"movies*":{"filter":"a = 1","overrideSettings":true}}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (17, 'open', '{"kind":"export","export":{"url":"http://other","apiKey":null,"payloadSize":null,"indexes":null}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (4, 'open', '{"kind":"write","gateway":"g","index":"movies","operation":{"kind":"deleteByFilter","filter":["a = 1",["b = 2"]]},"writers":[[0,["a","b"]],[1,["a"]]],"begun":"begun"}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (5, 'open', '{"kind":"write","gateway":"g","index":"movies","operation":{"kind":"edit","filter":"a = 1","context":{"x":1},"function":"doc"},"writers":[[0,["a","b"]],[1,["a"]]],"begun":"begun"}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (6, 'open', '{"kind":"write","gateway":"g","index":"movies","operation":{"kind":"deleteAll"},"writers":[[0,["a","b"]],[1,["a"]]],"begun":"begun"}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (7, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"none"},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (8, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"updateIndex","index":"movies","primaryKey":"id","rename":"films"},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO intents (uid, state, body, ending) VALUES (9, 'open', '{"kind":"broadcast","requests":[{"method":"PATCH","path":"/indexes/a%2Fb/settings","body":null,"main":true},{"method":"POST","path":"/indexes/x?customMetadata=y","body":{"uid":"x"},"main":false}],"effect":{"kind":"updateIndex","index":"movies","primaryKey":null,"rename":null},"atOnce":{"kind":"created","index":"x","primaryKey":null},"newest":{"a":7,"b":null},"created":{"a":{"x":"2026-01-01T00:00:00.000000001Z"}}}', NULL);
INSERT INTO leases (vm) VALUES ('vm-1');
INSERT INTO leases (vm) VALUES ('vm-2');
INSERT INTO meta (key, value) VALUES ('chatCompletions', '{"w":{"orgId":"o"}}');
INSERT INTO meta (key, value) VALUES ('desired', '[["a","b"],["c"]]');
INSERT INTO meta (key, value) VALUES ('floor', '4');
INSERT INTO meta (key, value) VALUES ('keys', 'equal');
INSERT INTO meta (key, value) VALUES ('leases', 'known');
INSERT INTO meta (key, value) VALUES ('legacy_search', 'true');
INSERT INTO meta (key, value) VALUES ('network', '{"self":"here","remotes":{"b":{"url":"http://b"}},"shards":{}}');
INSERT INTO meta (key, value) VALUES ('next_task', '18');
INSERT INTO meta (key, value) VALUES ('nodes', '[{"name":"a","url":"http://a.example:7700/","cluster":"to-a","weight":2,"zone":"z","since":3,"draining":false,"leaving":false},{"name":"b","url":"http://b.example:7700/","cluster":"to-b","weight":2,"zone":"z","since":3,"draining":true,"leaving":false},{"name":"c","url":"http://c.example:7700/","cluster":"to-c","weight":2,"zone":"z","since":3,"draining":true,"leaving":true}]');
INSERT INTO meta (key, value) VALUES ('pace', '{"documentsPerSecond":5}');
INSERT INTO meta (key, value) VALUES ('publisher', 'p');
INSERT INTO meta (key, value) VALUES ('read_key', '00000000-0000-0000-0000-000000000009');
INSERT INTO meta (key, value) VALUES ('replication', '2');
INSERT INTO meta (key, value) VALUES ('rules', '[{"uid":"r","place":0,"body":{"precedence":1}}]');
INSERT INTO meta (key, value) VALUES ('server_name', 'here');
INSERT INTO meta (key, value) VALUES ('shards', '2');
INSERT INTO meta (key, value) VALUES ('stale_by_index', 'true');
INSERT INTO meta (key, value) VALUES ('version', '9');
INSERT INTO missed_documents (index_uid, node, shard, id) VALUES ('movies', 'a', 0, '1');
INSERT INTO missed_documents (index_uid, node, shard, id) VALUES ('movies', 'a', 0, 'it''s');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'a', 7, 'main', '[0,1]', 'enqueued');
INSERT INTO node_tasks (uid, node, node_task, step, shards, state) VALUES (0, 'b', 7, 'extra', '[]', 'interrupted');
INSERT INTO placement (shard, position, node, state) VALUES (0, 0, 'a', 'active');
INSERT INTO placement (shard, position, node, state) VALUES (0, 1, 'b', 'stale');
INSERT INTO placement (shard, position, node, state) VALUES (1, 0, 'a', 'leaving:8');
INSERT INTO placement (shard, position, node, state) VALUES (1, 1, 'b', 'missed:7');
INSERT INTO placement (shard, position, node, state) VALUES (1, 2, 'c', 'removing');
INSERT INTO settings (index_uid, body) VALUES ('movies', '{"rankingRules":["sort"],"synonyms":{"a":["b"]}}');
INSERT INTO stale (index_uid, node, shard, missed) VALUES ('books', 'a', 0, 'anything');
INSERT INTO stale (index_uid, node, shard, missed) VALUES ('movies', 'a', 0, 'recorded');
INSERT INTO steps (id, body) VALUES (1, '{"kind":"instance","method":"POST","path":"/keys","body":"{\"uid\":\"x\"}","kept":"nothing"}');
INSERT INTO steps (id, body) VALUES (2, '{"kind":"instance","method":"POST","path":"/keys","body":"{\"uid\":\"x\"}","kept":"network"}');
INSERT INTO steps (id, body) VALUES (3, '{"kind":"instance","method":"POST","path":"/keys","body":"{\"uid\":\"x\"}","kept":{"workspace":"w"}}');
INSERT INTO steps (id, body) VALUES (4, '{"kind":"instance","method":"POST","path":"/keys","body":"{\"uid\":\"x\"}","kept":{"noWorkspace":"w"}}');
INSERT INTO steps (id, body) VALUES (5, '{"kind":"index","index":"movies","primaryKey":"id"}');
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (0, 'movies', 'documentAdditionOrUpdate', 'processing', '{"receivedDocuments":3}', NULL, NULL, 'the client''s', 1700000000000000000, 10, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (1, NULL, 'documentDeletion', 'succeeded', '{"indexedDocuments":3}', NULL, NULL, NULL, 1700000000000000000, 11, 12);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (10, 'movies', 'indexSwap', 'enqueued', NULL, NULL, NULL, 'the client''s', 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (11, NULL, 'indexUpdate', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (12, 'movies', 'settingsUpdate', 'enqueued', '{"receivedDocuments":3}', NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (13, NULL, 'snapshotCreation', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (14, 'movies', 'documentAdditionOrUpdate', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (15, NULL, 'documentDeletion', 'enqueued', '{"receivedDocuments":3}', NULL, NULL, 'the client''s', 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (16, 'movies', 'documentEdition', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (17, NULL, 'dsrClear', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (2, 'movies', 'documentEdition', 'failed', '{"indexedDocuments":3}', '{"message":"m","code":"c","type":"k","link":"l"}', NULL, NULL, 1700000000000000000, 11, 12);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (3, NULL, 'dsrClear', 'canceled', '{"indexedDocuments":3}', NULL, 4, NULL, 1700000000000000000, 11, 12);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (4, 'movies', 'dsrUpdate', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (5, NULL, 'dumpCreation', 'enqueued', NULL, NULL, NULL, 'the client''s', 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (6, 'movies', 'export', 'enqueued', '{"receivedDocuments":3}', NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (7, NULL, 'indexCompaction', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (8, 'movies', 'indexCreation', 'enqueued', NULL, NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO tasks (uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, started_at, finished_at) VALUES (9, NULL, 'indexDeletion', 'enqueued', '{"receivedDocuments":3}', NULL, NULL, NULL, 1700000000000000000, NULL, NULL);
INSERT INTO untold_tasks (uid) VALUES (1);
INSERT INTO untold_tasks (uid) VALUES (2);
INSERT INTO untold_tasks (uid) VALUES (3);
INSERT INTO webhooks (uuid, url, headers) VALUES ('00000000-0000-0000-0000-000000000007', 'https://example.com/', '{"authorization":"Bearer x"}');
