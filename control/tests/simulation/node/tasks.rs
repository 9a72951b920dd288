//! A node's list of tasks.

use super::{Node, NodeReply, NodeTask, error, moment};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl NodeTask {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        ["succeeded", "failed", "canceled"].contains(&self.status)
    }

    fn view(&self) -> Value {
        let mut view = json!({
            "uid": self.uid,
            "batchUid": self.started_at.map(|_| self.uid),
            "indexUid": self.index,
            "status": self.status,
            "type": self.kind,
            "canceledBy": self.canceled_by,
            "details": self.details,
            "error": self.error,
            "duration": null,
            "enqueuedAt": moment(self.enqueued_at),
            "startedAt": self.started_at.map(moment),
            "finishedAt": self.finished_at.map(moment),
        });
        if let Some(metadata) = &self.metadata {
            view["customMetadata"] = json!(metadata);
        }
        view
    }
}

/// A list of tasks that is asked for.
#[derive(Default)]
struct Query {
    limit: Option<usize>,
    from: Option<u32>,
    reverse: bool,
    uids: Option<BTreeSet<u32>>,
    statuses: Option<Vec<String>>,
    kinds: Option<Vec<String>>,
    indexes: Option<Vec<String>>,
    after: Option<i64>,
    before: Option<i64>,
}

impl Query {
    /// Reads a query string; the name of a parameter that is not known is the error.
    fn read(query: &str) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let list = || Some(value.split(',').map(ToOwned::to_owned).collect());
            match &*name {
                "limit" => read.limit = value.parse().ok(),
                "from" => read.from = value.parse().ok(),
                "reverse" => read.reverse = value == "true",
                "uids" => read.uids = Some(value.split(',').filter_map(|uid| uid.parse().ok()).collect()),
                "statuses" => read.statuses = list(),
                "types" => read.kinds = list(),
                "indexUids" => read.indexes = list(),
                "afterEnqueuedAt" => read.after = miroir_control::base::time::parse(&value),
                "beforeEnqueuedAt" => read.before = miroir_control::base::time::parse(&value),
                name => return Err(name.to_owned()),
            }
        }
        Ok(read)
    }

    fn finds(&self, task: &NodeTask) -> bool {
        let among = |list: &Option<Vec<String>>, value: Option<&str>| {
            list.as_ref().is_none_or(|list| value.is_some_and(|value| list.iter().any(|one| one == value)))
        };
        self.uids.as_ref().is_none_or(|uids| uids.contains(&task.uid))
            && among(&self.statuses, Some(task.status))
            && among(&self.kinds, Some(task.kind))
            && among(&self.indexes, task.index.as_deref())
            && self.after.is_none_or(|after| task.enqueued_at > after)
            && self.before.is_none_or(|before| task.enqueued_at < before)
    }
}

impl Node {
    pub(super) fn task_list(&mut self, query: &str) -> NodeReply {
        let query = match Query::read(query) {
            Ok(query) => query,
            Err(name) => return self.not_known("GET", &format!("/tasks?{name}")),
        };
        let total = self.tasks.values().filter(|task| query.finds(task)).count();
        let reaches = |task: &&NodeTask| match (query.from, query.reverse) {
            (None, _) => true,
            (Some(from), true) => task.uid >= from,
            (Some(from), false) => task.uid <= from,
        };
        let limit = query.limit.unwrap_or(20);
        let found = self.tasks.values().filter(|task| query.finds(task)).filter(reaches);
        let mut page: Vec<&NodeTask> = if query.reverse {
            found.take(limit + 1).collect()
        } else {
            found.rev().take(limit + 1).collect()
        };
        let next = if page.len() > limit { page.pop().map(|task| task.uid) } else { None };
        let from = page.first().map(|task| task.uid);
        let results: Vec<Value> = page.into_iter().map(NodeTask::view).collect();
        (200, json!({"results": results, "total": total, "limit": limit, "from": from, "next": next}))
    }

    /// Batches by their uids: each has one task, whose uid is its own.
    pub(super) fn batches(&mut self, query: &str) -> NodeReply {
        let parameters: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let Some(uids) = parameters.get("batchUids") else {
            return self.not_known("GET", &format!("/batches?{query}"));
        };
        let task = |uid: &str| self.tasks.get(&uid.parse().ok()?).filter(|task| task.is_over());
        let batch = |task: &NodeTask| json!({"uid": task.uid, "startedAt": task.started_at.map(moment), "finishedAt": task.finished_at.map(moment)});
        let results: Vec<Value> = uids.split(',').filter_map(task).map(batch).collect();
        (200, json!({"results": results}))
    }

    pub(super) fn one_task(&self, uid: &str) -> NodeReply {
        match uid.parse().ok().and_then(|uid: u32| self.tasks.get(&uid)) {
            Some(task) => (200, task.view()),
            None => error(404, "invalid_request", "task_not_found", &format!("Task `{uid}` not found.")),
        }
    }

    /// The tasks of a cancelation's query.
    pub(super) fn selected(&self, query: &str) -> BTreeSet<u32> {
        let query = Query::read(query).unwrap_or_default();
        self.tasks.values().filter(|task| query.finds(task) && !task.is_over()).map(|task| task.uid).collect()
    }
}
