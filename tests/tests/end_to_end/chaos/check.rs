//! Compares what a cluster holds with what one Meilisearch would hold.

use super::{
    AT_REST, PASSING, RESTING, STEADY, SWAPPED, World,
    clients::{Clients, Heard, Sent},
    history::History,
};
use miroir_tests::{
    Client,
    model::{Action, Change, End, Model, Version, change_of},
    tell,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Waits until the cluster rests, and checks everything.
///
/// # Panics
/// The cluster does not come to rest, or something is wrong.
pub fn check(world: &World, clients: &Clients<'_>, history: &History) {
    let cluster = &world.cluster;
    cluster.wait_repaired();
    cluster.wait_idle();
    // Repairs may have come of what ended last.
    cluster.wait_repaired();
    let tasks = all_tasks(&cluster.client);
    let sent = clients.sent.lock().unwrap().clone();
    let changes = changes(&tasks);
    check_acknowledged(&sent, &tasks, &changes, history);
    let model = replay(&sent, &tasks, &changes, history);
    check_indexes(world, &model, history);
    let verified = cluster.miroir(&["verify"]);
    if !verified.status.success() {
        let said = [verified.stdout, verified.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        history.is_wrong("verify", &said.join("\n"));
    }
    let counted = tasks.values().fold(BTreeMap::<&str, u32>::new(), |mut counts, task| {
        *counts.entry(task["status"].as_str().unwrap_or("?")).or_default() += 1;
        counts
    });
    tell!("tasks: {counted:?}");
    let wrong = history.wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All tasks by uid.
fn all_tasks(client: &Client) -> BTreeMap<u64, Value> {
    let mut tasks = BTreeMap::new();
    let mut from = String::new();
    loop {
        let page = client.get(&format!("/tasks?limit=1000{from}")).body;
        for task in page["results"].as_array().expect("a list of tasks") {
            tasks.insert(task["uid"].as_u64().expect("a uid"), task.clone());
        }
        match page["next"].as_u64() {
            Some(next) => from = format!("&from={next}"),
            None => return tasks,
        }
    }
}

/// The number that a client gave its operation.
fn number_of(task: &Value) -> Option<u64> {
    task["customMetadata"].as_str()?.parse().ok()
}

/// What tasks of whole indexes do, under the names that clients have used: a swap exchanges the names in all earlier tasks, as in
/// Meilisearch.
fn changes(tasks: &BTreeMap<u64, Value>) -> BTreeMap<u64, Change> {
    let mut is_exchanged = false;
    let mut changes = BTreeMap::new();
    for (uid, task) in tasks.iter().rev() {
        let Some(change) = change_of(task) else { continue };
        let change = if is_exchanged { change.exchanged(SWAPPED) } else { change };
        is_exchanged ^= matches!(change.action, Action::Swap(_)) && task["status"] == "succeeded";
        changes.insert(*uid, change);
    }
    changes
}

/// What clients heard of is in the ledger, under the uid that they heard, once.
fn check_acknowledged(
    sent: &BTreeMap<u64, Sent>,
    tasks: &BTreeMap<u64, Value>,
    changes: &BTreeMap<u64, Change>,
    history: &History,
) {
    for (number, sent) in sent {
        let Heard::Accepted(uid) = sent.heard else { continue };
        let Some(task) = tasks.get(&uid) else {
            history.is_wrong(&format!("task {uid}"), "it was acknowledged and is unknown");
            continue;
        };
        let is_it = match sent.change.action {
            Action::Put(_) | Action::Update(_) | Action::Delete(_) | Action::Edit => {
                number_of(task) == Some(*number)
            }
            _ => changes.get(&uid) == Some(&sent.change),
        };
        if !is_it {
            history.is_wrong(&format!("task {uid}"), &format!("it is not {sent:?}: {task}"));
        }
    }
    let mut uids = BTreeMap::<u64, u64>::new();
    for (uid, task) in tasks {
        if let Some(first) = number_of(task).and_then(|number| uids.insert(number, *uid)) {
            history.is_wrong(&format!("task {uid}"), &format!("task {first} is the same operation"));
        }
        if !["succeeded", "failed"].contains(&task["status"].as_str().unwrap_or_default()) {
            history.is_wrong(&format!("task {uid}"), &format!("it has not ended: {task}"));
        }
    }
}

/// What one Meilisearch would hold after these tasks.
fn replay(
    sent: &BTreeMap<u64, Sent>,
    tasks: &BTreeMap<u64, Value>,
    changes: &BTreeMap<u64, Change>,
    history: &History,
) -> Model {
    let mut model = Model::default();
    for (uid, task) in tasks {
        let change = changes.get(uid).or_else(|| Some(&sent.get(&number_of(task)?)?.change)).cloned();
        let Some(change) = change.filter(|_| task["indexUid"] != AT_REST) else { continue };
        let end = if task["status"] == "succeeded" { End::Succeeded } else { End::Failed };
        if let Err(why) = model.apply(&change, end) {
            history.is_wrong(&format!("task {uid}"), &format!("{change:?} cannot have succeeded: {why}"));
        }
        let error = &task["error"]["message"];
        history.note_change(&change, &format!("task {uid} {}: {change:?} {error}", task["status"]));
    }
    model
}

/// The indexes that are there, their settings, and their documents on all replicas.
fn check_indexes(world: &World, model: &Model, history: &History) {
    let cluster = &world.cluster;
    let listed = cluster.client.get("/indexes?limit=1000").body;
    let listed: Vec<&str> = listed["results"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|index| index["uid"].as_str())
        .collect();
    for index in model.indexes.keys().filter(|index| !listed.contains(&index.as_str())) {
        history.is_wrong(index, &format!("it is not there; there are {listed:?}"));
    }
    for index in &listed {
        if *index == AT_REST {
            let held = cluster.identical(index, "id").len() as u64;
            if held != RESTING {
                history.is_wrong(index, &format!("{held} documents are held"));
            }
            continue;
        }
        if ![STEADY, SWAPPED[0], SWAPPED[1], PASSING].contains(index) {
            history.is_wrong(index, "nobody has created it");
        }
        // One that only a write has created that failed has nothing.
        let expected = model.indexes.get(*index).cloned().unwrap_or_default();
        let synonyms = cluster.client.get(&format!("/indexes/{index}/settings/synonyms")).body;
        let synonym = synonyms["word"][0].as_str().map(str::to_owned);
        if synonym != expected.synonym {
            history.is_wrong(index, &format!("its synonym is {synonym:?} instead of {:?}", expected.synonym));
        }
        let held = cluster.identical(index, "id").into_iter();
        let held: BTreeMap<String, Version> = held
            .map(|(id, document)| {
                let field = |name: &str| document[name].as_u64().unwrap_or(0);
                (id, (field("v"), field("n")))
            })
            .collect();
        for (id, difference) in expected.differs(&held) {
            history.is_wrong(&id, &format!("{index}: {difference}"));
        }
    }
}
