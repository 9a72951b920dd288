//! What a fake node answers about its tasks.

use super::{MOMENT, Memory};
use axum::{
    Json,
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// `GET /tasks`.
pub(super) async fn tasks(
    memory: State<Arc<Mutex<Memory>>>,
    Query(query): Query<HashMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let memory = memory.lock().unwrap();
    if memory.hides_tasks {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null));
    }
    let uids: Option<Vec<u64>> =
        query.get("uids").map(|uids| uids.split(',').map(|uid| uid.parse().unwrap()).collect());
    let statuses: Option<Vec<&str>> = query.get("statuses").map(|statuses| statuses.split(',').collect());
    let number = |name: &str| query.get(name).map(|number| number.parse::<u64>().unwrap());
    let (from, is_reverse) = (number("from"), query.get("reverse").is_some_and(|reverse| reverse == "true"));
    let is_asked = |task: &&Value| {
        let uid = task["uid"].as_u64().unwrap();
        uids.as_ref().is_none_or(|uids| uids.contains(&uid))
            && statuses.as_ref().is_none_or(|statuses| statuses.contains(&task["status"].as_str().unwrap()))
            && from.is_none_or(|from| if is_reverse { uid >= from } else { uid <= from })
    };
    let mut found: Vec<&Value> = memory.tasks.iter().filter(is_asked).collect();
    if !is_reverse {
        found.reverse();
    }
    let limit = usize::try_from(number("limit").unwrap_or(20)).unwrap();
    let next = found.get(limit).map(|task| &task["uid"]);
    let page = json!({"results": found[..limit.min(found.len())], "next": next, "total": found.len()});
    (StatusCode::OK, Json(page))
}

/// Cancels what has not begun.
pub(super) async fn cancel(
    memory: State<Arc<Mutex<Memory>>>,
    Query(query): Query<HashMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let mut memory = memory.lock().unwrap();
    let uids: Vec<usize> = query["uids"].split(',').map(|uid| uid.parse().unwrap()).collect();
    for uid in uids {
        if memory.tasks[uid]["status"] == "enqueued" {
            memory.tasks[uid]["status"] = json!("canceled");
        }
    }
    let uid = memory.tasks.len();
    let task = json!({"uid": uid, "status": "succeeded", "type": "taskCancelation", "enqueuedAt": MOMENT});
    memory.tasks.push(task);
    (StatusCode::ACCEPTED, Json(json!({"taskUid": uid, "status": "enqueued"})))
}

/// `GET /tasks/{uid}`.
pub(super) async fn task(memory: State<Arc<Mutex<Memory>>>, UrlPath(uid): UrlPath<usize>) -> Json<Value> {
    Json(memory.lock().unwrap().tasks[uid].clone())
}
