//! A node's list of tasks.

use super::{Node, NodeReply, NodeTask, NodeText, error, moment};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    ops::RangeBounds,
};

impl NodeTask {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        ["succeeded", "failed", "canceled"].contains(&self.status)
    }

    /// The task's object, written without its parts: lists of tasks are what nodes are asked for most.
    fn view(&self) -> String {
        let number = |number: Option<u32>| number.map_or("null".to_owned(), |number| number.to_string());
        let text = |text: Option<&str>| text.map_or("null".to_owned(), |text| Value::from(text).to_string());
        let at = |at: Option<i64>| at.map_or("null".to_owned(), |at| format!("\"{}\"", moment(at)));
        let mut view = format!(
            r#"{{"uid":{},"batchUid":{},"indexUid":{},"status":"{}","type":"{}","canceledBy":{},"details":{},"error":{}"#,
            self.uid,
            number(self.started_at.map(|_| self.uid)),
            text(self.index.as_deref()),
            self.status,
            self.kind,
            number(self.canceled_by),
            self.details,
            self.error.as_ref().unwrap_or(&Value::Null),
        );
        let (enqueued, started, finished) =
            (at(Some(self.enqueued_at)), at(self.started_at), at(self.finished_at));
        let _ = write!(
            view,
            r#","duration":null,"enqueuedAt":{enqueued},"startedAt":{started},"finishedAt":{finished}"#
        );
        if let Some(metadata) = &self.metadata {
            let _ = write!(view, r#","customMetadata":{}"#, text(Some(metadata)));
        }
        view.push('}');
        view
    }
}

/// The most tasks of a page, where tasks are not asked for by their uids. Meilisearch gives as many as it is asked for: so few have
/// histories need more than one page.
const PAGE: usize = 20;

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

    /// Whether it is about all tasks.
    fn is_about_all(&self) -> bool {
        let Self { uids, statuses, kinds, indexes, after, before, limit: _, from: _, reverse: _ } = self;
        uids.is_none()
            && statuses.is_none()
            && kinds.is_none()
            && indexes.is_none()
            && after.is_none()
            && before.is_none()
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
    pub(super) fn task_list(&mut self, query: &str) -> NodeText {
        let query = match Query::read(query) {
            Ok(query) => query,
            Err(name) => {
                let (status, body) = self.not_known("GET", &format!("/tasks?{name}"));
                return (status, body.to_string());
            }
        };
        let total = if query.is_about_all() { self.tasks.len() } else { self.found(&query, ..).count() };
        let asked = query.limit.unwrap_or(20);
        let limit = if query.uids.is_some() { asked } else { asked.min(PAGE) };
        let mut page: Vec<&NodeTask> = match (query.from, query.reverse) {
            (from, true) => self.found(&query, from.unwrap_or(0)..).take(limit + 1).collect(),
            (from, false) => self.found(&query, ..=from.unwrap_or(u32::MAX)).rev().take(limit + 1).collect(),
        };
        let next = if page.len() > limit { page.pop().map(|task| task.uid) } else { None };
        let from = page.first().map(|task| task.uid);
        let results: Vec<String> = page.into_iter().map(NodeTask::view).collect();
        let results = results.join(",");
        let (from, next) = (json!(from), json!(next));
        (
            200,
            format!(
                r#"{{"results":[{results}],"total":{total},"limit":{limit},"from":{from},"next":{next}}}"#
            ),
        )
    }

    /// The tasks with uids of this range that a query is about.
    fn found<'a>(
        &'a self,
        query: &'a Query,
        range: impl RangeBounds<u32> + Clone + 'a,
    ) -> Box<dyn DoubleEndedIterator<Item = &'a NodeTask> + 'a> {
        let finds = |task: &&NodeTask| query.finds(task);
        match &query.uids {
            Some(uids) => {
                let known = uids.range(range).filter_map(|uid| self.tasks.get(uid));
                Box::new(known.filter(finds))
            }
            None => Box::new(self.tasks.range(range).map(|(_, task)| task).filter(finds)),
        }
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
            Some(task) => (200, task.view().parse().expect("a task is JSON")),
            None => error(404, "invalid_request", "task_not_found", &format!("Task `{uid}` not found.")),
        }
    }

    /// The tasks of a cancelation's query.
    pub(super) fn selected(&self, query: &str) -> BTreeSet<u32> {
        let query = Query::read(query).unwrap_or_default();
        self.found(&query, ..).filter(|task| !task.is_over()).map(|task| task.uid).collect()
    }
}
