//! How a node handles its queue.

use super::{
    DiskTrouble, Document, Node, NodeIndex, NodeTask, Work,
    documents::{Filter, id_text},
    error_object, index_not_found,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// How many tasks a batch has at most.
const BATCH: usize = 8;

/// The end of a task: its details, or its error.
type End = Result<Value, Value>;

/// Whether a task changes documents, so that it is batched with its neighbours.
fn is_document_work(work: &Work) -> bool {
    matches!(work, Work::Add { .. } | Work::Delete { .. } | Work::DeleteByFilter { .. } | Work::DeleteAll)
}

impl Node {
    /// Takes the next batch out of the queue. False if there is nothing to do.
    pub fn begin_batch(&mut self, now: i64) -> bool {
        if !self.batch.is_empty() || !self.is_up {
            return false;
        }
        let queued = || self.tasks.values().filter(|task| task.status == "enqueued");
        let canceling = queued().find(|task| matches!(task.work, Work::Cancel { .. }));
        let Some(first) = canceling.or_else(|| queued().next()) else { return false };
        let is_alike = |task: &&NodeTask| {
            task.uid == first.uid
                || (is_document_work(&first.work)
                    && is_document_work(&task.work)
                    && task.index == first.index)
        };
        let batch = queued().skip_while(|task| task.uid != first.uid).take_while(is_alike).take(BATCH);
        self.batch = batch.map(|task| task.uid).collect();
        for uid in &self.batch {
            let task = self.tasks.get_mut(uid).expect("it is queued");
            task.status = "processing";
            task.started_at = Some(now);
        }
        true
    }

    /// Ends the batch that is being processed. Returns its tasks.
    pub fn end_batch(&mut self, now: i64) -> Vec<u32> {
        let batch = std::mem::take(&mut self.batch);
        for &uid in &batch {
            let task = self.tasks[&uid].clone();
            let ended = if self.disk == DiskTrouble::FailsTasks && !matches!(task.work, Work::Cancel { .. }) {
                Err(error_object("internal", "internal", "MDB_MAP_FULL or no space left on device"))
            } else {
                self.execute(&task, now)
            };
            let task = self.tasks.get_mut(&uid).expect("it was processed");
            task.finished_at = Some(now);
            match ended {
                Ok(details) => {
                    task.status = "succeeded";
                    task.details = details;
                }
                Err(error) => {
                    task.status = "failed";
                    task.error = Some(error);
                }
            }
        }
        batch
    }

    pub(super) fn execute(&mut self, task: &NodeTask, now: i64) -> End {
        let uid = task.index.clone().unwrap_or_default();
        let mut details = task.details.clone();
        match &task.work {
            Work::Create { primary_key } => {
                if self.indexes.contains_key(&uid) {
                    return Err(index_already_exists(&uid));
                }
                let index = NodeIndex { primary_key: primary_key.clone(), ..self.new_index() };
                self.indexes.insert(uid, index);
                Ok(details)
            }
            Work::DeleteIndex => match self.indexes.remove(&uid) {
                Some(index) => {
                    details["deletedDocuments"] = json!(index.documents.len());
                    Ok(details)
                }
                None => Err(index_not_found(&uid)),
            },
            Work::Update { primary_key, rename } => {
                self.update(&uid, primary_key.as_deref(), rename.as_deref()).map(|()| details)
            }
            Work::Swap { pairs } => self.swap_all(pairs).map(|()| details),
            Work::Settings { change } => {
                let new = self.new_index();
                let index = self.indexes.entry(uid).or_insert(new);
                merge_settings(&mut index.settings, change);
                Ok(details)
            }
            Work::Add { documents, update, skip_creation, primary_key } => {
                self.add(&uid, documents, *update, *skip_creation, primary_key.as_deref())?;
                details["indexedDocuments"] = json!(documents.len());
                Ok(details)
            }
            Work::Delete { ids } => {
                let index = self.indexes.get_mut(&uid).ok_or_else(|| index_not_found(&uid))?;
                let before = index.documents.len();
                ids.iter().for_each(|id| drop(index.documents.remove(id)));
                details["deletedDocuments"] = json!(before - index.documents.len());
                Ok(details)
            }
            Work::DeleteByFilter { filter } => {
                let index = self.indexes.get_mut(&uid).ok_or_else(|| index_not_found(&uid))?;
                let filter = checked(filter, index)?;
                let before = index.documents.len();
                index.documents.retain(|_, document| !filter.finds(document));
                details["deletedDocuments"] = json!(before - index.documents.len());
                Ok(details)
            }
            Work::DeleteAll => {
                let index = self.indexes.get_mut(&uid).ok_or_else(|| index_not_found(&uid))?;
                details["deletedDocuments"] = json!(index.documents.len());
                index.documents.clear();
                Ok(details)
            }
            Work::Edit { filter, field, value, is_trial } => {
                let index = self.indexes.get_mut(&uid).ok_or_else(|| index_not_found(&uid))?;
                let filter = checked(filter.as_ref().unwrap_or(&Value::Null), index)?;
                let mut edited = 0;
                for document in index.documents.values_mut().filter(|document| filter.finds(document)) {
                    edited += 1;
                    if !is_trial {
                        document.insert(field.clone(), value.clone());
                    }
                }
                if !is_trial && edited > 0 {
                    index.fields.insert(field.clone());
                }
                details["editedDocuments"] = json!(edited);
                details["deletedDocuments"] = json!(0);
                Ok(details)
            }
            Work::Cancel { uids } => {
                let mut canceled = 0;
                for uid in uids {
                    if let Some(other) = self.tasks.get_mut(uid).filter(|task| task.status == "enqueued") {
                        other.status = "canceled";
                        other.canceled_by = Some(task.uid);
                        other.finished_at = Some(now);
                        canceled += 1;
                    }
                }
                details["canceledTasks"] = json!(canceled);
                Ok(details)
            }
        }
    }

    fn update(&mut self, uid: &str, key: Option<&str>, rename: Option<&str>) -> Result<(), Value> {
        let mut name = uid.to_owned();
        if !self.indexes.contains_key(uid) {
            return Err(index_not_found(uid));
        }
        // As Meilisearch does: the name before the key.
        if let Some(rename) = rename.filter(|rename| *rename != uid) {
            if self.indexes.contains_key(rename) {
                return Err(index_already_exists(rename));
            }
            let index = self.indexes.remove(uid).expect("it is there");
            self.indexes.insert(rename.to_owned(), index);
            name = rename.to_owned();
        }
        let index = self.indexes.get_mut(&name).expect("it is there");
        match key {
            Some(key) if index.primary_key.as_deref() != Some(key) && !index.documents.is_empty() => {
                Err(primary_key_exists(&name))
            }
            Some(key) => {
                index.primary_key = Some(key.to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn new_index(&mut self) -> NodeIndex {
        self.created += 1;
        NodeIndex { created: self.created, ..NodeIndex::default() }
    }

    fn swap_all(&mut self, pairs: &[(String, String)]) -> Result<(), Value> {
        for name in pairs.iter().flat_map(|(left, right)| [left, right]) {
            if !self.indexes.contains_key(name) {
                return Err(index_not_found(name));
            }
        }
        for (left, right) in pairs {
            let (one, other) = (self.indexes.remove(left), self.indexes.remove(right));
            self.indexes.extend(one.map(|index| (right.clone(), index)));
            self.indexes.extend(other.map(|index| (left.clone(), index)));
        }
        Ok(())
    }

    fn add(
        &mut self,
        uid: &str,
        documents: &[Document],
        update: bool,
        skips: bool,
        key: Option<&str>,
    ) -> Result<(), Value> {
        let new = self.new_index();
        let index = self.indexes.entry(uid.to_owned()).or_insert(new);
        if let (Some(own), Some(key)) = (index.primary_key.as_deref(), key)
            && own != key
        {
            return Err(primary_key_exists(uid));
        }
        let inferred = || {
            let first = documents
                .first()
                .and_then(|first| first.keys().find(|name| name.to_lowercase().ends_with("id")));
            first.cloned()
        };
        let own = index.primary_key.clone().or_else(|| key.map(ToOwned::to_owned)).or_else(inferred);
        let Some(own) = own else {
            return Err(error_object(
                "invalid_request",
                "index_primary_key_no_candidate_found",
                "no primary key",
            ));
        };
        index.primary_key = Some(own.clone());
        for document in documents {
            let Some(id) = document.get(&own).map(id_text) else {
                return Err(error_object("invalid_request", "missing_document_id", "a document has no id"));
            };
            index.fields.extend(document.keys().cloned());
            match index.documents.get_mut(&id) {
                Some(there) if update => there.extend(document.clone()),
                Some(there) => there.clone_from(document),
                None if skips => {}
                None => drop(index.documents.insert(id, document.clone())),
            }
        }
        Ok(())
    }
}

/// A filter that an index can be filtered by.
fn checked(filter: &Value, index: &NodeIndex) -> Result<Filter, Value> {
    let read = Filter::read(filter).expect("a filter that a node has enqueued");
    match read.unfilterable(index) {
        Some(field) => {
            let message = format!("Attribute `{field}` is not filterable.");
            Err(error_object("invalid_request", "invalid_document_filter", &message))
        }
        None => Ok(read),
    }
}

fn merge_settings(settings: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (name, value) in change {
        match (value, settings.get_mut(name)) {
            (Value::Null, _) => drop(settings.remove(name)),
            (Value::Object(change), Some(Value::Object(there))) if name == "faceting" => {
                merge_settings(there, change)
            }
            (value, _) => drop(settings.insert(name.clone(), value.clone())),
        }
    }
}

fn index_already_exists(uid: &str) -> Value {
    error_object("invalid_request", "index_already_exists", &format!("Index `{uid}` already exists."))
}

fn primary_key_exists(uid: &str) -> Value {
    let message = format!("Index `{uid}`: Index already has a primary key.");
    error_object("invalid_request", "index_primary_key_already_exists", &message)
}

impl Node {
    /// Somebody else has it do many things: cancelations of nothing, which are over at once.
    pub fn add_own_tasks(&mut self, tasks: u64, now: i64) {
        for _ in 0..tasks {
            let (_, summary) = self.cancel_tasks(BTreeSet::new(), "?uids=4000000000", now);
            let uid =
                summary["taskUid"].as_u64().and_then(|uid| self.tasks.get_mut(&u32::try_from(uid).ok()?));
            if let Some(task) = uid {
                task.status = "succeeded";
                task.started_at = Some(now);
                task.finished_at = Some(now);
            }
        }
    }
}
