-- Active replicas that miss something of an index: 'recorded' where `missed_documents` has the ids, or 'anything'.
CREATE TABLE stale (
    index_uid TEXT NOT NULL, node TEXT NOT NULL, shard INTEGER NOT NULL, missed TEXT NOT NULL,
    PRIMARY KEY (index_uid, node, shard)
) STRICT;
-- The ids of documents that were written or deleted since a replica missed something for the first time.
CREATE TABLE missed_documents (
    index_uid TEXT NOT NULL, node TEXT NOT NULL, shard INTEGER NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (index_uid, node, shard, id)
) STRICT;
