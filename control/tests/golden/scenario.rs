//! The rows that requests of clients, gateways and operators leave in the ledger.

use super::{
    samples::operations,
    support::{
        Control, FakeNode, addition, commit, control, enqueued,
        golden::{compare, masked, sql_of},
    },
};
use miroir_control::ledger;
use miroir_core::{
    protocol::{BEGIN_PATH, Begin, COMMIT_PATH, REPORT_PATH, Report},
    shard::Shard,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Sends a client's request; gives the uid of its task, once it has ended.
async fn done(control: &Control, method: &str, path: &str, body: Value) -> Option<u64> {
    let method = method.parse().unwrap();
    let request = reqwest::Client::new().request(method, format!("{}{path}", control.url));
    let answer = request.json(&body).send().await.unwrap();
    let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {answer}");
    // What nodes do at once has no task of the cluster's.
    let uid = answer["taskUid"].as_u64().filter(|_| answer["enqueuedAt"].is_string())?;
    control.ended(u32::try_from(uid).unwrap()).await;
    Some(uid)
}

/// Sends a write to both nodes, and commits it.
async fn written(control: &Control, nodes: [&FakeNode; 2], index: &str, shards: &[u16]) -> u32 {
    let (uid, key) = control.begin(index, shards).await;
    let mut results = Vec::new();
    for (name, node) in ["n0", "n1"].into_iter().zip(nodes) {
        results.push(enqueued(name, node.add_documents(index, uid, &key).await));
    }
    let (status, summary) = control.internal(COMMIT_PATH, &commit(uid, results)).await;
    assert_eq!(status, 200, "{summary}");
    uid
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many versions the topology has had depends on how changes fall together, and on nodes' tasks how often they are asked.
fn without_counts(row: &str) -> String {
    let key = |name: &str| row.starts_with(&format!("INSERT INTO meta (key, value) VALUES ('{name}', "));
    if key("version") || key("floor") {
        return row.rsplit_once(", ").map(|(start, _)| format!("{start}, '<version>');")).unwrap();
    }
    if key("place") {
        return "INSERT INTO meta (key, value) VALUES ('place', '<place>');".to_owned();
    }
    if key("nodes") {
        let mut parts = row.split("\"since\":");
        let first = parts.next().unwrap().to_owned();
        return parts.fold(first, |text, part| {
            format!(
                "{text}\"since\":<version>{}",
                part.trim_start_matches(|letter: char| letter.is_ascii_digit())
            )
        });
    }
    if row.starts_with("INSERT INTO node_tasks") {
        let mut values: Vec<&str> = row.splitn(8, ", ").collect();
        values[7] = values[7].split_once(", ").unwrap().1;
        return values.join(", ");
    }
    row.to_owned()
}

#[tokio::test]
async fn the_ledger_has_these_rows_after_all_that_clients_and_operators_do() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [FakeNode::start().await, FakeNode::start().await, FakeNode::start().await];
    let [a, b, c] = &nodes;
    let control = control(folder.path(), &[a, b]).await;
    let uid = written(&control, [a, b], "movies", &[0, 2]).await;
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    done(&control, "POST", "/indexes", json!({"uid": "books", "primaryKey": "isbn"})).await;
    let settings =
        json!({"stopWords": ["the"], "faceting": {"maxValuesPerFacet": 7}, "rankingRules": ["words"]});
    done(&control, "PATCH", "/indexes/movies/settings", settings).await;
    done(&control, "POST", "/swap-indexes", json!([{"indexes": ["movies", "books"]}])).await;
    done(&control, "POST", "/indexes", json!({"uid": "gone"})).await;
    done(&control, "DELETE", "/indexes/gone", Value::Null).await;
    done(&control, "PATCH", "/network", json!({"self": "here"})).await;
    done(&control, "PATCH", "/chats/support/settings", json!({"orgId": "o"})).await;
    let node = json!({"name": "n2", "url": format!("http://{}", c.address)});
    let wanted = json!({"wanted": {"operation": "addNode", "node": node}, "pace": {"shardsAtOnce": 2}});
    let answer = reqwest::Client::new()
        .post(format!("{}/_miroir/operations", control.url))
        .header("x-miroir-token", &control.cluster.secrets.admin_token)
        .json(&wanted)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    until("moved", async || {
        let cluster_state = control.cluster.cluster_state();
        !cluster_state.is_moving()
            && !cluster_state.has_stale()
            && cluster_state.behind.is_empty()
            && cluster_state.nodes.len() == 3
    })
    .await;
    let report = Report {
        vm: "vm".into(),
        oldest: control.cluster.cluster_state().version,
        has_heard: Some(true),
        stale_by_index: true,
        ..Report::default()
    };
    assert_eq!(control.internal(REPORT_PATH, &report).await.0, 200);
    let failing = Begin { operation: operations().swap_remove(0), ..addition("books", &[0]) };
    let (_, failed) = control.internal(BEGIN_PATH, &failing).await;
    assert_eq!(failed["decision"], "recorded");
    // A write that nodes have not done, and one without a commit.
    for node in &nodes {
        node.memory.lock().unwrap().ends = Some("enqueued");
    }
    let shard = control
        .cluster
        .cluster_state()
        .shards()
        .find(|shard| control.cluster.cluster_state().replica(*shard, "n2").is_none());
    let uid = written(&control, [a, b], "books", &[shard.unwrap().0]).await;
    until("processing", async || control.task(uid).await["status"] == "processing").await;
    let other = if shard == Some(Shard(0)) { 1 } else { 0 };
    control.begin("books", &[other]).await;

    let sql = sql_of(&folder.path().join(ledger::FILE));
    let (rows, schema): (Vec<&str>, Vec<&str>) = sql.lines().partition(|line| line.starts_with("INSERT"));
    // How far nodes' tasks have been examined depends on when they are asked.
    let is_examined = |row: &str| row.starts_with("INSERT INTO examined ");
    let rows = rows.into_iter().filter(|row| !is_examined(row));
    let mut rows: Vec<String> = rows.map(|row| masked(&without_counts(row))).collect();
    // Without what is masked, rows have another order.
    rows.sort();
    compare("ledger-scenario.sql", &format!("{}\n{}\n", schema.join("\n"), rows.join("\n")));
}
