//! What one Meilisearch would hold: tasks replayed in the order of their uids.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A document without its id: its version, and how many edits it has seen.
pub type Version = (u64, u64);

/// What a task does to an index if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The index's uid.
    pub index: String,
    /// What is done to it.
    pub action: Action,
}

impl Change {
    /// The ids of the documents that it names; none if it changes the whole index.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        match &self.action {
            Action::Put(documents) | Action::Update(documents) => {
                documents.iter().map(|(id, _)| id.as_str()).collect()
            }
            Action::Delete(ids) => ids.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The same with the names of two indexes exchanged.
    #[must_use]
    pub fn exchanged(self, names: [&str; 2]) -> Self {
        let other = |name: String| match names.iter().position(|other| **other == name) {
            Some(place) => names[1 - place].to_owned(),
            None => name,
        };
        let action = match self.action {
            Action::Swap(with) => Action::Swap(other(with)),
            action => action,
        };
        Self { index: other(self.index), action }
    }
}

/// What is done to an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Documents are replaced, by id and version.
    Put(Vec<(String, u64)>),
    /// Documents get a version, and keep their other fields.
    Update(Vec<(String, u64)>),
    /// Documents are deleted.
    Delete(Vec<String>),
    /// Each document is counted up.
    Edit,
    /// It is created.
    Create,
    /// It is deleted.
    Remove,
    /// It is swapped with another.
    Swap(String),
    /// `word` gets this synonym, and no other.
    Settings(String),
}

impl Action {
    /// On an index.
    #[must_use]
    pub fn on(self, index: &str) -> Change {
        Change { index: index.to_owned(), action: self }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it is done.
    Succeeded,
    /// None of it is done, or a part of a write of several documents.
    Failed,
}

/// An index: the states that each document may have, and the value of the setting that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    documents: BTreeMap<String, BTreeSet<Option<Version>>>,
    /// The synonym of `word`.
    pub synonym: Option<String>,
}

impl Index {
    /// Changes one document. If that is not certain, the document may also be as before.
    fn change(&mut self, id: &str, is_certain: bool, change: impl Fn(Option<Version>) -> Option<Version>) {
        let states = self.documents.entry(id.to_owned()).or_insert_with(|| [None].into());
        let mut changed: BTreeSet<_> = states.iter().map(|state| change(*state)).collect();
        if !is_certain {
            changed.append(states);
        }
        *states = changed;
    }

    /// The documents that the index may not hold as it does, and why.
    #[must_use]
    pub fn differs(&self, held: &BTreeMap<String, Version>) -> Vec<(String, String)> {
        let ids: BTreeSet<&String> = self.documents.keys().chain(held.keys()).collect();
        let none = [None].into();
        let differing = ids.into_iter().filter_map(|id| {
            let (is, may_be) = (held.get(id).copied(), self.documents.get(id).unwrap_or(&none));
            (!may_be.contains(&is)).then(|| (id.clone(), format!("{is:?} is held instead of {may_be:?}")))
        });
        differing.collect()
    }
}

/// All indexes. There may be more of them, without documents: a write that fails may have created its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// By uid.
    pub indexes: BTreeMap<String, Index>,
}

impl Model {
    /// Adds what a task has done.
    ///
    /// # Errors
    /// The task cannot have ended so.
    pub fn apply(&mut self, Change { index, action }: &Change, end: End) -> Result<(), String> {
        match action {
            Action::Put(documents) => {
                self.write(index, documents, end, |_, version| Some((version, 0)));
            }
            Action::Update(documents) => {
                let edits = |before: Option<Version>| before.map_or(0, |(_, edits)| edits);
                self.write(index, documents, end, |before, version| Some((version, edits(before))));
            }
            Action::Delete(ids) => {
                let ids: Vec<_> = ids.iter().map(|id| (id.clone(), 0)).collect();
                self.write(index, &ids, end, |_, _| None);
            }
            // The other operations are done as a whole, or not at all.
            _ if end == End::Failed => {}
            Action::Edit => {
                let index = self.index(index);
                let ids: Vec<String> = index.documents.keys().cloned().collect();
                let count = |before: Option<Version>| before.map(|(version, edits)| (version, edits + 1));
                ids.iter().for_each(|id| index.change(id, true, count));
            }
            Action::Create => {
                if self.indexes.insert(index.clone(), Index::default()).is_some() {
                    return Err("there was such an index".to_owned());
                }
            }
            Action::Remove => _ = self.indexes.remove(index),
            Action::Swap(other) => {
                let [one, two] = [index, other].map(|name| self.indexes.remove(name).unwrap_or_default());
                self.indexes.insert(index.clone(), two);
                self.indexes.insert(other.clone(), one);
            }
            Action::Settings(synonym) => self.index(index).synonym = Some(synonym.clone()),
        }
        Ok(())
    }

    /// An index. If it is not there, a write that failed may have created it.
    fn index(&mut self, name: &str) -> &mut Index {
        self.indexes.entry(name.to_owned()).or_default()
    }

    /// A write of one document that failed has not been done. One of several documents may have been done for some: those shards that
    /// took it keep it.
    fn write(
        &mut self,
        index: &str,
        documents: &[(String, u64)],
        end: End,
        change: impl Fn(Option<Version>, u64) -> Option<Version>,
    ) {
        let has_succeeded = end == End::Succeeded;
        if !has_succeeded && (documents.len() < 2 || !self.indexes.contains_key(index)) {
            return;
        }
        let index = self.index(index);
        for (id, version) in documents {
            index.change(id, has_succeeded, |before| change(before, *version));
        }
    }
}

/// What a task of a whole index does, from the task itself. `None` for a write of documents.
#[must_use]
pub fn change_of(task: &Value) -> Option<Change> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (index, details) = (text(&task["indexUid"]), &task["details"]);
    Some(match task["type"].as_str()? {
        "indexCreation" => Action::Create.on(&index),
        "indexDeletion" => Action::Remove.on(&index),
        "indexSwap" => {
            let indexes = &details["swaps"][0]["indexes"];
            Action::Swap(text(&indexes[1])).on(&text(&indexes[0]))
        }
        "settingsUpdate" => Action::Settings(text(&details["synonyms"]["word"][0])).on(&index),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Action, End, Model, Version};
    use std::collections::BTreeMap;

    fn put(ids: &[&str], version: u64) -> Action {
        Action::Put(ids.iter().map(|id| ((*id).to_owned(), version)).collect())
    }

    fn after(changes: &[(&str, Action, End)]) -> Model {
        let mut model = Model::default();
        for (index, action, end) in changes {
            model.apply(&action.clone().on(index), *end).unwrap();
        }
        model
    }

    /// The ids of documents that are not as the model says.
    fn differing(model: &Model, index: &str, held: &[(&str, Version)]) -> Vec<String> {
        let held: BTreeMap<_, _> = held.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect();
        model.indexes[index].differs(&held).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn what_has_succeeded_is_held_and_what_has_failed_is_not() {
        let model =
            after(&[("left", put(&["a", "b"], 1), End::Succeeded), ("left", put(&["a"], 2), End::Failed)]);
        assert_eq!(differing(&model, "left", &[("a", (1, 0)), ("b", (1, 0))]), [""; 0]);
        assert_eq!(differing(&model, "left", &[("a", (2, 0)), ("c", (1, 0))]), ["a", "b", "c"]);
    }

    #[test]
    fn a_part_of_a_failed_write_may_be_done() {
        let model =
            after(&[("left", put(&["a"], 1), End::Succeeded), ("left", put(&["a", "b"], 2), End::Failed)]);
        for held in [vec![("a", (1, 0))], vec![("a", (2, 0))], vec![("a", (1, 0)), ("b", (2, 0))]] {
            assert_eq!(differing(&model, "left", &held), [""; 0]);
        }
        assert_eq!(differing(&model, "left", &[("a", (1, 0)), ("b", (1, 0))]), ["b"]);
    }

    #[test]
    fn documents_and_settings_go_where_their_index_goes() {
        let mut model = after(&[
            ("left", put(&["a"], 1), End::Succeeded),
            ("left", Action::Settings("s".to_owned()), End::Succeeded),
            ("left", Action::Swap("right".to_owned()), End::Succeeded),
            ("left", Action::Swap("right".to_owned()), End::Failed),
            ("right", Action::Edit, End::Succeeded),
            ("right", Action::Update(vec![("a".to_owned(), 5)]), End::Succeeded),
        ]);
        assert_eq!(differing(&model, "right", &[("a", (5, 1))]), [""; 0]);
        assert_eq!(differing(&model, "left", &[]), [""; 0]);
        assert_eq!(model.indexes["right"].synonym.as_deref(), Some("s"));
        assert!(model.apply(&Action::Create.on("left"), End::Succeeded).is_err());
        model.apply(&Action::Remove.on("right"), End::Succeeded).unwrap();
        model.apply(&Action::Create.on("right"), End::Succeeded).unwrap();
        assert_eq!(differing(&model, "right", &[]), [""; 0]);
    }
}
