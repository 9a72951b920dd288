//! Tracks which reads may have seen both old and new settings of an index: nodes change settings one after another, each when
//! its task queue reaches the change.

use crate::{route::Route, topology::Topology};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Response header that lists, with commas, those indexes of a read whose settings changed while it was answered.
pub const HEADER: &str = "x-miroir-settings-changing";

/// The settings changes that a worker knows of.
#[derive(Clone, Debug, Default)]
pub struct SettingsChanges {
    /// By index, the last version of the topology in which its settings were changing.
    last: BTreeMap<String, u64>,
}

impl SettingsChanges {
    /// Records a topology. `oldest` is the version of the oldest topology that a read still uses.
    pub fn note(&mut self, topology: &Topology, oldest: u64) {
        self.last.retain(|_, version| *version >= oldest);
        let indexes = topology.config().indexes.iter().filter(|(_, index)| index.settings_changing);
        self.last.extend(indexes.map(|(uid, _)| (uid.clone(), topology.version())));
    }

    /// The value of [`HEADER`] for a read of these indexes that began with the topology of this version and ends now; `None` if
    /// the header is not needed.
    #[must_use]
    pub fn since(&self, version: u64, indexes: &[String]) -> Option<String> {
        let is_changing = |index: &&String| self.last.get(*index).is_some_and(|last| *last >= version);
        let mut changing: Vec<&str> = indexes.iter().filter(is_changing).map(String::as_str).collect();
        changing.sort_unstable();
        changing.dedup();
        (!changing.is_empty()).then(|| changing.join(","))
    }
}

/// The indexes whose settings affect a read.
#[must_use]
pub fn indexes_of(route: &Route, body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Query {
        index_uid: String,
    }
    #[derive(Deserialize)]
    struct Queries {
        queries: Vec<Query>,
    }
    match route {
        Route::Search { index }
        | Route::FacetSearch { index }
        | Route::Similar { index }
        | Route::DocumentList { index } => vec![index.clone()],
        Route::MultiSearch => match serde_json::from_slice(body) {
            Ok(Queries { queries }) => queries.into_iter().map(|query| query.index_uid).collect(),
            // A node refuses what cannot be read, whatever the settings are.
            Err(_) => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{IndexConfig, TopologyConfig};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn topology(version: u64, changing: &[&str]) -> Topology {
        let index = |uid: &str| {
            let config = IndexConfig { settings_changing: changing.contains(&uid), ..IndexConfig::default() };
            (uid.to_owned(), config)
        };
        let indexes = ["books", "movies"].map(index).into();
        Topology::validate(TopologyConfig { version, indexes, ..TopologyConfig::of(&["a"], [[0]]) }).unwrap()
    }

    #[test]
    fn a_read_is_marked_whose_settings_changed_at_any_time_until_its_end() {
        let movies = ["movies".to_owned()];
        let mut changes = SettingsChanges::default();
        changes.note(&topology(1, &[]), 1);
        assert_eq!(changes.since(1, &movies), None);
        changes.note(&topology(2, &["movies"]), 1);
        // This read began earlier, and was in progress when the worker learned of the change.
        assert_eq!(changes.since(1, &movies).as_deref(), Some("movies"));
        assert_eq!(changes.since(2, &movies).as_deref(), Some("movies"));
        changes.note(&topology(3, &[]), 1);
        // These reads began before or during the change, and end after it.
        assert_eq!(changes.since(1, &movies).as_deref(), Some("movies"));
        assert_eq!(changes.since(2, &movies).as_deref(), Some("movies"));
        assert_eq!(changes.since(3, &movies), None);
        changes.note(&topology(4, &[]), 3);
        assert!(changes.last.is_empty(), "nobody reads by topology 2 any more");
    }

    #[test]
    fn all_indexes_of_a_read_are_named_once() {
        let mut changes = SettingsChanges::default();
        changes.note(&topology(1, &["movies", "books"]), 1);
        let body = br#"{"queries":[{"indexUid":"movies","q":"a"},{"indexUid":"books"},{"indexUid":"movies"},
            {"indexUid":"others"}]}"#;
        let indexes = indexes_of(&Route::MultiSearch, body);
        assert_eq!(changes.since(1, &indexes).as_deref(), Some("books,movies"));
        let list = indexes_of(&Route::of("POST", &"/indexes/books/documents/fetch".into()), b"{}");
        assert_eq!(changes.since(1, &list).as_deref(), Some("books"));
        assert_eq!(changes.since(1, &indexes_of(&Route::MultiSearch, b"{")), None);
    }
}
