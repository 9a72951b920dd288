//! Swaps and renames that cannot be done, since the catalogue lacks an index that they need, or has one under the name that they give.
//!
//! Some nodes could do them nevertheless: those that have failed to create or to delete an index, and have not told so yet. They must not be
//! asked: what they would have done is not undone easily.

use crate::domain::{
    cluster_state::Index,
    intent::{CreationDates, Effect},
};
use miroir_core::node_name::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that know that an operation cannot be done, by the indexes that they have; `None` if it can be done.
#[must_use]
pub fn deniers(
    effect: &Effect,
    catalogue: &BTreeMap<String, Index>,
    created: &CreationDates,
) -> Option<BTreeSet<NodeName>> {
    let mut obstacles: Vec<(String, bool)> = Vec::new();
    for (from, to, is_exchange) in effect.moves().into_iter().filter(|(from, to, _)| from != to) {
        for (name, is_needed) in [(from, true), (to, is_exchange)] {
            if catalogue.contains_key(&name) != is_needed {
                obstacles.push((name, !is_needed));
            }
        }
    }
    let knows = |dates: &BTreeMap<String, String>| {
        obstacles.iter().all(|(name, is_there)| dates.contains_key(name) == *is_there)
    };
    let knowing = created.iter().filter(|(_, dates)| knows(dates)).map(|(node, _)| node.clone());
    (!obstacles.is_empty()).then(|| knowing.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_lack_what_the_catalogue_has_do_not_judge() {
        let catalogue = ["a", "b"].map(|name| (name.to_owned(), Index::default())).into();
        let dates = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let created: CreationDates =
            [("full".into(), dates(&["a", "c"])), ("whole".into(), dates(&["a", "b"]))].into();
        let rename = |from: &str, to: &str| Effect::UpdateIndex {
            index: from.into(),
            primary_key: None,
            rename: Some(to.into()),
        };
        let swap = |left: &str, right: &str, is_rename| Effect::Swap {
            pairs: vec![(left.into(), right.into(), is_rename)],
        };
        for (effect, expected) in [
            (rename("a", "new"), None),
            (rename("a", "a"), None),
            (swap("a", "b", false), None),
            (swap("b", "new", true), None),
            // One has failed to create b, and to delete c.
            (rename("a", "b"), Some(vec!["whole"])),
            (swap("a", "b", true), Some(vec!["whole"])),
            (rename("c", "new"), Some(vec!["whole"])),
            (swap("a", "c", false), Some(vec!["whole"])),
            (rename("nothing", "new"), Some(vec!["full", "whole"])),
            (rename("nothing", "b"), Some(vec!["whole"])),
        ] {
            let found = deniers(&effect, &catalogue, &created);
            let expected: Option<BTreeSet<NodeName>> =
                expected.map(|nodes| nodes.into_iter().map(NodeName::from).collect());
            assert_eq!(found, expected, "{effect:?}");
        }
    }
}
