-- Lists of tasks by what clients restrict them to. An index ends in the row's uid, so each gives its tasks in the order of lists.
CREATE INDEX tasks_by_index_status_type ON tasks (index_uid, status, type);
CREATE INDEX tasks_by_type_status ON tasks (type, status);
CREATE INDEX tasks_by_canceled_by ON tasks (canceled_by) WHERE canceled_by IS NOT NULL;
CREATE INDEX tasks_by_enqueued_at ON tasks (enqueued_at);
CREATE INDEX tasks_by_started_at ON tasks (started_at);
CREATE INDEX tasks_by_finished_at ON tasks (finished_at);
