//! What must hold: the invariants of `docs/architecture/write-protocol.md`, by their numbers.

mod reads;

use super::{
    client::{self, Seen},
    model::{Model, unsure},
    plan::{Action, Fault, Part, Plan},
    world::{Party, World},
};
use miroir_core::shard::{Shard, TAG_FIELD};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How long the cluster has to come to rest after the last fault, in milliseconds.
const REST: u64 = 300_000;
/// For how many seconds it must last: the control plane has looked at each node by then.
const CALM: u32 = 4;

/// A task of the ledger.
#[derive(Clone, Debug)]
pub struct Row {
    pub uid: u32,
    pub index: Option<String>,
    pub kind: String,
    pub status: String,
    pub details: Value,
    pub error: Option<String>,
    pub mark: Option<String>,
}

impl Row {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        ["succeeded", "failed", "canceled"].contains(&self.status.as_str())
    }
}

/// All tasks of the ledger.
pub fn rows(connection: &Connection, after: i64) -> Vec<Row> {
    let mut statement = connection
        .prepare_cached(
            "SELECT uid, index_uid, type, status, details, error, custom_metadata FROM tasks WHERE uid > ?1 ORDER BY uid",
        )
        .unwrap();
    let json = |text: Option<String>| {
        text.and_then(|text| serde_json::from_str::<Value>(&text).ok()).unwrap_or_default()
    };
    let rows = statement.query_map([after], |row| {
        Ok(Row {
            uid: row.get(0)?,
            index: row.get(1)?,
            kind: row.get(2)?,
            status: row.get(3)?,
            details: json(row.get(4)?),
            error: json(row.get(5)?)["code"].as_str().map(ToOwned::to_owned),
            mark: row.get(6)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Lets the cluster come to rest, and looks at everything. What is wrong is among the world's violations afterwards.
pub fn judge(world: &mut World, plan: &Plan, until: u64) {
    world.run_until(until);
    if !comes_to_rest(world) {
        return;
    }
    verify(world);
    let Some(truth) = Truth::new(world, plan) else { return };
    truth.judge_clients(world, plan);
    truth.judge_nodes(world);
    truth.judge_reads(world);
}

fn comes_to_rest(world: &mut World) -> bool {
    let limit = world.now + REST;
    let mut calm = 0;
    loop {
        world.run_until(world.now + 1_000);
        let unrest = unrest(world);
        let is_calm = unrest.is_empty() && world.late_bodies == 0 && world.clients.waiting == 0;
        calm = if is_calm { calm + 1 } else { 0 };
        if calm == CALM {
            return true;
        }
        if world.now > limit {
            let waiting = world.clients.waiting;
            world.violations.push(format!("10, 11: no rest: {}; {waiting} clients wait", unrest.join("; ")));
            return false;
        }
    }
}

/// What has not come to rest.
fn unrest(world: &World) -> Vec<String> {
    let mut unrest = Vec::new();
    let Some(control) = &world.control else { return vec!["the control plane is down".to_owned()] };
    let cluster = &control.cluster;
    let state = cluster.cluster_state();
    let mut add = |is: bool, what: String| {
        if is {
            unrest.push(what);
        }
    };
    add(!cluster.is_ready(), "the control plane has not started".to_owned());
    let inactive = state.replicas.iter().flatten().filter(|replica| !replica.is_active()).count();
    add(inactive > 0, format!("{inactive} replicas are not active"));
    add(!state.stale.is_empty(), format!("{} replicas are stale in an index", state.stale.count()));
    add(state.is_moving(), "replicas are moving".to_owned());
    add(!state.behind.is_empty(), format!("{:?} are behind", state.behind));
    add(!state.changing.is_empty(), "settings are changing".to_owned());
    add(cluster.tracked_tasks.count() > 0, format!("{} tasks are tracked", cluster.tracked_tasks.count()));
    add(cluster.open.undecided() > 0, format!("{} writes are open", cluster.open.undecided()));
    let (held, waiting) = cluster.locks.counts();
    add(held + waiting > 0, format!("{held} locks are held, and {waiting} waited for"));
    let away = world.nodes.values().filter(|node| !node.is_up || world.now < node.stopped_until).count();
    let away = away + cluster.nodes().iter().filter(|node| !node.is_up()).count();
    add(away > 0, format!("{away} nodes are away, or count as away"));
    let is_stopped = world.now < world.control_stopped_until;
    let is_troubled = world.network.is_troubled(world.now) || world.setup.disk.is_full();
    add(is_stopped || is_troubled, "faults go on".to_owned());
    let busy = world.nodes.values().filter(|node| state.member(&node.name).is_some());
    let busy = busy.filter(|node| node.tasks.values().any(|task| !task.is_over())).count();
    add(busy > 0, format!("{busy} nodes have tasks"));
    let count = |sql: &str| -> i64 {
        world.setup.disk.read(|connection| connection.query_row(sql, [], |row| row.get(0)).unwrap())
    };
    let intents = count("SELECT count(*) FROM intents");
    add(intents > 0, format!("{intents} intents are left"));
    let unfinished = count("SELECT count(*) FROM tasks WHERE status IN ('enqueued', 'processing')");
    add(unfinished > 0, format!("{unfinished} tasks have not ended"));
    let all = u64::try_from(count("SELECT count(*) FROM tasks")).unwrap();
    let most = world.setup.task_limits.map_or(u64::MAX, |limits| limits.most);
    add(all >= most, format!("{all} tasks are kept"));
    unrest
}

/// Has the control plane compare all copies.
fn verify(world: &mut World) {
    let shards: Vec<u16> = (0..u16::try_from(world.shards()).unwrap()).collect();
    let request = client::operator(world, "/_miroir/verify", &json!({"shards": shards}));
    let found = std::rc::Rc::new(std::cell::RefCell::new(None));
    let told = found.clone();
    world.send_to_control(
        Party::Control,
        request,
        Box::new(move |_, reply| *told.borrow_mut() = Some(reply)),
    );
    let limit = world.now + 60_000;
    while found.borrow().is_none() && world.now < limit {
        world.run_until(world.now + 50);
    }
    let reply = found.borrow_mut().take().flatten();
    let findings: Value =
        reply.as_ref().and_then(|reply| serde_json::from_slice(&reply.body).ok()).unwrap_or_default();
    let is_clean = ["differences", "silent", "strays"]
        .iter()
        .all(|name| findings[*name].as_array().is_some_and(Vec::is_empty));
    if !is_clean {
        world.violations.push(format!("2: verify finds {findings}"));
    }
}

/// What one Meilisearch would have after each task.
struct Truth {
    rows: BTreeMap<u32, Row>,
    steps: BTreeMap<u32, (u64, Action)>,
    /// After each task.
    states: BTreeMap<u32, Model>,
    last: Model,
    /// The indexes of which it is not known whether they are there.
    unsure: BTreeSet<String>,
}

impl Truth {
    /// Runs all tasks of the ledger one after another. `None` if there is a violation already.
    fn new(world: &mut World, plan: &Plan) -> Option<Self> {
        let rows = world.setup.disk.read(|connection| rows(connection, -1));
        let rows = rows.into_iter().map(|row| (row.uid, row)).chain(std::mem::take(&mut world.pruned));
        let rows: BTreeMap<u32, Row> = rows.filter(|(_, row)| row.kind != "taskDeletion").collect();
        let actions: BTreeMap<u64, &Action> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.part {
                Part::Action(action) => Some((step.number, action)),
                Part::Fault(_) => None,
            })
            .collect();
        let by_uid: BTreeMap<u32, u64> =
            world.clients.seen.iter().filter_map(|(step, seen)| Some((seen.uid?, *step))).collect();
        let is_failed = |step: &u64| {
            let seen = world.clients.seen.get(step);
            seen.is_none_or(|seen| seen.end.as_ref().is_none_or(|(status, _)| status != "succeeded"))
        };
        let failed = actions.iter().filter(|(step, _)| is_failed(step)).map(|(_, action)| *action);
        let unsure = unsure(failed, &actions.values().copied().collect::<Vec<_>>());
        let mut truth =
            Self { rows, steps: BTreeMap::new(), states: BTreeMap::new(), last: Model::default(), unsure };
        let mut model = Model::default();
        for (uid, row) in &truth.rows {
            let step = row.mark.as_deref().and_then(|mark| mark.strip_prefix("step-")?.parse().ok());
            let step = step.or_else(|| by_uid.get(uid).copied());
            let action = match step.and_then(|step| Some((step, (*actions.get(&step)?).clone()))) {
                Some(found) => Some(found),
                // Its client has had no answer: the ledger says what it was.
                None => world.first_rows.get(uid).and_then(|first| action_of(first, &actions)),
            };
            let Some((step, action)) = action else {
                world.violations.push(format!("7: task {uid} is nobody's: {row:?}"));
                return None;
            };
            if row.status == "succeeded" {
                let before = model.clone();
                if !model.apply_done(&action, step, truth.is_sure(&action)) {
                    world.violations.push(format!(
                        "5: task {uid} of step {step} has succeeded, which could not: {action:?}"
                    ));
                    model = before;
                }
            } else {
                let is_about_state = row.error.as_deref().is_some_and(|code| {
                    ["index_not_found", "index_already_exists", "invalid_document_filter"].contains(&code)
                });
                let mut possible = model.clone();
                let is_certain = is_about_state && !world.has_lost_disks && truth.is_sure(&action);
                if is_certain && possible.apply(&action, step) {
                    world.violations.push(format!(
                        "5: task {uid} of step {step} has failed with {:?}, which could succeed: {action:?}",
                        row.error
                    ));
                }
                if !is_about_state {
                    model.may_have(&action);
                }
            }
            truth.steps.insert(*uid, (step, action));
            truth.states.insert(*uid, model.clone());
        }
        truth.last = model;
        Some(truth)
    }

    /// Whether it is known which of the action's indexes are there.
    fn is_sure(&self, action: &Action) -> bool {
        !action.indexes().iter().any(|index| self.unsure.contains(*index))
    }

    /// What clients have been told, against what the ledger says.
    fn judge_clients(&self, world: &mut World, plan: &Plan) {
        let seen = world.clients.seen.clone();
        for (step, Seen { uid, end, .. }) in &seen {
            let (Some(uid), Some((status, _))) = (uid, end) else { continue };
            let row = self.rows.get(uid);
            if row.is_none_or(|row| row.status != *status) {
                let now = row.map(|row| row.status.clone());
                world
                    .violations
                    .push(format!("7: task {uid} of step {step} was {status}, and is now {now:?}"));
            }
        }
        for (uid, (step, action)) in &self.steps {
            let is_allowed = match action {
                Action::Unauthorized { .. } => false,
                Action::AddWithKey { key, .. } => may_be_known(plan, &seen, *key, *step),
                _ => true,
            };
            if !is_allowed {
                world.violations.push(format!("8: task {uid} of step {step} is that of an unknown key"));
            }
        }
    }

    /// All active replicas have what one Meilisearch would have.
    fn judge_nodes(&self, world: &mut World) {
        let Some(control) = &world.control else { return };
        let state = control.cluster.cluster_state();
        let mut wrong = Vec::new();
        let catalogue: BTreeSet<&String> = state.indexes.keys().collect();
        let expected: BTreeSet<&String> = self.last.indexes.keys().collect();
        if catalogue.symmetric_difference(&expected).any(|index| !self.unsure.contains(*index)) {
            wrong.push(format!("5: the catalogue has {catalogue:?} instead of {expected:?}"));
        }
        for member in &state.nodes {
            let Some(node) = world.nodes.get(member.config.name.as_str()) else { continue };
            let there: BTreeSet<&String> = node.indexes.keys().collect();
            if there != catalogue {
                wrong.push(format!("5: {} has the indexes {there:?} instead of {catalogue:?}", node.name));
            }
            for (name, index) in &self.last.indexes {
                let Some(of_node) = node.indexes.get(name) else { continue };
                if let Some(step) = index.settings {
                    let words = &super::model::settings(step)["stopWords"];
                    if of_node.settings.get("stopWords") != Some(words) {
                        let has = of_node.settings.get("stopWords");
                        wrong.push(format!(
                            "5: {} has other settings of {name}: {has:?} instead of {words}",
                            node.name
                        ));
                    }
                }
                for id in 0..10 {
                    let shard =
                        Shard::of_document(&id.to_string(), u16::try_from(state.replicas.len()).unwrap());
                    let is_active = state.is_whole(name, shard, &node.name);
                    let found = of_node.documents.get(&id.to_string()).map(untagged);
                    let expected = index.documents.get(&id).cloned().unwrap_or_default();
                    if is_active && !expected.is_open && found != expected.content {
                        wrong.push(format!(
                            "1, 2: {} has document {id} of {name} as {} instead of {}",
                            node.name,
                            json!(found),
                            json!(expected.content)
                        ));
                    }
                }
            }
        }
        world.violations.extend(wrong);
    }
}

/// For how long a deleted key may still be taken for valid, in milliseconds: see `KeyCache`.
const CACHED: u64 = 3_000;

/// Whether a key may have existed when a step was judged.
fn may_be_known(plan: &Plan, seen: &BTreeMap<u64, Seen>, key: u64, step: u64) -> bool {
    let Some(this) = seen.get(&step) else { return true };
    // Its begin may come a second time, after the reply.
    let is_doubled = plan.steps.iter().any(|step| matches!(step.part, Part::Fault(Fault::Doubled { .. })));
    let until = this.reply.filter(|_| !is_doubled).map_or(u64::MAX, |(_, at)| at);
    let of = |is: &dyn Fn(&Action) -> bool| -> Vec<&Seen> {
        let steps = plan.steps.iter().filter(|step| matches!(&step.part, Part::Action(action) if is(action)));
        steps.filter_map(|step| seen.get(&step.number)).collect()
    };
    let made = of(&|action| *action == Action::CreateKey { key });
    let deleted = of(&|action| *action == Action::DeleteKey { key });
    let is_gone = |made: &Seen| {
        deleted.iter().any(|deleted| {
            let is_after = made.reply.is_some_and(|(_, at)| at <= deleted.sent_at);
            is_after && deleted.reply.is_some_and(|(status, at)| status == 204 && at + CACHED < this.sent_at)
        })
    };
    made.iter().any(|made| made.sent_at < until && !is_gone(made))
}

/// The action of a task that no client knows, by its row as it was at first.
fn action_of(row: &Row, actions: &BTreeMap<u64, &Action>) -> Option<(u64, Action)> {
    let index = row.index.clone().unwrap_or_default();
    let is_it = |action: &Action| match action {
        Action::Create { index: of } => row.kind == "indexCreation" && *of == index,
        Action::DeleteIndex { index: of } => row.kind == "indexDeletion" && *of == index,
        Action::Rename { index: of, to } => {
            row.kind == "indexUpdate" && *of == index && row.details["newIndexUid"] == json!(to)
        }
        Action::Swap { left, right } => {
            row.kind == "indexSwap" && row.details["swaps"][0]["indexes"] == json!([left, right])
        }
        _ => false,
    };
    let by_step = |step: &u64| {
        row.kind == "settingsUpdate" && row.details["stopWords"] == super::model::settings(*step)["stopWords"]
    };
    let found = actions
        .iter()
        .find(|(step, action)| is_it(action) || (by_step(step) && matches!(action, Action::Settings { .. })));
    found.map(|(step, action)| (*step, (*action).clone()))
}

/// A document without its shard's tag.
fn untagged(document: &Map<String, Value>) -> Map<String, Value> {
    document
        .iter()
        .filter(|(name, _)| *name != TAG_FIELD)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
