//! Checks which part of `search` imports which, by reading `use …`, so that no circular imports come back.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The folders and files of `search`, in layers from the bottom up. Each imports only those before it in this list.
const LAYERS: [&str; 15] = [
    "values",
    "hit_order",
    "hits",
    "hybrid",
    "request",
    "facets",
    "merge",
    "query",
    "two_step",
    "federated",
    "multi",
    "single",
    "similar",
    "facet_search",
    "documents",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// The paths that a tree of imports stands for.
fn paths(before: &str, tree: &str) -> Vec<String> {
    let Some((start, group)) = tree.trim().split_once('{') else {
        return vec![format!("{before}{}", tree.trim())];
    };
    let mut depth = 0;
    let members = group.strip_suffix('}').unwrap().split(|letter: char| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    });
    let before = format!("{before}{start}");
    members.filter(|member| !member.trim().is_empty()).flat_map(|member| paths(&before, member)).collect()
}

/// Pairs of parts of `search`, of which the first imports the second outside of its tests.
fn arrows() -> BTreeSet<(String, String)> {
    let search = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/search");
    let mut arrows = BTreeSet::new();
    for file in sources(&search) {
        let inside: Vec<&str> =
            file.strip_prefix(&search).unwrap().iter().map(|name| name.to_str().unwrap()).collect();
        let name = inside.last().unwrap().trim_end_matches(".rs");
        let part = inside[0].trim_end_matches(".rs");
        if part == "mod" || name == "tests" {
            continue;
        }
        // `super` is `search` itself in a part's own module, and the part in the modules below that.
        let siblings = if inside.len() == 1 || name == "mod" { "super::" } else { "crate::search::" };
        let text = fs::read_to_string(&file).unwrap();
        let trees = text.split("\nuse ").skip(1).filter_map(|after| after.split(';').next());
        for path in trees.flat_map(|tree| paths("", tree)) {
            let inside = path.strip_prefix("crate::search::").or_else(|| path.strip_prefix(siblings));
            let other = inside.and_then(|inside| inside.split("::").next()).unwrap_or(part);
            if other != part {
                arrows.insert((part.to_owned(), other.to_owned()));
            }
        }
    }
    arrows
}

#[test]
fn no_part_of_search_imports_a_later_one() {
    let layer = |part: &str| LAYERS.iter().position(|name| *name == part);
    let arrows = arrows();
    assert!(arrows.contains(&("merge".into(), "hits".into())), "imports are read: {arrows:?}");
    for (part, other) in arrows {
        let (from, to) = (layer(&part), layer(&other));
        assert!(from.is_some() && to.is_some(), "{part} or {other} has no layer yet");
        assert!(to < from, "{part} imports {other}");
    }
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let tree = "crate::{\n    json::Raw,\n    search::{hits::{self, A}, merge},\n}";
    let expected =
        ["crate::json::Raw", "crate::search::hits::self", "crate::search::hits::A", "crate::search::merge"];
    assert_eq!(paths("", tree), expected);
    assert_eq!(paths("", "super::Read"), ["super::Read"]);
}
