//! Checks which module of the control plane imports which, by reading `use crate::…`, so that no circular imports come back.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The top-level modules, in layers from the bottom up. A module may import those before it in this list, except the pairs in
/// [`NEVER`].
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

/// Imports that the order of the layers would allow, but that are forbidden.
const NEVER: [(&str, &str); 7] = [
    ("domain", "disguise"),
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

/// What is before a file's module of tests, whatever that is called.
fn before_tests(text: &str) -> &str {
    let is_module = |at: &usize| text[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{'));
    let tests = text.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at).find(is_module);
    tests.map_or(text, |at| &text[..at])
}

/// By file, relative to `src`: its code without comments and without tests, which may need more than it does.
fn code() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut code = BTreeMap::new();
    for file in sources(&root) {
        let inside = file.strip_prefix(&root).unwrap();
        if inside.starts_with("testing") || inside.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = before_tests(&text)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        code.insert(inside.to_owned(), text);
    }
    code
}

/// For each pair of modules, a file of the first that imports the second.
fn arrows() -> BTreeMap<(String, String), PathBuf> {
    let mut arrows = BTreeMap::new();
    for (file, text) in code() {
        let room = file.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        for other in imported(&text).into_iter().filter(|other| *other != room) {
            arrows.entry((room.clone(), other)).or_insert_with(|| file.clone());
        }
    }
    arrows
}

/// Files that have one of these words in their code, but for those below the allowed places.
fn users_of(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut users = Vec::new();
    for (file, text) in code() {
        if allowed.iter().any(|place| file.starts_with(place)) {
            continue;
        }
        let found = words.iter().filter(|word| text.contains(*word));
        users.extend(found.map(|word| format!("{} uses {word}", file.display())));
    }
    users
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

/// A simulation puts a clock of its own into the cluster's state. Nobody may look at another one; sleeps are tokio's.
#[test]
fn time_comes_from_the_clock() {
    let clocks = [
        "SystemTime",
        "now_utc",
        "now_local",
        "Instant::now",
        "std::time::Instant",
        ".elapsed()",
        "thread::sleep",
        "SystemClock",
    ];
    // Commands put the system's clock where it is held.
    let commands = ["cli", "playground", "recover/mod.rs"];
    let users = users_of(&clocks, &[&["base/time.rs"], &commands[..]].concat());
    let users: Vec<String> = users.into_iter().filter(|user| !HOLDERS_OF_CLOCKS.contains(&&**user)).collect();
    assert!(users.is_empty(), "{}", users.join("\n"));
}

/// Where the system's clock is put into what holds it: for a control plane, and for the nodes of `miroir recover`.
const HOLDERS_OF_CLOCKS: [&str; 2] = ["serve.rs uses SystemClock", "cluster/mod.rs uses SystemClock"];

/// A simulation repeats a history from its seed. So nothing may decide by other randomness than the cluster's source, by the order of
/// a hash table, which differs with each process, or by the branch of a `select!` that tokio draws.
#[test]
fn what_happens_follows_from_the_seed() {
    let words = ["new_v4", "getrandom", "SystemRandom", "RandomState", "HashMap", "HashSet", "select!"];
    let commands = ["cli", "playground"];
    // The system's source is put where it is held: for a control plane, for secrets, which are made before one starts, and for the
    // uids of log lines.
    let holders = ["base/random.rs", "base/secrets.rs", "base/log.rs", "serve.rs"];
    // They speak with Envoy and Kubernetes, and decide nothing.
    let others = ["publish/grpc.rs", "publish/kubernetes.rs"];
    let users = users_of(&words, &[&commands[..], &holders[..], &others[..]].concat());
    assert!(users.is_empty(), "{}", users.join("\n"));
}

/// A simulation puts model nodes behind `Transport`. Nobody may reach a node past it.
#[test]
fn nodes_are_reached_by_their_transport() {
    // Who calls others than nodes: clients' URLs, Kubernetes, a control plane, a playground.
    let others = [
        "base/outbound.rs",
        "export/target.rs",
        "tracking/webhooks.rs",
        "publish/kubernetes.rs",
        "cli",
        "playground",
    ];
    let allowed = [&["node/http.rs", "base/tls.rs"], &others[..]].concat();
    let users =
        users_of(&["reqwest", "hyper::", "TcpStream"], &[&allowed[..], &["base/listener.rs"]].concat());
    assert!(users.is_empty(), "{}", users.join("\n"));
}

/// Work that is spawned elsewhere could end or panic unnoticed, and leave what it held as it was.
#[test]
fn background_work_is_started_by_the_supervisor() {
    // What serves one connection, whose other end notices that it is gone.
    let connections = ["base/listener.rs", "api/body.rs", "publish/grpc.rs"];
    let allowed = [&["base/supervisor.rs", "playground"], &connections[..]].concat();
    let users = users_of(&["tokio::spawn", "task::spawn", "JoinSet"], &allowed);
    assert!(users.is_empty(), "{}", users.join("\n"));
}

/// A simulation runs a control plane on one thread, and runs the ledger's calls itself. Nobody may start a thread, nor open the ledger's
/// database past its `Storage`.
#[test]
fn one_thread_does_it_all() {
    // What a schema is like is found out in an empty database in memory.
    let schema = "ledger/schema.rs";
    let allowed = ["ledger/group_commit.rs", "ledger/file.rs", schema, "cli", "playground"];
    let users = users_of(&["thread::", "spawn_blocking", "block_in_place", "Connection::open"], &allowed);
    assert!(users.is_empty(), "{}", users.join("\n"));
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let text = "use crate::{api::{body, x}, cluster::{Cluster, locks::{A, B}}, node};\nuse crate::verify;\nfn f() { crate::sync::wait(); }";
    let rooms: Vec<String> = imported(text).into_iter().collect();
    assert_eq!(rooms, ["api", "cluster", "node", "sync", "verify"]);
}
