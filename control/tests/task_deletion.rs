//! Deletions of more tasks than a statement of SQLite has parameters, and a ledger that cannot store anything.
#![allow(missing_docs, reason = "tests")]

#[allow(dead_code, reason = "not every test needs all of it")]
mod support;

use miroir_control::{
    domain::task::{TaskKind, TaskStatus},
    ledger::tasks::{self, Ending, NewTask},
};
use serde_json::{Value, json};
use support::{Control, FakeNode, control};

/// Puts tasks that have ended into the ledger.
async fn ended_tasks(control: &Control, count: u32) {
    let insert = move |connection: &_| {
        for number in 0..count {
            let new = NewTask {
                index: Some("movies".into()),
                kind: TaskKind::DocumentAdditionOrUpdate,
                ..NewTask::default()
            };
            let task = tasks::insert(connection, &new, i64::from(number))?;
            let status = if number % 2 == 0 { TaskStatus::Succeeded } else { TaskStatus::Failed };
            let ending = Ending { status, details: None, error: None, started_at: Some(1), finished_at: 2 };
            tasks::finish(connection, task.uid, &ending)?;
        }
        Ok(())
    };
    control.cluster.ledger.call(insert).await.unwrap();
}

async fn send(control: &Control, method: &str, path: &str) -> (u16, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let answer =
        reqwest::Client::new().request(method, format!("{}{path}", control.url)).send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {text}: {error}")))
}

#[tokio::test]
async fn forty_thousand_tasks_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let node = FakeNode::start().await;
    let control = control(folder.path(), &[&node]).await;
    ended_tasks(&control, 40_000).await;
    let (_, page) = send(&control, "GET", "/tasks?limit=1").await;
    assert_eq!(page["total"], 40_000);
    let (status, summary) = send(&control, "DELETE", "/tasks?statuses=succeeded,failed").await;
    assert_eq!(status, 200, "{summary}");
    let uid = u32::try_from(summary["taskUid"].as_u64().unwrap()).unwrap();
    let task = control.ended(uid).await;
    let details = json!({"matchedTasks": 40_000, "deletedTasks": 40_000, "originalFilter": "?statuses=succeeded,failed"});
    assert_eq!((&task["status"], &task["details"]), (&json!("succeeded"), &details));
    let (_, page) = send(&control, "GET", "/tasks").await;
    assert_eq!((&page["total"], &page["results"][0]["uid"]), (&json!(1), &json!(uid)));
    // Many uids in the URL.
    let uids = vec!["1"; 10_000].join(",");
    let (status, summary) = send(&control, "DELETE", &format!("/tasks?uids={uids}")).await;
    assert_eq!(status, 200, "{summary}");
    let uid = u32::try_from(summary["taskUid"].as_u64().unwrap()).unwrap();
    assert_eq!(control.ended(uid).await["details"]["deletedTasks"], 0);
}

#[tokio::test]
async fn health_says_that_the_ledger_cannot_store_anything() {
    let folder = tempfile::tempdir().unwrap();
    let node = FakeNode::start().await;
    let control = control(folder.path(), &[&node]).await;
    assert_eq!(send(&control, "GET", "/health").await, (200, json!({"status": "available"})));
    let most = |pages: u32| {
        move |connection: &_| {
            let limit = |connection: &rusqlite::Connection| {
                connection.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, u32>(0))
            };
            Ok(limit(connection)?)
        }
    };
    control.cluster.ledger.call(most(1)).await.unwrap();
    // It goes on until the last page is full. What needs no new page may still be stored in between.
    let begun = std::time::Instant::now();
    let (mut refused, mut number) = (Value::Null, 0);
    while send(&control, "GET", "/health").await.0 != 503 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{refused}");
        number += 1;
        let uid = format!("{number}{}", "x".repeat(300));
        let body = json!({ "uid": uid });
        let answer =
            reqwest::Client::new().post(format!("{}/indexes", control.url)).json(&body).send().await.unwrap();
        match answer.status().as_u16() {
            422 => refused = answer.json().await.unwrap(),
            status => assert_eq!(status, 202, "{}", answer.text().await.unwrap()),
        }
    }
    assert_eq!(
        (&refused["code"], &refused["type"]),
        (&json!("no_space_left_on_device"), &json!("system")),
        "{refused}"
    );
    control.cluster.ledger.call(most(1 << 20)).await.unwrap();
    let begun = std::time::Instant::now();
    while send(&control, "GET", "/health").await.0 != 200 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it is tried each second");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
