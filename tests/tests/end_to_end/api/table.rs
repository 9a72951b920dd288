//! Reads the table of routes in `docs/compatibility.md`, and checks that it is true.

use super::{Pair, changes_nothing, comparable, example};
use miroir_tests::{Answer, MASTER_KEY};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The experimental features of Meilisearch 1.50 that have routes.
const FEATURES: [&str; 8] = [
    "metrics",
    "logsRoute",
    "dynamicSearchRules",
    "network",
    "getTaskDocumentsRoute",
    "taskQueueCompactionRoute",
    "chatCompletions",
    "renderRoute",
];

/// A route with one of its methods: a row of the table.
#[derive(Debug)]
pub struct Route {
    pub path: String,
    pub method: String,
    /// The actions that a key must allow; empty if no key is needed.
    pub actions: Vec<String>,
    /// Whether a cluster does not serve the route.
    pub refused: bool,
}

/// Reads the table.
pub fn routes() -> Vec<Route> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
    let document = std::fs::read_to_string(document).unwrap();
    let table = document.split("\n## ").find(|part| part.starts_with("Routes\n")).unwrap();
    let mut routes = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| `/")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, path, methods, state, why, _] = cells.as_slice() else { panic!("{line}") };
        assert!(["as one node", "refused"].contains(state) && !why.is_empty(), "{line}");
        for group in methods.split("; ") {
            let words = || group.split([' ', ',']).filter(|word| !word.is_empty());
            let (actions, methods): (Vec<&str>, Vec<&str>) = words().partition(|word| word.starts_with('`'));
            let actions: Vec<String> =
                actions.iter().map(|action| action.trim_matches('`').to_owned()).collect();
            routes.extend(methods.iter().map(|method| Route {
                path: path.trim_matches('`').to_owned(),
                method: (*method).to_owned(),
                actions: actions.clone(),
                refused: *state == "refused",
            }));
        }
    }
    assert!(routes.len() > 140, "{}", routes.len());
    routes
}

pub fn check(pair: &mut Pair<'_>, routes: &[Route]) {
    whole(pair, routes);
    let (reads, writes): (Vec<&Route>, Vec<&Route>) = routes.iter().partition(|route| changes_nothing(route));
    reads.iter().for_each(|route| drop(serves(pair, route)));
    // Nodes handle these requests in order.
    let accepted: Vec<_> = writes.iter().filter_map(|route| serves(pair, route)).collect();
    for (what, answers) in accepted {
        let clients = pair.clients();
        let mut tasks = [0, 1].map(|which| clients[which].ended(&answers[which]));
        // A swap does not change the names in the development node's older tasks.
        if !pair.is_real {
            tasks.iter_mut().for_each(|task| drop(task["indexUid"].take()));
        }
        let [cluster, node] = tasks.map(|body| comparable(&Answer { body, ..answers[0].clone() }));
        pair.check(&format!("the task of {what}"), cluster, node);
    }
    reads.iter().for_each(|route| drop(serves(pair, route)));
    switch(pair, true);
    for route in routes.iter().filter(|route| route.refused) {
        refuses(pair, route);
    }
    for route in routes.iter().filter(|route| !route.refused && is_experimental(&route.path)) {
        serves(pair, route);
    }
    switch(pair, false);
}

/// Switches experimental features on or off.
fn switch(pair: &mut Pair<'_>, on: bool) {
    let features = FEATURES.iter().map(|name| ((*name).to_owned(), json!(on)));
    let features = Value::Object(features.collect());
    let answers = pair.ask(Some(MASTER_KEY), "PATCH", "/experimental-features", &[], &features);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

fn is_experimental(path: &str) -> bool {
    ["/chats", "/network", "/dynamic-search-rules", "/render-template", "/metrics", "/tasks/{uid}/documents"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// Checks that nodes have no method on these routes that is missing in the table.
fn whole(pair: &mut Pair<'_>, routes: &[Route]) {
    let mut methods: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
    for route in routes {
        methods.entry(&route.path).or_default().push(route);
    }
    for (path, routes) in methods {
        let address = example(routes[0]).0;
        let answer = pair.node.client.ask("OPTIONS", address.split('?').next().unwrap(), &[], "");
        // The development node lacks some of these methods.
        if pair.lacks(&answer)
            || (!pair.is_real && (path.contains("/settings/") || path.starts_with("/webhooks")))
        {
            continue;
        }
        let mut methods: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
        methods.sort_unstable();
        let allowed = answer.header("allow").unwrap_or_default();
        let mut allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
        allowed.sort_unstable();
        pair.check(&format!("methods of {path}"), json!(methods), json!(allowed));
    }
}

/// Sends the same request to both, and compares the answers. Returns them if they created tasks.
fn serves(pair: &mut Pair<'_>, route: &Route) -> Option<(String, [Answer; 2])> {
    let (path, body) = example(route);
    let what = format!("{} {path}", route.method);
    let answers = pair.ask(Some(MASTER_KEY), &route.method, &path, &[], &body);
    // A swap does not change the names in the development node's older tasks.
    let is_old = !pair.is_real && route.method == "GET" && route.path.starts_with("/tasks");
    if pair.lacks(&answers[1]) || is_old {
        return None;
    }
    let [cluster, node] = answers.each_ref().map(|answer| {
        let mut told = comparable(answer);
        // Batches may differ between nodes.
        if route.path.starts_with("/batches") {
            told["body"] = json!(answer.body.as_object().map(|body| body.keys().collect::<Vec<_>>()));
        }
        // The text of a key that a server has made for itself follows from that server's own uid for it.
        if route.path == "/keys" {
            let keys = told["body"]["results"].as_array_mut().into_iter().flatten();
            let is_default =
                |key: &&mut Value| key["name"].as_str().is_some_and(|name| name.starts_with("Default "));
            keys.filter(is_default).for_each(|key| drop(key["key"].take()));
        }
        told
    });
    pair.check(&what, cluster, node);
    (answers.iter().all(|answer| answer.status == 202)).then_some((what, answers))
}

/// Checks that a cluster says that it does not serve a route, but only to clients that could use it on a node.
fn refuses(pair: &mut Pair<'_>, route: &Route) {
    let (path, body) = example(route);
    let what = format!("{} {path}", route.method);
    let client = &pair.sandbox.client;
    let send = |key| match &body {
        Value::Null => client.under(key).send(&route.method, &path, None, ""),
        body => client.under(key).json(&route.method, &path, body),
    };
    let (answer, stranger) = (send(Some(MASTER_KEY)), send(None));
    let message = answer.body["message"].as_str().unwrap_or_default();
    let start = format!("A cluster does not serve `{what}`: ");
    let is_told = message.starts_with(&start) && message.len() > start.len() + 10;
    pair.check(
        &what,
        json!([answer.status, answer.body["code"], is_told]),
        json!([400, "bad_request", true]),
    );
    pair.check(&format!("{what} without a key"), json!(stranger.status), json!(401));
}
