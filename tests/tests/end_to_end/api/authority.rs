//! The authority matrix: requests every route with keys that have few rights, and with many spellings of its path. A cluster
//! must answer as a single node does, and afterwards the content of every node must be unchanged.

use super::{INDEX, Pair, comparable, example, keys, table::Route};
use crate::token::tenant_token;
use miroir_tests::{Answer, Client, Random, Sandbox, ask_raw, number};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The index that the insider's key is restricted to. It does not exist.
const HOME: &str = "elsewhere";

/// A way to spell a path: its name, and the function that spells it.
type Spelling = (&'static str, fn(&str, &str) -> String);

/// Spellings of a route below an index, from the index that the key may use and the index that the attacker wants to reach.
const OF_INDEXES: [Spelling; 14] = [
    ("up with backslashes", |home, target| format!(r"{home}\..\{target}")),
    ("up with dots", |home, target| format!("{home}/../{target}")),
    ("up with escaped dots", |home, target| format!("{home}/%2e%2E/{target}")),
    ("up with escaped slashes", |home, target| format!("{home}%2f..%2f{target}")),
    ("up with escaped backslashes", |home, target| format!("{home}%5c..%5c{target}")),
    ("escaped twice", |home, target| format!("{home}%252f..%252f{target}")),
    ("cut by a question mark", |home, target| format!("{target}%3f{home}")),
    ("cut by a fragment", |home, target| format!("{target}%23{home}")),
    ("a parameter", |home, target| format!("{target};{home}")),
    ("cut by a zero byte", |home, target| format!("{target}%00{home}")),
    ("a line", |home, target| format!("{home}%0d%0a{target}")),
    ("two names", |home, target| format!("{home},{target}")),
    ("not UTF-8", |home, target| format!("{target}%ff{home}")),
    ("in another case", |_, target| target.to_uppercase()),
];

/// Spellings of any path.
const OF_PATHS: [Spelling; 14] = [
    ("as it is", |path, _| path.to_owned()),
    ("with a slash at its end", |path, _| format!("{path}/")),
    ("with slashes twice", |path, _| path.replace('/', "//")),
    ("with its first letter escaped", |path, _| escaped(path, 1)),
    ("with its first letter escaped twice", |path, _| escaped(path, 1).replace('%', "%25")),
    ("with its last slash escaped", |path, _| replaced(path, "%2F")),
    ("with its last slash a backslash", |path, _| replaced(path, r"\")),
    ("with a dot", |path, _| replaced(path, "/./")),
    ("below something", |path, _| format!("/x/..{path}")),
    ("with something behind", |path, _| format!("{path}/x")),
    ("with a parameter", |path, _| format!("{path};a=b")),
    ("with a space", |path, _| format!("{path}%20")),
    ("in another case", |path, _| path.to_uppercase()),
    ("in absolute form", |path, _| format!("{ABSOLUTE}{path}")),
];

/// The prefix of a request target in absolute form.
const ABSOLUTE: &str = "http://node";

/// The indexes that attackers try to reach.
const VICTIMS: [&str; 4] = [INDEX, "bare", "spare", "emptied"];

fn escaped(path: &str, at: usize) -> String {
    let (before, rest) = path.split_at(at.min(path.len()));
    let mut letters = rest.chars();
    match letters.next() {
        Some(letter) => format!("{before}%{:02x}{}", u32::from(letter), letters.as_str()),
        None => path.to_owned(),
    }
}

fn replaced(path: &str, by: &str) -> String {
    path.rsplit_once('/').map_or_else(|| path.to_owned(), |(before, after)| format!("{before}{by}{after}"))
}

/// Whether Envoy refuses this target itself.
fn is_for_envoy(target: &str) -> bool {
    !target.starts_with(ABSOLUTE) && (!target.starts_with('/') || target.contains("%00"))
}

/// The content of each node that a stranger must not change.
fn content(sandbox: &Sandbox) -> BTreeMap<String, Value> {
    let mut content = BTreeMap::new();
    for number in 0..3 {
        let node = sandbox.node(number);
        let mut tell = |path: String| {
            let body = node.get(&path).body;
            content.insert(format!("meili-{number} {path}"), body);
        };
        for index in VICTIMS {
            tell(format!("/indexes/{index}/documents?limit=1000"));
            tell(format!("/indexes/{index}/settings"));
        }
        let keys = node.get("/keys?limit=1000").body;
        let mut uids: Vec<&Value> = keys["results"].as_array().unwrap().iter().filter(is_clients).collect();
        uids.sort_by_key(|key| key["uid"].to_string());
        content.insert(format!("meili-{number} keys"), json!(uids));
        let indexes = node.get("/indexes?limit=1000").body;
        let mut names: Vec<&str> =
            indexes["results"].as_array().unwrap().iter().filter_map(|index| index["uid"].as_str()).collect();
        names.retain(|name| !name.starts_with(HOME));
        names.sort_unstable();
        content.insert(format!("meili-{number} indexes"), json!(names));
    }
    content
}

/// Whether a key belongs to clients. Write keys are left out, because they come and go.
fn is_clients(key: &&Value) -> bool {
    !key["name"].as_str().unwrap_or_default().starts_with("miroir:")
}

pub fn check(pair: &mut Pair<'_>, routes: &[Route]) {
    let expired = keys::expiring(pair);
    let made = |uid: &str, actions: &[&str], indexes: &[&str]| keys::key(pair, uid, actions, indexes, None);
    let insider = made("6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c6001", &["*"], &[HOME]);
    const TENANTS: &str = "6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c6002";
    let searcher = made(TENANTS, &["search"], &[HOME]);
    let writer = made("6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c6003", &["documents.*"], &[HOME]);
    let tenant = tenant_token(TENANTS, &searcher, &json!({HOME: {"filter": "id = 1"}}));
    let mut people = vec![
        ("nobody".to_owned(), None),
        ("a stranger".to_owned(), Some("0".repeat(64))),
        ("an expired key".to_owned(), Some(expired.clone())),
        ("an insider".to_owned(), Some(insider)),
        ("a writer".to_owned(), Some(writer)),
        ("a searcher".to_owned(), Some(searcher)),
        ("a tenant".to_owned(), Some(tenant)),
    ];
    let actions: BTreeSet<&str> =
        routes.iter().flat_map(|route| &route.actions).map(String::as_str).collect();
    for (number, action) in actions.into_iter().enumerate() {
        let uid = format!("6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c7{number:03}");
        let body = json!({"uid": uid, "actions": [action], "indexes": [HOME], "expiresAt": null});
        // Some actions concern all indexes: a key for one index cannot have them.
        if let Ok(key) = keys::made(pair, &body) {
            people.push((format!("a key of {action}"), Some(key)));
        }
    }
    let mut cases = Vec::new();
    for route in routes {
        let (path, body) = example(route);
        let (path, query) = path.split_once('?').map_or((path.as_str(), ""), |(path, query)| (path, query));
        for (how, spell) in OF_PATHS {
            cases.push((route, how, spell(path, ""), query.to_owned(), body.clone()));
        }
        let Some(rest) = route.path.strip_prefix("/indexes/{uid}") else { continue };
        let rest = rest.replace("{id}", "1");
        for (how, spell) in OF_INDEXES {
            let of = |name: &str| format!("/indexes/{name}{rest}");
            cases.push((route, how, of(&spell(HOME, INDEX)), query.to_owned(), body.clone()));
            // The last segment can be spelt in these ways too.
            let below = format!("/indexes/{HOME}{rest}");
            let tail = spell("", "").replace(HOME, "");
            cases.push((
                route,
                how,
                format!("{below}{tail}..{tail}..{tail}{INDEX}"),
                query.to_owned(),
                body.clone(),
            ));
        }
    }
    keys::wait_expired(pair, &expired);
    // All cases together take minutes, so each run tries a random part of them.
    let mut random = Random(number("MIROIR_SEED", u64::from(std::process::id())));
    let wanted = usize::try_from(number("MIROIR_AUTHORITY", 900)).unwrap();
    let before = content(pair.sandbox);
    let mut tried = 0;
    while tried < wanted {
        let (route, how, path, query, body) = &cases[random.below(cases.len())];
        let (who, key) = &people[random.below(people.len())];
        let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
        tried += 1;
        same(
            pair,
            &format!("{} {target} ({how}) under {who}", route.method),
            route,
            key.as_deref(),
            &target,
            body,
        );
    }
    let after = content(pair.sandbox);
    for (what, value) in before {
        pair.check(&format!("{what} after all that"), after[&what].clone(), value);
    }
}

fn same(pair: &mut Pair<'_>, what: &str, route: &Route, key: Option<&str>, target: &str, body: &Value) {
    if is_for_envoy(target) {
        return;
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers: &[_] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    let ask = |client: &Client| {
        ask_raw(client.url(), key, &route.method, target, headers, body.as_bytes())
            .unwrap_or_else(|error| panic!("{what} at {}: {error}", client.url()))
    };
    let [cluster, node] = pair.clients();
    let answers = [ask(cluster), ask(node)];
    // Wait for the tasks of allowed requests before the next request.
    if answers.iter().all(|answer| answer.status == 202) {
        pair.clients().iter().zip(&answers).for_each(|(client, answer)| drop(client.ended(answer)));
    }
    // The development node checks a uuid in a path before it checks the key.
    let is_early = !pair.is_real && answers[1].status == 400 && answers[1].body.is_null();
    if is_early || pair.lacks(&answers[1]) || (route.refused && answers[1].status < 400) {
        return;
    }
    let [cluster, node] = answers.each_ref().map(told);
    pair.check(what, cluster, node);
}

/// An answer in the form in which it is compared: successful answers by their status only, and escapes in one case.
fn told(answer: &Answer) -> Value {
    if answer.status < 300 {
        return json!(answer.status);
    }
    let text = comparable(answer).to_string();
    let mut parts = text.split('%');
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        same.push_str(&format!("%{}{rest}", code.to_uppercase()));
    }
    serde_json::from_str(&same).unwrap_or_default()
}
