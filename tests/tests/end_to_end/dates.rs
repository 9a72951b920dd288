//! The dates of an index's creation and update are the same for the whole cluster, whichever node answers.

use miroir_tests::{Client, Node, Options, Sandbox};
use serde_json::{Value, json};

/// The dates of all indexes. Checks that the list of indexes, each index and the statistics agree.
fn dates(client: &Client) -> Vec<(String, String, String)> {
    let list = client.get("/indexes").body["results"].clone();
    let text = |index: &Value, name: &str| index[name].as_str().unwrap().to_owned();
    let indexes = list.as_array().unwrap().iter();
    let dates: Vec<_> = indexes
        .map(|index| {
            let uid = text(index, "uid");
            assert_eq!(client.get(&format!("/indexes/{uid}")).body, *index);
            (uid, text(index, "createdAt"), text(index, "updatedAt"))
        })
        .collect();
    let last = dates.iter().map(|(_, _, updated)| updated.clone()).max();
    assert_eq!(client.get("/stats").body["lastUpdate"], json!(last));
    dates
}

/// A description of what each step does to the dates of indexes.
fn story(client: &Client) -> Vec<String> {
    let mut before = dates(client);
    let mut story = Vec::new();
    for (method, path, body) in [
        ("POST", "/indexes", json!({"uid": "a"})),
        ("POST", "/indexes", json!({"uid": "b", "primaryKey": "id"})),
        ("POST", "/indexes/a/documents", json!([{"id": 1}, {"id": 2}, {"id": 3}])),
        ("POST", "/indexes/c/documents", json!([{"id": 1}])),
        ("PATCH", "/indexes/d/settings", json!({"sortableAttributes": ["rank"]})),
        ("POST", "/indexes/a/documents", json!([{"title": "no key"}])),
        ("PATCH", "/indexes/b/settings", json!({"sortableAttributes": ["rank"]})),
        ("DELETE", "/indexes/a/documents/2", json!(null)),
        ("DELETE", "/indexes/a/documents", json!(null)),
        ("PATCH", "/indexes/b", json!({"primaryKey": "key"})),
        ("PATCH", "/indexes/b", json!({"uid": "b"})),
        ("POST", "/swap-indexes", json!([{"indexes": ["a", "c"]}])),
        ("PATCH", "/indexes/c", json!({"uid": "e"})),
        ("DELETE", "/indexes/d", json!(null)),
    ] {
        let task = client.ended(&client.json(method, path, &body));
        let after = dates(client);
        let known = |uid: &str| before.iter().find(|(before, ..)| before == uid);
        let changes = after.iter().map(|(uid, created, updated)| match known(uid) {
            None if created == updated => format!("{uid} is as old as its update"),
            None if created < updated => format!("{uid} is older than its update"),
            None => format!("{uid} is younger than its update"),
            Some((_, c, u)) if (c, u) == (created, updated) => format!("{uid} is as before"),
            Some((_, c, u)) if c == created && u < updated => format!("{uid} is updated"),
            Some(_) => {
                let of = before.iter().find(|(_, c, u)| (c, u) == (created, updated));
                format!("{uid} is as {} was", of.map_or("nobody", |(uid, ..)| uid))
            }
        });
        let changes: Vec<String> = changes.collect();
        story.push(format!("{method} {path} {}: {}", task["status"], changes.join(", ")));
        before = after;
    }
    story
}

pub fn all_nodes_tell_the_same_dates_of_an_index() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    assert_eq!(story(&cluster.client), story(&node.client));
    // The dates do not depend on the node that answers.
    let known = dates(&cluster.client);
    cluster.kill("meili-0");
    assert_eq!(dates(&cluster.client), known);
    cluster.client.add("f", &json!([{"id": 1}]));
    let known = dates(&cluster.client);
    cluster.revive("meili-0");
    cluster.wait_repaired();
    cluster.kill("meili-1");
    assert_eq!(dates(&cluster.client), known);
}
