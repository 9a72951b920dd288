//! No acknowledged write is lost: clients write, edit, swap and delete while everything happens to a cluster that can happen to it.
//!
//! Nodes, gateways and the control plane are killed and frozen; nodes lose their disks, or have no room on them; any two parts do not
//! reach each other; a node joins and leaves. At the end everything is healed, and the cluster must come to rest. Then the tasks of its
//! ledger are replayed in the order of their uids: what the cluster holds must be what one Meilisearch would hold.
//!
//! `MIROIR_CHAOS_SECONDS` sets the duration (15), `MIROIR_CHAOS_SEED` the seed (1). The seed decides what happens, but not when.

mod check;
mod clients;
mod faults;
mod history;
mod load;
mod moves;

pub use load::{Load, judge};

use clients::{AT_REST, Clients, PASSING, PATIENCE, RESTING, STEADY, SWAPPED};
use faults::Choice;
use history::History;
use miroir_tests::{End, Network, Options, Random, Sandbox, number, pass, tell, wait_until};
use moves::Moves;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

const WRITERS: u64 = 4;
const SEARCHERS: u64 = 2;
/// How long a cluster may take to mend a fault before the next one comes nevertheless.
const RECOVERY: Duration = Duration::from_secs(30);
/// Room for what a run writes on a node.
const DISK_MIB: u64 = 256;

/// A cluster whose nodes and control plane are reached through a network that can be cut.
pub struct World {
    pub cluster: Sandbox,
    pub network: Network,
}

impl World {
    fn start() -> Self {
        let network = Network::default();
        // The options of a cluster live as long as the test's process.
        let advertised: &'static str = Box::leak(network.way_to("control").into_boxed_str());
        let env: &'static [_] = Box::leak(Box::new([("MIROIR_ADVERTISE", advertised)]));
        let options = Options {
            gateways: 2,
            shards: 8,
            write_timeout_ms: 2_000,
            disk_mib: Some(DISK_MIB),
            env,
            ..Options::default()
        };
        let world = Self { cluster: Sandbox::start_through(options, &network), network };
        world.move_nodes();
        world
    }

    /// Gives the nodes the addresses of proxies, as an operator does whose nodes have moved with their data.
    fn move_nodes(&self) {
        let path = self.cluster.data().join("cluster.json");
        let mut description: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for node in description["nodes"].as_array_mut().unwrap() {
            node["url"] = json!(self.url_of(node["name"].as_str().unwrap()));
        }
        std::fs::write(&path, description.to_string()).unwrap();
        self.cluster.kill("control");
        self.cluster.revive("control");
        let urls = |file: &Value| -> Vec<String> {
            let url =
                |node: &Value| node["url"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
            file["nodes"].as_array().into_iter().flatten().map(url).collect()
        };
        wait_until("nodes have their new addresses", || {
            // The control plane may not answer yet.
            let shown = self.cluster.miroir(&["topology", "show", "--json"]);
            urls(&serde_json::from_slice(&shown.stdout).unwrap_or_default()) == urls(&description)
        });
        wait_until("the cluster is ready", || self.cluster.client.get("/health").status == 200);
    }

    /// The URL of a proxy to a node.
    pub fn url_of(&self, node: &str) -> String {
        format!("http://{}", self.network.way_to(node))
    }

    fn create_indexes(&self) {
        let client = &self.cluster.client;
        let edits = client.json("PATCH", "/experimental-features", &json!({"editDocumentsByFunction": true}));
        assert_eq!(edits.status, 200, "{}", edits.body);
        for index in [STEADY, SWAPPED[0], SWAPPED[1], PASSING, AT_REST] {
            client.succeeded(&client.json("POST", "/indexes", &json!({"uid": index, "primaryKey": "id"})));
        }
        client.add(AT_REST, &(0..RESTING).map(|id| json!({"id": id})).collect());
    }

    /// Waits until every replica is complete. Under load, a copy that operations on indexes begin anew may take longer than this waits.
    fn is_whole_soon(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < RECOVERY {
            if self.cluster.is_repaired() {
                return true;
            }
            pass(Duration::from_millis(50));
        }
        false
    }

    /// Faults come and go until this moment.
    fn suffer(
        &self,
        random: &mut Random,
        moves: &Moves,
        history: &History,
        until: Instant,
    ) -> BTreeMap<String, u32> {
        let mut suffered = BTreeMap::new();
        while Instant::now() < until {
            // Often the next fault comes before the cluster has mended the last one.
            let is_whole = random.one_in(2) && self.is_whole_soon();
            let calm = moves.may_lose_nothing();
            let choice = Choice {
                nodes: &moves.nodes(),
                gateways: self.cluster.gateways(),
                may_lose: is_whole && calm.is_some(),
                has_disks: self.cluster.has_disks(),
            };
            let mut faults = choice.draw(random);
            for fault in &faults {
                random.pause(800);
                history.happened(format!("{fault}"));
                fault.begin(&self.cluster, &self.network);
                *suffered.entry(fault.kind()).or_default() += 1;
            }
            let longest = *random.of(&[300, 1_500, 1_500, 4_000, 9_000]);
            random.pause(longest);
            while !faults.is_empty() {
                let fault = faults.swap_remove(random.below(faults.len()));
                history.happened(format!("no longer: {fault}"));
                fault.end(&self.cluster, &self.network);
                random.pause(400);
            }
            drop(calm);
            random.pause(1_500);
        }
        suffered
    }
}

pub fn nothing_acknowledged_is_lost() {
    let (seed, seconds) = (number("MIROIR_CHAOS_SEED", 1), number("MIROIR_CHAOS_SECONDS", 15));
    tell!("seed {seed}");
    let world = World::start();
    world.create_indexes();
    let (history, over) = (History::begin(seed), AtomicBool::new(false));
    let cluster = &world.cluster;
    let gateways =
        (0..cluster.gateways()).map(|gateway| cluster.gateway(gateway).patient_for(PATIENCE)).collect();
    let clients = Clients::new(gateways, &history, &over);
    let moves = Moves::new(&world, &history);
    let seed_of = |number: u64| Random(seed * 1_000 + number);
    let until = Instant::now() + Duration::from_secs(seconds);
    let suffered = thread::scope(|scope| {
        let (clients, moves, over) = (&clients, &moves, &over);
        (0..WRITERS).for_each(|writer| _ = scope.spawn(move || clients.write(writer, seed_of(writer))));
        (0..SEARCHERS).for_each(|number| _ = scope.spawn(move || clients.search(seed_of(100 + number))));
        scope.spawn(move || clients.operate(seed_of(200)));
        scope.spawn(move || moves.join_and_leave(seed_of(300), over));
        let _end = End(over);
        world.suffer(&mut seed_of(400), moves, &history, until)
    });
    history.happened("everything is healed");
    moves.finish();
    check::check(&world, &clients, &history);
    tell!("faults: {suffered:?}; moves: {}; {:?}", moves.count(), clients.counts.lock().unwrap());
    assert!(clients.sent.lock().unwrap().len() as u64 > seconds, "clients were held up");
}
