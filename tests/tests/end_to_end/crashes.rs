//! Processes crash during an operation. The operation must continue after the crash, or clearly fail, and every document must
//! exist exactly once.
//!
//! `MIROIR_CRASH_ROUNDS` sets the number of operations (4), `MIROIR_CRASH_SEED` the seed (1).

use crate::chaos::{Load, judge};
use miroir_tests::{BOOKS, BOOKS_PATH, End, Options, Random, Sandbox, number, tell, wait_until};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::atomic::AtomicBool, thread, time::Instant};

/// The number of documents that are not changed during the test.
const FIXED: usize = 400;

/// An operation, and the condition that tells that it has ended.
struct Operation {
    arguments: Vec<String>,
    /// The node that is lost for good.
    dead: Option<String>,
    is_done: Box<dyn Fn(&Sandbox) -> bool + Sync>,
}

impl Operation {
    fn new(arguments: &[&str], is_done: impl Fn(&Sandbox) -> bool + Sync + 'static) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { arguments, dead: None, is_done: Box::new(is_done) }
    }

    /// Starts the operation by the command line, which waits until it has ended.
    fn start(&self, cluster: &Sandbox) -> std::process::Output {
        cluster.miroir(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The nodes in the cluster, and those that could be added.
struct Members {
    inside: Vec<String>,
    drained: Option<String>,
    outside: Vec<String>,
    replication: usize,
}

impl Members {
    fn takers(&self) -> Vec<String> {
        let takes = |node: &&String| Some(*node) != self.drained.as_ref();
        self.inside.iter().filter(takes).cloned().collect()
    }

    fn spare(&mut self, cluster: &Sandbox) -> String {
        self.outside.pop().unwrap_or_else(|| cluster.add_node())
    }

    fn forget(&mut self, cluster: &Sandbox, node: &str, is_lost: bool) {
        self.inside.retain(|other| other != node);
        if self.drained.as_deref() == Some(node) {
            self.drained = None;
        }
        if !is_lost {
            let number = node.strip_prefix("meili-").unwrap().parse().unwrap();
            wait_until("it has forgotten the cluster", || {
                cluster.node(number).get("/indexes").body["total"] == 0
            });
            self.outside.push(node.to_owned());
        }
    }

    /// The next operation of this kind; `None` if it is not possible now.
    fn operation(&mut self, kind: &str, cluster: &Sandbox, random: &mut Random) -> Option<Operation> {
        let takers = self.takers();
        let victim = random.of(&takers).clone();
        let name = victim.clone();
        let is_in = |node: &str| {
            let node = node.to_owned();
            move |cluster: &Sandbox| !cluster.member(&node).is_null()
        };
        let is_out = move |cluster: &Sandbox| cluster.member(&name).is_null();
        let can_spare = takers.len() > 3;
        Some(match kind {
            "add" if self.inside.len() < 5 => {
                let node = self.spare(cluster);
                self.inside.push(node.clone());
                Operation::new(&["node", "add", &cluster.named(&node)], is_in(&node))
            }
            "drain" if can_spare && self.drained.is_none() => {
                self.drained = Some(victim.clone());
                let name = victim.clone();
                Operation::new(&["node", "drain", &victim], move |cluster| {
                    cluster.member(&name)["draining"] == true && cluster.member(&name)["active"] == 0
                })
            }
            "remove" => {
                let drained = self.drained.clone()?;
                let name = drained.clone();
                Operation::new(&["node", "remove", &drained], move |cluster| cluster.member(&name).is_null())
            }
            "replace" => {
                let node = self.spare(cluster);
                self.inside.push(node.clone());
                let is_in = is_in(&node);
                let arguments = ["node", "replace", &victim, &cluster.named(&node)];
                Operation::new(&arguments, move |cluster| is_in(cluster) && is_out(cluster))
            }
            "lost" if can_spare && self.replication > 1 => {
                cluster.kill(&victim);
                wait_until("the control plane sees that the node is down", || {
                    cluster.member(&victim)["up"] == false
                });
                let operation = Operation::new(&["node", "lost", &victim], is_out);
                Operation { dead: Some(victim), ..operation }
            }
            "replication" => {
                self.replication = if self.replication == 2 { 3 } else { 2 };
                let replicas = self.replication;
                Operation::new(&["replication", "set", &replicas.to_string()], move |cluster| {
                    cluster.status()["replication"] == replicas
                })
            }
            "rebalance" => Operation::new(&["rebalance"], |_| true),
            "repair" => {
                // Wait until all replicas are complete, so that the damage does not hit the only complete copy.
                cluster.wait_repaired();
                wait_over(cluster, None);
                damage(cluster, &victim);
                Operation::new(&["repair", "--node", &victim], |cluster| {
                    let output = cluster.miroir(&["verify"]);
                    if !output.status.success() {
                        tell!("verify: {}", String::from_utf8_lossy(&output.stdout));
                        tell!("{}", String::from_utf8_lossy(&output.stderr));
                    }
                    output.status.success()
                })
            }
            "apply" => {
                let mut file = cluster.miroir_json(&["topology", "show"]);
                let is_out = self.inside.len() > 3;
                let nodes = file["nodes"].as_array_mut().unwrap();
                if self.inside.len() < 5 {
                    let node = self.spare(cluster);
                    self.inside.push(node.clone());
                    nodes.push(json!({"name": node, "url": cluster.address(&node)}));
                }
                if is_out {
                    nodes.retain(|node| node["name"] != victim.as_str());
                }
                // All nodes that stay get replicas again.
                self.drained = None;
                nodes[0]["weight"] = json!(1 + random.below(2));
                let path = cluster.data().join("topology.json");
                std::fs::write(&path, file.to_string()).unwrap();
                Operation::new(&["topology", "apply", path.to_str().unwrap()], move |cluster| {
                    let is = cluster.miroir_json(&["topology", "show"]);
                    names(&is) == names(&file) && is["nodes"][0]["weight"] == file["nodes"][0]["weight"]
                })
            }
            _ => return None,
        })
    }
}

fn names(file: &Value) -> Vec<String> {
    let name = |node: &Value| node["name"].as_str().unwrap().to_owned();
    file["nodes"].as_array().unwrap().iter().map(name).collect()
}

/// Deletes some documents directly on a node, without the cluster's knowledge.
fn damage(cluster: &Sandbox, node: &str) {
    let node = cluster.node(node.strip_prefix("meili-").unwrap().parse().unwrap());
    let ids: Vec<String> = (0..FIXED).step_by(7).map(|id| format!("fixed-{id}")).collect();
    node.succeeded(&node.json("POST", &format!("{BOOKS_PATH}/delete-batch"), &json!(ids)));
}

/// Kills a process, and starts it again.
fn crash(cluster: &Sandbox, kind: &str, random: &mut Random) {
    let up: Vec<String> = cluster
        .processes()
        .iter()
        .filter(|process| process["pid"].is_u64())
        .map(|process| process["name"].as_str().unwrap().to_owned())
        .collect();
    let mut victims: Vec<String> = match kind {
        "everything" => up,
        "node" => {
            let inside: Vec<String> = up.into_iter().filter(|name| !cluster.member(name).is_null()).collect();
            vec![random.of(&inside).clone()]
        }
        name => vec![name.to_owned()],
    };
    let mut dead = Vec::new();
    while !victims.is_empty() {
        let victim = victims.swap_remove(random.below(victims.len()));
        cluster.kill(&victim);
        dead.push(victim);
        random.pause(100);
    }
    random.pause(1_000);
    while !dead.is_empty() {
        let name = dead.swap_remove(random.below(dead.len()));
        cluster.revive(&name);
        random.pause(200);
    }
}

fn wait_over(cluster: &Sandbox, dead: Option<&str>) {
    wait_until("nothing moves", || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let is_over = |node: &Value| {
            dead.is_some_and(|dead| node["name"] == dead)
                || node["leaving"] == false
                    && node["behind"] == false
                    && node["stale"] == 0
                    && node["up"] == true
        };
        status["moving"] == false && status["ready"] == true && nodes.iter().all(is_over)
    });
}

/// Checks that every unchanged document is found exactly once through every gateway, and that all copies are the same.
fn is_whole(cluster: &Sandbox) {
    for gateway in 0..cluster.gateways() {
        let gateway = cluster.gateway(gateway);
        let query = json!({"filter": "kind = fixed", "limit": 1000, "attributesToRetrieve": ["id"]});
        let mut ids = Vec::new();
        // An Envoy that was just started may not listen yet, or may not have checked all nodes.
        wait_until("a gateway finds everything", || {
            let path = format!("/indexes/{BOOKS}/search");
            let body = query.to_string().into_bytes();
            let answer = gateway.try_send("POST", &path, Some("application/json"), body);
            let Some(answer) = answer.ok().filter(|answer| answer.status == 200) else { return false };
            let hits = answer.body["hits"].as_array().cloned().unwrap_or_default();
            ids = hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect();
            answer.header("x-miroir-missing-shards").is_none()
        });
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), FIXED);
    }
    cluster.miroir_ok(&["verify"]);
}

pub fn whoever_crashes_in_the_middle_of_an_operation_it_goes_on() {
    let (seed, rounds) = (number("MIROIR_CRASH_SEED", 1), number("MIROIR_CRASH_ROUNDS", 4));
    let options = Options { gateways: 2, lease_ms: 1_000, write_timeout_ms: 4_000, ..Options::default() };
    let cluster = Sandbox::start(options);
    cluster.client.create(BOOKS, "id", &json!({"filterableAttributes": ["kind"]}));
    let fixed: Value = (0..FIXED).map(|id| json!({"id": format!("fixed-{id}"), "kind": "fixed"})).collect();
    cluster.client.add(BOOKS, &fixed);
    let mut members = Members {
        inside: (0..3).map(|node| format!("meili-{node}")).collect(),
        drained: None,
        outside: Vec::new(),
        replication: 2,
    };
    let load = Load::new(vec![cluster.gateway(0), cluster.gateway(1)]);
    let over = AtomicBool::new(false);
    let mut done = BTreeMap::<String, u32>::new();
    thread::scope(|scope| {
        for writer in 0..2 {
            let (load, over) = (&load, &over);
            scope.spawn(move || load.write(writer, Random(seed * 1_000 + writer), over));
        }
        let _end = End(&over);
        let mut random = Random(seed);
        let mut kinds: Vec<&str> = Vec::new();
        let mut crashes: Vec<&str> = Vec::new();
        let mut round = 0;
        while round < rounds {
            if kinds.is_empty() {
                kinds = vec![
                    "remove",
                    "apply",
                    "lost",
                    "rebalance",
                    "replication",
                    "repair",
                    "drain",
                    "replace",
                    "add",
                ];
            }
            if crashes.is_empty() {
                crashes = vec!["gateway-1", "node", "everything", "control at once", "control"];
            }
            let kind = kinds.pop().unwrap();
            let before = members.inside.clone();
            let Some(operation) = members.operation(kind, &cluster, &mut random) else { continue };
            round += 1;
            let how = crashes.pop().unwrap();
            tell!("{kind}: {}; {how} crashes", operation.arguments.join(" "));
            let begun = Instant::now();
            run(&cluster, &operation, how, &mut random);
            tell!("over after {:?}", begun.elapsed());
            is_whole(&cluster);
            for node in before {
                if cluster.member(&node).is_null() {
                    members.forget(&cluster, &node, kind == "lost");
                }
            }
            *done.entry(format!("{kind}, {how}")).or_default() += 1;
        }
    });
    cluster.wait_idle();
    wait_over(&cluster, None);
    cluster.wait_repaired();
    let mut held = cluster.identical(BOOKS, "id");
    assert_eq!(
        cluster.copies(BOOKS),
        (held.len() * members.replication) as u64,
        "a node has misplaced documents"
    );
    let all = held.len();
    held.retain(|id, _| !id.starts_with("fixed-"));
    assert_eq!(all - held.len(), FIXED);
    let counted = judge(&cluster.client, &load.log(), &held);
    tell!("{done:?}; {} documents; {counted}", held.len());
}

/// Runs an operation while a process crashes.
fn run(cluster: &Sandbox, operation: &Operation, how: &str, random: &mut Random) {
    let output = thread::scope(|scope| {
        let starting = scope.spawn(|| operation.start(cluster));
        if how == "control at once" {
            random.pause(150);
            crash(cluster, "control", random);
        } else {
            wait_until("it has started", || {
                let status = cluster.status();
                starting.is_finished() || status["moving"] == true || status["replicasStale"] != 0
            });
            random.pause(1_500);
            crash(cluster, how, random);
        }
        starting.join().unwrap()
    });
    wait_over(cluster, operation.dead.as_deref());
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        assert!((operation.is_done)(cluster), "a started operation must continue after a crash");
    } else if !(operation.is_done)(cluster) {
        assert!(how.starts_with("control") || how == "everything", "{said}");
        // The operation has not started, so it can be started again.
        tell!("again, after: {said}");
        let output = operation.start(cluster);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        wait_until("it is done", || (operation.is_done)(cluster));
        wait_over(cluster, operation.dead.as_deref());
    }
}
