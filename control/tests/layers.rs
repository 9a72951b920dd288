//! Which room of the control plane may import which: read from `use crate::…`, so that no circle comes back.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms, from the ground up. A room may import those that come before it in this list, but for what [`NEVER`] says.
const FLOORS: [&str; 22] = [
    "base",
    "disguise",
    "domain",
    "node",
    "ledger",
    "publish",
    "cluster",
    "fencing",
    "auth",
    "indexes",
    "sync",
    "writes",
    "tracking",
    "mover",
    "export",
    "membership",
    "verify",
    "api",
    "serve",
    "recover",
    "playground",
    "cli",
];

/// What stays apart though it is not upside down.
const NEVER: [(&str, &str); 8] = [
    ("domain", "disguise"),
    ("node", "domain"),
    ("publish", "ledger"),
    ("publish", "node"),
    ("writes", "sync"),
    ("tracking", "mover"),
    ("mover", "writes"),
    ("mover", "tracking"),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// The first segments of all paths that begin with `crate::`, those in braces too.
fn imported(text: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            rooms.insert(name(after));
            continue;
        };
        let mut depth = 1;
        let mut member = String::new();
        for letter in group.chars() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    rooms.insert(name(&member));
                    member.clear();
                    continue;
                }
                _ => {}
            }
            if depth == 0 {
                rooms.insert(name(&member));
                break;
            }
            member.push(letter);
        }
    }
    rooms.remove("");
    rooms
}

/// By room and room: a file that imports the second into the first.
fn arrows() -> BTreeMap<(String, String), PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut arrows = BTreeMap::new();
    for file in sources(&root) {
        let inside = file.strip_prefix(&root).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // Comments may speak of any room; tests of a file may need more than it does.
        let code: String = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        for other in imported(&code).into_iter().filter(|other| *other != room) {
            arrows.entry((room.clone(), other)).or_insert_with(|| inside.to_owned());
        }
    }
    arrows
}

#[test]
fn no_room_imports_a_later_one() {
    let floor = |room: &str| FLOORS.iter().position(|name| *name == room);
    let mut wrong = Vec::new();
    for ((room, other), file) in arrows() {
        let (from, to) = (floor(&room), floor(&other));
        assert!(from.is_some() && to.is_some(), "{room} or {other} has no floor yet ({})", file.display());
        if to > from || NEVER.contains(&(room.as_str(), other.as_str())) {
            wrong.push(format!("{room} imports {other}: {}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let text = "use crate::{api::{body, x}, cluster::{Cluster, locks::{A, B}}, node};\nuse crate::verify;\nfn f() { crate::sync::wait(); }";
    let rooms: Vec<String> = imported(text).into_iter().collect();
    assert_eq!(rooms, ["api", "cluster", "node", "sync", "verify"]);
}
