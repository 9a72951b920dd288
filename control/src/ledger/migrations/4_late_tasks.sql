-- How far each node's tasks have been examined: all below `next`. `anchor` is the newest one that was seen, JSON.
CREATE TABLE examined (node TEXT PRIMARY KEY, next INTEGER NOT NULL, anchor TEXT) STRICT;
-- Parts of decided writes that a node has not taken, and may still take; shards: JSON.
CREATE TABLE missed (uid INTEGER NOT NULL, node TEXT NOT NULL, shards TEXT NOT NULL, PRIMARY KEY (uid, node)) STRICT;
