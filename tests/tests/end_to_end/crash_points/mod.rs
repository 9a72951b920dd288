//! The control plane is killed right before or right after one of the ledger's commits, during each kind of operation. When it is back,
//! the operation was done on all nodes or on none, what was acknowledged was done, and nodes and ledger agree.
//!
//! First the operation runs to its end, and its commits are counted. Then it runs again, and the process is killed at one of them:
//! `MIROIR_CRASH_POINT_COUNT` is for how many of them (1), by `MIROIR_CRASH_POINT_SEED` (1); `all` kills it at every one.

mod agreement;

use agreement::agree;
use miroir_tests::{Answer, Client, Options, Random, Sandbox, number, pass, tell, wait_until};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

const A: &str = "crash-a";
const B: &str = "crash-b";
const NODES: u16 = 3;

/// A cluster whose control plane can be killed at a commit.
pub fn cluster() -> Sandbox {
    Sandbox::start(Options {
        nodes: NODES,
        shards: 4,
        lease_ms: 1_000,
        write_timeout_ms: 2_000,
        env: &[("MIROIR_CRASH_POINTS", "1")],
        ..Options::default()
    })
}

/// How long the ledger must have been at rest before an operation has no more commits.
const REST: Duration = Duration::from_millis(700);

/// A kind of operation.
struct Kind {
    /// Brings the cluster to where the operation can be done, whatever the last one left.
    prepare: fn(&Sandbox),
    /// Does it; gives the answer, if one came.
    run: fn(&Sandbox) -> Option<Answer>,
    /// What clients see of it.
    see: fn(&Client) -> Value,
    /// What they see before and after. Anything else is half of it.
    outcomes: [Value; 2],
}

fn documents(ids: std::ops::Range<u32>, version: u32) -> Value {
    ids.map(|id| json!({"id": id, "v": version})).collect()
}

fn send(cluster: &Sandbox, method: &str, path: &str, body: Value) -> Option<Answer> {
    let (kind, body) = match body {
        Value::Null => (None, Vec::new()),
        body => (Some("application/json"), body.to_string().into_bytes()),
    };
    cluster.client.try_send(method, path, kind, body).ok()
}

/// The versions of an index's documents, each once, and their number; null if there is no index.
fn content(client: &Client, index: &str) -> Value {
    if client.get(&format!("/indexes/{index}")).status == 404 {
        return Value::Null;
    }
    let hits = client.search(index, &json!({"limit": 1000}))["hits"].clone();
    let hits = hits.as_array().cloned().unwrap_or_default();
    let mut versions: Vec<u64> = hits.iter().filter_map(|hit| hit["v"].as_u64()).collect();
    versions.sort_unstable();
    versions.dedup();
    json!([versions, hits.len(), client.get(&format!("/indexes/{index}/settings/stop-words")).body])
}

fn both(client: &Client) -> Value {
    json!([content(client, A), content(client, B)])
}

/// Two indexes with other documents and settings, and no others.
fn two_indexes(cluster: &Sandbox) {
    cluster.client.delete_indexes();
    for (index, ids, version, word) in [(A, 0..20, 1, "a"), (B, 100..130, 2, "b")] {
        cluster.client.create(index, "id", &json!({"stopWords": [word]}));
        cluster.client.add(index, &documents(ids, version));
    }
}

fn of_a() -> Value {
    json!([[1], 20, ["a"]])
}

fn of_b() -> Value {
    json!([[2], 30, ["b"]])
}

const KEY: &str = "6062abda-a5aa-4414-ac91-ecd7944c0f8d";

pub fn writes(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: two_indexes,
            run: |cluster| send(cluster, "POST", "/indexes/crash-a/documents", documents(0..20, 3)),
            see: both,
            outcomes: [json!([of_a(), of_b()]), json!([[[3], 20, ["a"]], of_b()])],
        },
    );
}

pub fn first_writes(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: |cluster| cluster.client.delete_indexes(),
            run: |cluster| send(cluster, "POST", "/indexes/crash-a/documents", documents(0..20, 3)),
            // An index without documents is left by a write that fails.
            see: |client| {
                json!(client.get("/indexes/crash-a/documents?limit=0").body["total"].as_u64().unwrap_or(0))
            },
            outcomes: [json!(0), json!(20)],
        },
    );
}

pub fn deletions(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: two_indexes,
            run: |cluster| send(cluster, "DELETE", "/indexes/crash-a", Value::Null),
            see: both,
            outcomes: [json!([of_a(), of_b()]), json!([null, of_b()])],
        },
    );
}

pub fn creations(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: |cluster| cluster.client.delete_indexes(),
            run: |cluster| send(cluster, "POST", "/indexes", json!({"uid": A, "primaryKey": "id"})),
            see: |client| client.get("/indexes/crash-a").body["primaryKey"].clone(),
            outcomes: [Value::Null, json!("id")],
        },
    );
}

pub fn swaps(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: two_indexes,
            run: |cluster| send(cluster, "POST", "/swap-indexes", json!([{"indexes": [A, B]}])),
            see: both,
            outcomes: [json!([of_a(), of_b()]), json!([of_b(), of_a()])],
        },
    );
}

pub fn renames(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: |cluster| {
                two_indexes(cluster);
                cluster.client.succeeded(&cluster.client.send("DELETE", "/indexes/crash-b", None, ""));
            },
            run: |cluster| send(cluster, "PATCH", "/indexes/crash-a", json!({"uid": B})),
            see: both,
            outcomes: [json!([of_a(), null]), json!([null, of_a()])],
        },
    );
}

pub fn settings(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: two_indexes,
            run: |cluster| send(cluster, "PATCH", "/indexes/crash-a/settings", json!({"stopWords": ["new"]})),
            see: both,
            outcomes: [json!([of_a(), of_b()]), json!([[[1], 20, ["new"]], of_b()])],
        },
    );
}

pub fn keys(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: |cluster| drop(cluster.client.send("DELETE", &format!("/keys/{KEY}"), None, "")),
            run: |cluster| {
                let key = json!({"uid": KEY, "actions": ["search"], "indexes": ["*"], "expiresAt": null});
                send(cluster, "POST", "/keys", key)
            },
            see: |client| json!(client.get(&format!("/keys/{KEY}")).status),
            outcomes: [json!(404), json!(200)],
        },
    );
}

fn unchanged() -> [Value; 2] {
    [json!([of_a(), of_b()]), json!([of_a(), of_b()])]
}

pub fn dumps(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: two_indexes,
            run: |cluster| send(cluster, "POST", "/dumps", Value::Null),
            see: both,
            outcomes: unchanged(),
        },
    );
}

/// Runs a command of the operator, which may be interrupted. It does not wait for the moves: that of a control plane that is killed
/// waits for minutes until it is back.
fn operate(cluster: &Sandbox, arguments: &[&str]) -> Option<Answer> {
    let output = cluster.miroir(&[arguments, &["--no-wait"]].concat());
    tell!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default());
    None
}

/// Applies a topology in which the last node has this weight, and replicas.
fn apply(cluster: &Sandbox, weight: u32) {
    let (mut file, path) = (cluster.miroir_json(&["topology", "show"]), cluster.data().join("topology.json"));
    file["nodes"][2]["weight"] = json!(weight);
    std::fs::write(&path, file.to_string()).unwrap();
    operate(cluster, &["topology", "apply", path.to_str().unwrap()]);
}

fn at_rest(cluster: &Sandbox) {
    wait_until("nothing moves", || {
        let status = cluster.status();
        status["ready"] == true && status["moving"] == false
    });
    cluster.wait_repaired();
}

fn even_weights(cluster: &Sandbox) {
    two_indexes(cluster);
    apply(cluster, 1);
    at_rest(cluster);
}

pub fn moves(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: even_weights,
            run: |cluster| {
                apply(cluster, 4);
                None
            },
            see: both,
            outcomes: unchanged(),
        },
    );
}

/// A node is away during a write: its replicas are copied, and handed over.
pub fn hand_overs(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: two_indexes,
            run: |cluster| {
                cluster.kill("meili-1");
                let answer = send(cluster, "POST", "/indexes/crash-a/documents", documents(0..20, 3));
                cluster.revive("meili-1");
                answer
            },
            see: both,
            outcomes: [json!([of_a(), of_b()]), json!([[[3], 20, ["a"]], of_b()])],
        },
    );
}

pub fn drains(cluster: &Sandbox) {
    killed_at_commits(
        cluster,
        &Kind {
            prepare: even_weights,
            run: |cluster| operate(cluster, &["node", "drain", "meili-0"]),
            see: both,
            outcomes: unchanged(),
        },
    );
}

fn crash_file(cluster: &Sandbox) -> PathBuf {
    cluster.data().join("control/crash-at")
}

/// The commits until the control plane is killed; `None` if it was.
fn left(cluster: &Sandbox) -> Option<u32> {
    loop {
        let text = std::fs::read_to_string(crash_file(cluster)).ok()?;
        // It may be empty for a moment, while the control plane writes it.
        if let Some(left) = text.split(' ').next().and_then(|left| left.parse().ok()) {
            return Some(left);
        }
        pass(Duration::from_millis(1));
    }
}

fn control_runs(cluster: &Sandbox) -> bool {
    cluster.processes().iter().any(|process| process["name"] == "control" && process["pid"].is_u64())
}

/// Does the operation, and lets the control plane be killed at a commit. Returns how many commits were left when it ended without.
fn run(cluster: &Sandbox, kind: &Kind, commits: u32, when: &str) -> Option<u32> {
    cluster.wait_tasks_ended();
    (kind.prepare)(cluster);
    cluster.wait_tasks_ended();
    cluster.wait_repaired();
    std::fs::write(crash_file(cluster), format!("{commits} {when}")).unwrap();
    let answer = (kind.run)(cluster);
    let accepted = answer.as_ref().is_some_and(|answer| (200..300).contains(&answer.status));
    let (mut seen, mut since) = (left(cluster), Instant::now());
    wait_until("the operation's commits are over", || {
        let now = left(cluster);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        let is_busy = || {
            let status = cluster.status();
            status["unsettledTasks"] != 0 || status["moving"] == true || status["replicasStale"] != 0
        };
        now.is_none() || (since.elapsed() > REST && !is_busy())
    });
    let left = left(cluster);
    let _ = std::fs::remove_file(crash_file(cluster));
    if left.is_none() {
        wait_until("the control plane is killed", || !control_runs(cluster));
        cluster.revive("control");
    }
    wait_until("the control plane is back", || cluster.status()["ready"] == true);
    let mut is_done = accepted;
    if let Some(answer) = answer.filter(|answer| accepted && answer.body["taskUid"].is_u64()) {
        is_done = cluster.client.ended(&answer)["status"] == "succeeded";
    }
    agree(cluster);
    let seen = (kind.see)(&cluster.client);
    let at = format!("killed {when} commit {commits}, {left:?} left");
    let [before, after] = &kind.outcomes;
    assert!(seen == *after || (!is_done && seen == *before), "{at}: {seen}, done: {is_done}");
    left
}

/// Kills the control plane at some of the commits that an operation makes.
fn killed_at_commits(cluster: &Sandbox, kind: &Kind) {
    const MANY: u32 = 100_000;
    let commits = MANY - run(cluster, kind, MANY, "after").expect("it is not killed");
    let all = || (1..=commits).flat_map(|commit| [(commit, "before"), (commit, "after")]);
    let mut points: Vec<(u32, &str)> = all().collect();
    if std::env::var("MIROIR_CRASH_POINT_COUNT").is_ok_and(|count| count == "all") {
        tell!("{commits} commits");
    } else {
        let seed = number("MIROIR_CRASH_POINT_SEED", 1);
        let mut random = Random(seed);
        let count = usize::try_from(number("MIROIR_CRASH_POINT_COUNT", 1)).unwrap();
        points =
            (0..count.min(points.len())).map(|_| points.swap_remove(random.below(points.len()))).collect();
        tell!("{commits} commits, seed {seed}: {points:?}");
    }
    for (commit, when) in points {
        let begun = Instant::now();
        let left = run(cluster, kind, commit, when);
        tell!(
            "{when} commit {commit}: {:?}{}",
            begun.elapsed(),
            if left.is_some() { ", not reached" } else { "" }
        );
    }
}
