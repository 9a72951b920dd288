//! What clients and operators do, and what they see.

use super::{
    control::ControlRequest,
    gateway::Gateway,
    model,
    plan::{Action, Step},
    world::{Party, World},
};
use miroir_core::{
    http::{Reply, RequestHead},
    path::ApiPath,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a client has seen of one of its requests.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When it was sent.
    pub sent_at: u64,
    /// The status of the reply, and when it came.
    pub reply: Option<(u16, u64)>,
    /// The task's uid.
    pub uid: Option<u32>,
    /// The task's end, and when it was seen first.
    pub end: Option<(String, u64)>,
}

/// A read of one document.
#[derive(Clone, Debug)]
pub struct ReadSeen {
    pub step: u64,
    pub index: String,
    pub id: u64,
    pub sent_at: u64,
    /// The document; `None` where there is none.
    pub document: Option<Value>,
}

/// What all clients have seen.
#[derive(Debug, Default)]
pub struct Clients {
    pub seen: BTreeMap<u64, Seen>,
    pub reads: Vec<ReadSeen>,
    /// Requests that have no reply yet.
    pub waiting: u64,
    /// How many reads of each kind of answer there were.
    pub unanswered_reads: u64,
}

/// How often a client asks for its task, in milliseconds.
const POLL: u64 = 250;
/// For how long, in milliseconds.
const PATIENCE: u64 = 240_000;

/// The uid of a client's key.
pub fn key_uid(key: u64) -> String {
    format!("00000000-0000-4000-8000-00000000000{key}")
}

/// The text that every write carries as its `customMetadata`.
pub fn mark(step: u64) -> String {
    format!("step-{step}")
}

struct Sent {
    method: &'static str,
    path: String,
    key: String,
    body: Option<Value>,
}

fn request(world: &World, action: &Action, step: u64) -> Option<Sent> {
    let secrets = &world.setup.secrets;
    let of = |method: &'static str, path: String, body: Option<Value>| {
        Some(Sent { method, path, key: secrets.master_key.clone(), body })
    };
    let mark = mark(step);
    let documents = |ids: &[u64], update: bool| -> Value {
        ids.iter().map(|id| Value::Object(model::document(*id, step, update))).collect()
    };
    let add = |index: &str| format!("/indexes/{index}/documents?primaryKey=id&customMetadata={mark}");
    match action {
        Action::Add { index, ids, update } => {
            of(if *update { "PUT" } else { "POST" }, add(index), Some(documents(ids, *update)))
        }
        Action::Unauthorized { index, ids } => Some(Sent {
            method: "POST",
            path: add(index),
            key: "0123456789abcdef".repeat(4),
            body: Some(documents(ids, false)),
        }),
        Action::AddWithKey { index, ids, key } => Some(Sent {
            method: "POST",
            path: add(index),
            key: secrets.key_text(uuid::Uuid::parse_str(&key_uid(*key)).ok()?),
            body: Some(documents(ids, false)),
        }),
        Action::Delete { index, ids } => of(
            "POST",
            format!("/indexes/{index}/documents/delete-batch?customMetadata={mark}"),
            Some(json!(ids)),
        ),
        Action::DeleteGroup { index, group } => of(
            "POST",
            format!("/indexes/{index}/documents/delete?customMetadata={mark}"),
            Some(json!({"filter": format!("group = {group}")})),
        ),
        Action::DeleteAll { index } => {
            of("DELETE", format!("/indexes/{index}/documents?customMetadata={mark}"), None)
        }
        Action::Edit { index, group } => of(
            "POST",
            format!("/indexes/{index}/documents/edit?customMetadata={mark}"),
            Some(
                json!({"filter": format!("group = {group}"), "function": format!("doc.set_by_edit = {step}")}),
            ),
        ),
        Action::Create { index } => of("POST", "/indexes".to_owned(), Some(json!({"uid": index}))),
        Action::DeleteIndex { index } => of("DELETE", format!("/indexes/{index}"), None),
        Action::Swap { left, right } => {
            of("POST", "/swap-indexes".to_owned(), Some(json!([{"indexes": [left, right]}])))
        }
        Action::Rename { index, to } => of("PATCH", format!("/indexes/{index}"), Some(json!({"uid": to}))),
        Action::Settings { index } => {
            of("PATCH", format!("/indexes/{index}/settings"), Some(model::settings(step)))
        }
        Action::Read { index, id } => of("GET", format!("/indexes/{index}/documents/{id}"), None),
        Action::CreateKey { key } => of(
            "POST",
            "/keys".to_owned(),
            Some(json!({
                "uid": key_uid(*key), "name": "a client", "actions": ["documents.*", "indexes.*"], "indexes": ["*"],
                "expiresAt": null,
            })),
        ),
        Action::DeleteKey { key } => of("DELETE", format!("/keys/{}", key_uid(*key)), None),
        Action::AddNode { .. }
        | Action::ReplaceNode { .. }
        | Action::DrainNode { .. }
        | Action::RemoveNode { .. } => None,
    }
}

/// A client or an operator does something.
pub fn act(world: &mut World, step: &Step, action: &Action) {
    let number = step.number;
    world.note(|| format!("step {number}: {action:?}"));
    let Some(Sent { method, path, key, body }) = request(world, action, number) else {
        operate(world, action);
        return;
    };
    let seen = Seen { sent_at: world.now, ..Seen::default() };
    world.clients.seen.insert(number, seen);
    world.clients.waiting += 1;
    let mut headers = vec![("authorization".to_owned(), format!("Bearer {key}"))];
    if body.is_some() {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let head = RequestHead { method: method.to_owned(), path: ApiPath::parse(&path).unwrap(), headers };
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    if let Action::Swap { .. } | Action::Rename { .. } = action {
        world.may_move(&action.indexes());
    }
    let (gateway, action) = (step.gateway, action.clone());
    let done = move |world: &mut World, reply: Option<Reply>| {
        world.clients.waiting -= 1;
        replied(world, number, gateway, &action, reply);
    };
    Gateway::request(world, gateway, head, body, Box::new(done));
}

fn replied(world: &mut World, number: u64, gateway: usize, action: &Action, reply: Option<Reply>) {
    let now = world.now;
    let Some(reply) = reply else {
        world.note(|| format!("step {number} has no reply"));
        return;
    };
    let body: Value =
        std::str::from_utf8(&reply.body).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    world.note(|| format!("step {number} gets {} {body}", reply.status));
    let Some(seen) = world.clients.seen.get_mut(&number) else { return };
    seen.reply = Some((reply.status, now));
    if let Action::Read { index, id } = action {
        let document = match reply.status {
            200 => Some(body),
            404 => None,
            _ => {
                world.clients.unanswered_reads += 1;
                return;
            }
        };
        let (sent_at, index) = (seen.sent_at, index.clone());
        world.clients.reads.push(ReadSeen { step: number, index, id: *id, sent_at, document });
        return;
    }
    if reply.status == 202
        && let Some(uid) = body["taskUid"].as_u64().and_then(|uid| u32::try_from(uid).ok())
    {
        seen.uid = Some(uid);
        world.clients.waiting += 1;
        let until = now + PATIENCE;
        world.after(POLL, move |world| poll(world, number, uid, gateway, until));
    }
}

/// Asks for a task until it has ended.
fn poll(world: &mut World, number: u64, uid: u32, gateway: usize, until: u64) {
    let headers = vec![("authorization".to_owned(), format!("Bearer {}", world.setup.secrets.master_key))];
    let path = ApiPath::parse(&format!("/tasks/{uid}")).unwrap();
    let head = RequestHead { method: "GET".to_owned(), path, headers };
    let done = move |world: &mut World, reply: Option<Reply>| {
        let task: Option<Value> = reply
            .filter(|reply| reply.status == 200)
            .and_then(|reply| serde_json::from_slice(&reply.body).ok());
        let status = task.as_ref().and_then(|task| task["status"].as_str());
        // Whoever asks too late gets 404.
        let pruned = world.pruned.get(&uid).map(|row| row.status.as_str());
        let status = status.or(pruned).unwrap_or_default().to_owned();
        if ["succeeded", "failed", "canceled"].contains(&status.as_str()) {
            world.note(|| {
                format!(
                    "step {number}: its task {uid} is {status} {}",
                    task.unwrap_or_default()["error"]["message"]
                )
            });
            let now = world.now;
            if let Some(seen) = world.clients.seen.get_mut(&number) {
                seen.end = Some((status, now));
            }
            world.clients.waiting -= 1;
        } else if world.now < until {
            let gateway = (gateway + 1) % world.gateways.len();
            world.after(POLL, move |world| poll(world, number, uid, gateway, until));
        } else {
            world.clients.waiting -= 1;
        }
    };
    Gateway::request(world, gateway, head, Vec::new(), Box::new(done));
}

/// An operator changes the members.
fn operate(world: &mut World, action: &Action) {
    let node = |name: &str| json!({"name": name, "url": format!("http://{name}:7700")});
    let drain = |name: &str| json!({"operation": "drainNode", "name": name});
    let (wanted, then) = match action {
        Action::AddNode { node: name } => (json!({"operation": "addNode", "node": node(name)}), None),
        Action::ReplaceNode { node: name, by } => {
            (json!({"operation": "replaceNode", "name": name, "node": node(by)}), None)
        }
        Action::DrainNode { node: name } => (drain(name), None),
        Action::RemoveNode { node: name } => {
            (drain(name), Some(json!({"operation": "removeNode", "name": name})))
        }
        _ => return,
    };
    if let Action::AddNode { node } | Action::ReplaceNode { by: node, .. } = action
        && !world.nodes.contains_key(node)
    {
        let new = super::node::Node::new(node, &world.setup.secrets.master_key, world.setup.seed);
        world.nodes.insert(node.clone(), new);
    }
    want(world, &wanted, then);
}

/// Wants an operation, and another one once that has started.
fn want(world: &mut World, wanted: &Value, then: Option<Value>) {
    let request = operator(world, "/_miroir/operations", &json!({"wanted": wanted}));
    world.clients.waiting += 1;
    world.send_to_control(
        Party::Control,
        request,
        Box::new(|world, reply| {
            world.clients.waiting -= 1;
            let status = reply.as_ref().map(|reply| reply.status);
            world.note(|| {
                let told = reply.map(|it| String::from_utf8_lossy(&it.body).into_owned());
                format!("the operator gets {status:?} {told:?}")
            });
            if let (Some(200), Some(then)) = (status, then) {
                want(world, &then, None);
            }
        }),
    );
}

/// A request of an operator, which no network loses.
pub fn operator(world: &World, path: &str, body: &Value) -> ControlRequest {
    let headers = vec![
        ("x-miroir-token".to_owned(), world.setup.secrets.admin_token.clone()),
        ("content-type".to_owned(), "application/json".to_owned()),
    ];
    ControlRequest {
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers,
        body: body.to_string().into_bytes(),
    }
}
