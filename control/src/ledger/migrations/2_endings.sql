-- How a task ends, from the transaction on that applies its outcome: JSON.
ALTER TABLE intents ADD COLUMN ending TEXT;
-- Changes under way that have no task: JSON.
CREATE TABLE steps (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
