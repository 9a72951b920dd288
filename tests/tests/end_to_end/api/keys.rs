//! Keys that lack a right that a route requires: a cluster must answer them as a single node does.

use super::{Pair, changes_nothing, comparable, example, table::Route};
use crate::token::tenant_token;
use miroir_tests::{Answer, Client, wait_until};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The key that is used in requests of all routes that concern one key.
pub const UID: &str = "6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a01";
/// The key that the request of the table creates.
pub const OTHER_UID: &str = "6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a02";
const SEARCH_UID: &str = "6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a03";

/// All groups of actions.
const GROUPS: [&str; 12] = [
    "documents.*",
    "indexes.*",
    "tasks.*",
    "settings.*",
    "stats.*",
    "metrics.*",
    "dumps.*",
    "snapshots.*",
    "chats.*",
    "chatsSettings.*",
    "webhooks.*",
    "*.get",
];

/// The settings routes that represent all others in this test.
const SETTINGS: [&str; 2] = ["/indexes/{uid}/settings/stop-words", "/indexes/{uid}/settings/faceting"];

/// A Unix timestamp in Meilisearch's date format.
fn moment(seconds: u64) -> String {
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{:02}Z", seconds % 60)
}

/// Creates the same key on cluster and node. Returns its text.
pub fn key(pair: &Pair<'_>, uid: &str, actions: &[&str], indexes: &[&str], expires: Option<&str>) -> String {
    let body = json!({"uid": uid, "actions": actions, "indexes": indexes, "expiresAt": expires});
    made(pair, &body).unwrap_or_else(|refused| panic!("{refused}"))
}

/// Like [`key`], from a request's body. Returns the error if such a key cannot be created.
pub fn made(pair: &Pair<'_>, body: &Value) -> Result<String, Value> {
    let answers = pair.clients().map(|client| client.json("POST", "/keys", body));
    let text =
        |answer: &Answer| answer.body["key"].as_str().map(str::to_owned).filter(|_| answer.status == 201);
    let texts = answers.each_ref().map(text);
    assert_eq!(texts[0], texts[1], "a key's text follows from its uid and the master key");
    texts[0].clone().ok_or_else(|| answers[0].body.clone())
}

/// Makes a key where there is none of its uid yet, and gives its text.
pub fn made_once(pair: &Pair<'_>, body: &Value) -> String {
    let path = format!("/keys/{}", body["uid"].as_str().unwrap());
    let texts = pair.clients().map(|client| client.get(&path).body["key"].as_str().map(str::to_owned));
    assert_eq!(texts[0], texts[1]);
    let [text, _] = texts;
    text.unwrap_or_else(|| made(pair, body).unwrap_or_else(|refused| panic!("{refused}")))
}

/// A key that was allowed everything, and will soon have expired.
pub fn expiring(pair: &Pair<'_>) -> String {
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(2);
    let soon = moment(soon.as_secs());
    made_once(
        pair,
        &json!({"uid": "6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a04", "actions": ["*"], "indexes": ["*"], "expiresAt": soon}),
    )
}

/// Waits until that key has expired.
pub fn wait_expired(pair: &Pair<'_>, expiring: &str) {
    wait_until("the key has expired", || {
        pair.clients()
            .iter()
            .all(|client: &&Client| client.under(Some(expiring)).get("/version").status == 403)
    });
}

pub fn check(pair: &mut Pair<'_>, routes: &[Route]) {
    let expired = expiring(pair);
    let all: BTreeSet<&str> = routes.iter().flat_map(|route| &route.actions).map(String::as_str).collect();
    let all: Vec<&str> = all.into_iter().filter(|action| *action != "*").collect();
    let mut number = 0;
    let mut made = |actions: &[&str], indexes: &[&str]| {
        number += 1;
        key(pair, &format!("6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c3{number:03}"), actions, indexes, None)
    };
    let lacking: Vec<(&str, String)> = all
        .iter()
        .map(|missing| {
            let others: Vec<&str> = all.iter().copied().filter(|action| action != missing).collect();
            (*missing, made(&others, &["*"]))
        })
        .collect();
    let everything_named = made(&all, &["*"]);
    let groups: Vec<(&str, String)> = GROUPS.iter().map(|group| (*group, made(&[group], &["*"]))).collect();
    let elsewhere = made(&["*"], &["elsewhere", "emp*"]);
    let searcher = key(pair, SEARCH_UID, &["search"], &["films*"], None);
    let token = |rules: &Value| tenant_token(SEARCH_UID, &searcher, rules);
    let strangers = [
        ("no key", None),
        ("a wrong key", Some("wrong".to_owned())),
        ("an expired key", Some(expired.clone())),
        ("a key of other indexes", Some(elsewhere)),
        ("a tenant", Some(token(&json!({"films": {"filter": "year < 2000"}})))),
        ("a tenant of another index", Some(token(&json!(["emptied"])))),
        ("a forged token", Some(tenant_token(SEARCH_UID, "another key", &json!(["films"])))),
    ];
    wait_expired(pair, &expired);
    let of_one =
        |route: &&Route| !route.path.contains("/settings/") || SETTINGS.contains(&route.path.as_str());
    for route in routes.iter().filter(of_one).filter(|route| !route.actions.is_empty()) {
        for (who, key) in &strangers {
            same(pair, route, who, key.as_deref());
        }
        for missing in &route.actions {
            let lacking = lacking.iter().find(|(action, _)| action == missing).map(|(_, key)| key);
            same(
                pair,
                route,
                &format!("a key without {missing}"),
                Some(lacking.unwrap_or(&everything_named)),
            );
        }
        // A request with a sufficient key may change something, so only routes that change nothing are tried with these keys.
        if changes_nothing(route) {
            for (group, key) in &groups {
                same(pair, route, &format!("a key of {group}"), Some(key));
            }
        }
    }
}

fn same(pair: &mut Pair<'_>, route: &Route, who: &str, key: Option<&str>) {
    let (path, body) = example(route);
    let answers = pair.ask(key, &route.method, &path, &[], &body);
    // Routes that a node serves but a cluster does not are tested with the table.
    if pair.lacks(&answers[1]) || (route.refused && answers[1].status < 400) {
        return;
    }
    let told = answers.each_ref().map(|answer| {
        // Only the authorization is compared here, not the lists of keys and batches.
        let is_list = ["/batches", "/keys"].iter().any(|start| route.path.starts_with(start));
        if is_list && answer.status < 300 { json!(answer.status) } else { comparable(answer) }
    });
    let [cluster, node] = told;
    pair.check(&format!("{} {path} under {who}", route.method), cluster, node);
}
