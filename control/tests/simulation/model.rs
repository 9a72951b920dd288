//! What one Meilisearch would have: all tasks of the ledger, one after another.

use super::plan::Action;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A document: its content, and whether a write that failed may have changed it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// `None` where there is none.
    pub content: Option<Map<String, Value>>,
    /// A write that failed may have changed it, or not.
    pub is_open: bool,
}

/// An index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelIndex {
    pub documents: BTreeMap<u64, Expected>,
    /// The number of the change of settings that was last.
    pub settings: Option<u64>,
}

/// One Meilisearch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub indexes: BTreeMap<String, ModelIndex>,
}

/// The indexes of which it is not known whether they are there: a write that failed may have created them, and others may have got
/// their names since.
pub fn unsure<'a>(failed: impl Iterator<Item = &'a Action>, all: &[&'a Action]) -> BTreeSet<String> {
    let of = |action: &Action| action.indexes().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut unsure: BTreeSet<String> = failed.filter(|action| action.may_create()).flat_map(of).collect();
    loop {
        let is_touched = |action: &&&Action| action.indexes().iter().any(|index| unsure.contains(*index));
        let more: BTreeSet<String> = all
            .iter()
            .filter(is_touched)
            .flat_map(|action| of(action))
            .chain(unsure.iter().cloned())
            .collect();
        if more == unsure {
            return unsure;
        }
        unsure = more;
    }
}

/// The body of a document that a step writes.
pub fn document(id: u64, step: u64, update: bool) -> Map<String, Value> {
    let mut document = json!({"id": id, "group": id % 3, "by": step});
    if update {
        document["updated"] = json!(step);
    }
    document.as_object().cloned().unwrap_or_default()
}

/// The settings that a step sets.
pub fn settings(step: u64) -> Value {
    json!({"filterableAttributes": ["group"], "stopWords": [format!("word{step}")]})
}

impl Model {
    /// What a task does that has succeeded. False if it could not succeed.
    pub fn apply(&mut self, action: &Action, step: u64) -> bool {
        match action {
            Action::Add { index, ids, update } => self.add(index, ids, *update, step),
            Action::AddWithKey { index, ids, .. } | Action::Unauthorized { index, ids } => {
                self.add(index, ids, false, step)
            }
            Action::Delete { index, ids } => {
                self.each(index, |id, _| ids.contains(&id), |expected| *expected = Expected::default())
            }
            Action::DeleteGroup { index, group } => {
                self.has_group(index)
                    && self.each(index, |id, _| id % 3 == *group, |expected| *expected = Expected::default())
            }
            Action::DeleteAll { index } => {
                self.each(index, |_, _| true, |expected| *expected = Expected::default())
            }
            Action::Edit { index, group } => {
                self.has_group(index)
                    && self.each(
                        index,
                        |id, _| id % 3 == *group,
                        |expected| {
                            let content = expected.content.as_mut();
                            content
                                .into_iter()
                                .for_each(|content| drop(content.insert("set_by_edit".into(), json!(step))));
                        },
                    )
            }
            Action::Create { index } => {
                let is_new = !self.indexes.contains_key(index);
                self.indexes.entry(index.clone()).or_default();
                is_new
            }
            Action::DeleteIndex { index } => self.indexes.remove(index).is_some(),
            Action::Swap { left, right } => {
                let (Some(one), Some(other)) =
                    (self.indexes.get(left).cloned(), self.indexes.get(right).cloned())
                else {
                    return false;
                };
                self.indexes.insert(right.clone(), one);
                self.indexes.insert(left.clone(), other);
                true
            }
            Action::Rename { index, to } => {
                if self.indexes.contains_key(to) {
                    return false;
                }
                let Some(renamed) = self.indexes.remove(index) else { return false };
                self.indexes.insert(to.clone(), renamed);
                true
            }
            Action::Settings { index } => {
                self.indexes.entry(index.clone()).or_default().settings = Some(step);
                true
            }
            _ => true,
        }
    }

    /// What a task has done that has succeeded. Where it is not known which indexes were there, those were that it needs. False if it
    /// could not succeed.
    pub fn apply_done(&mut self, action: &Action, step: u64, is_sure: bool) -> bool {
        let needed = match action {
            Action::Swap { .. } => action.indexes(),
            Action::Rename { index, .. } => vec![index.as_str()],
            _ => Vec::new(),
        };
        for index in needed.into_iter().filter(|_| !is_sure) {
            self.indexes.entry(index.to_owned()).or_default();
        }
        self.apply(action, step) || !is_sure
    }

    /// A write that has failed, and of which some shards may have been written, if it concerns several.
    pub fn may_have(&mut self, action: &Action) {
        let mut open = |index: &String, ids: &mut dyn Iterator<Item = u64>| {
            if action.may_create() {
                self.indexes.entry(index.clone()).or_default();
            }
            if let Some(index) = self.indexes.get_mut(index).filter(|_| !action.is_of_one_document()) {
                ids.for_each(|id| index.documents.entry(id).or_default().is_open = true);
            }
        };
        match action {
            Action::Add { index, ids, .. }
            | Action::AddWithKey { index, ids, .. }
            | Action::Delete { index, ids } => {
                open(index, &mut ids.iter().copied());
            }
            Action::DeleteGroup { index, group } | Action::Edit { index, group } => {
                open(index, &mut (0..10).filter(|id| id % 3 == *group));
            }
            Action::DeleteAll { index } => open(index, &mut (0..10)),
            _ => {}
        }
    }

    fn has_group(&self, index: &str) -> bool {
        self.indexes.get(index).is_some_and(|index| index.settings.is_some())
    }

    fn add(&mut self, index: &str, ids: &[u64], update: bool, step: u64) -> bool {
        let documents = &mut self.indexes.entry(index.to_owned()).or_default().documents;
        for id in ids {
            let new = document(*id, step, update);
            let expected = documents.entry(*id).or_default();
            match &mut expected.content {
                Some(content) if update => content.extend(new),
                _ => expected.content = Some(new),
            }
            expected.is_open &= update;
        }
        true
    }

    fn each(
        &mut self,
        index: &str,
        is: impl Fn(u64, &Expected) -> bool,
        change: impl Fn(&mut Expected),
    ) -> bool {
        let Some(index) = self.indexes.get_mut(index) else { return false };
        index
            .documents
            .iter_mut()
            .filter(|(id, expected)| is(**id, expected))
            .for_each(|(_, expected)| change(expected));
        true
    }
}
