//! A cluster survives when nodes, gateways and the control plane are killed, paused, and come back in any order.

use miroir_tests::{BOOKS_PATH, Client, Cut, End, Network, Sandbox, books, number, pass, tell, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

fn wait_moved(cluster: &Sandbox) {
    wait_until("nothing moves", || {
        let status = cluster.status();
        status["moving"] == false && status["replicasMissing"] == 0
    });
}

/// Pauses a gateway that knows the topology while clients search through it. Some searches are in progress, others wait in its
/// sockets. All of them must be answered after it resumes, whichever nodes have left meanwhile.
fn asleep<'a>(
    cluster: &Sandbox,
    scope: &'a thread::Scope<'a, '_>,
    (over, searches): (&'a AtomicBool, &'a AtomicU64),
) -> Vec<thread::ScopedJoinHandle<'a, ()>> {
    let sleeper = cluster.gateway(1);
    for _ in 0..20 {
        // Makes sure that every worker knows the topology.
        let found = sleeper.search("books", &json!({"limit": 1000}));
        assert_eq!(found["hits"].as_array().unwrap().len(), 400);
    }
    let searcher = |_| {
        let client = sleeper.clone();
        scope.spawn(move || search_on(&client, over, searches))
    };
    let searching = (0..4).map(searcher).collect();
    wait_until("searches are under way", || searches.load(Ordering::Relaxed) >= 20);
    cluster.freeze("gateway-1");
    searching
}

/// A search that is sent while the gateway is paused. After the gateway resumes, it must find everything that was acknowledged
/// meanwhile.
fn finds_all_of(client: &Client, version: u64) {
    let query = json!({"limit": 1000, "filter": format!("v >= {}", version % 2)});
    let answer = client.json("POST", "/indexes/books/search", &query);
    let hits = answer.body["hits"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    let new = hits.iter().filter(|hit| hit["v"] == version).count();
    assert_eq!((answer.header("x-miroir-missing-shards"), new), (None, 400));
}

/// For how long a gateway sleeps at least: `MIROIR_STALL_SECONDS` (0).
fn stall() {
    pass(Duration::from_secs(number("MIROIR_STALL_SECONDS", 0)));
}

pub fn a_gateway_that_slept_reads_and_writes_nothing_that_has_left(cluster: &Sandbox) {
    let sleeper = cluster.gateway(1);
    let (over, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _end = End(&over);
        let searching = asleep(cluster, scope, (&over, &searches));
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| finds_all_of(&sleeper, 2))).collect();
        let write = scope.spawn(|| sleeper.json("POST", BOOKS_PATH, &books(0..1, 2)));
        cluster.miroir_ok(&["node", "drain", "meili-0"]);
        cluster.miroir_ok(&["node", "remove", "meili-0"]);
        cluster.client.add("books", &books(0..400, 2));
        stall();
        cluster.thaw("gateway-1");
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
        let answer = write.join().unwrap();
        if answer.status == 202 {
            assert_eq!(cluster.client.ended(&answer)["status"], "succeeded");
        } else {
            assert_eq!(answer.status, 503, "{}", answer.body);
        }
        over.store(true, Ordering::Relaxed);
        searching.into_iter().for_each(|searching| searching.join().unwrap());
        tell!("{searches:?} searches and 8 more through a gateway that slept: none failed");
    });
    assert_eq!(cluster.node(0).count("books"), 0, "a node that has left got a write");
    cluster.library_is_whole(400, 2);
    // A node may close its connections to a paused gateway, so that the write has missed the node.
    cluster.wait_repaired();
}

/// A gateway that was paused may not know that a replica has become stale: it must not read the replica before it is repaired.
pub fn a_gateway_that_slept_reads_no_copy_that_has_missed_something(cluster: &Sandbox) {
    let sleeper = cluster.gateway(1);
    // Of two nodes each has everything.
    if !cluster.member("meili-0").is_null() {
        cluster.miroir_ok(&["node", "drain", "meili-0"]);
        cluster.miroir_ok(&["node", "remove", "meili-0"]);
    }
    cluster.client.add("books", &books(0..400, 2));
    cluster.client.create("albums", "id", &json!({}));
    cluster.client.add("albums", &books(0..400, 2));
    let (over, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _end = End(&over);
        let searching = asleep(cluster, scope, (&over, &searches));
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| finds_all_of(&sleeper, 3))).collect();
        cluster.kill("meili-1");
        cluster.client.add("albums", &books(0..400, 3));
        cluster.client.add("books", &books(0..400, 3));
        // Albums are copied first, and with this pace the copy takes minutes.
        cluster.miroir_ok(&["throttle", "--documents-per-second", "1"]);
        cluster.revive("meili-1");
        wait_until("it is up", || cluster.member("meili-1")["up"] == true);
        stall();
        cluster.thaw("gateway-1");
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
        assert_ne!(cluster.member("meili-1")["stale"], 0);
        over.store(true, Ordering::Relaxed);
        assert!(searching.into_iter().all(|searching| searching.join().is_ok()));
    });
    cluster.miroir_ok(&["throttle"]);
    cluster.wait_repaired_by_control();
    cluster.library_is_whole(400, 3);
}

pub fn a_cluster_that_is_killed_while_it_grows_comes_back() {
    let mut cluster = Sandbox::library(2, 2, 1);
    let node = cluster.add_node();
    cluster.miroir_ok(&["node", "add", &cluster.named(&node), "--no-wait"]);
    cluster.stop(Signal::SIGKILL);
    cluster.restart();
    wait_moved(&cluster);
    cluster.wait_repaired();
    assert_eq!(cluster.member(&node)["active"], 10);
    cluster.library_is_whole(400, 1);
}

/// Searches, one after the other, until it is over, and counts. None of the searches fails, or lacks anything.
fn search_on(client: &Client, over: &AtomicBool, searches: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let answer = client.json("POST", "/indexes/books/search", &json!({"limit": 1000}));
        let hits =
            answer.body["hits"].as_array().unwrap_or_else(|| panic!("{}: {}", answer.status, answer.body));
        assert_eq!((answer.header("x-miroir-missing-shards"), hits.len()), (None, 400));
        searches.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn of_three_replicas_any_two_may_die() {
    let cluster = Sandbox::library(4, 3, 1);
    let (over, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let searcher = |_| scope.spawn(|| search_on(&cluster.client, &over, &searches));
        let searchers: Vec<_> = (0..2).map(searcher).collect();
        let _end = End(&over);
        for (number, victims) in [["meili-0", "meili-3"], ["meili-1", "meili-2"]].into_iter().enumerate() {
            let version = number as u64 + 2;
            victims.iter().for_each(|victim| cluster.kill(victim));
            cluster.client.add("books", &books(0..400, version));
            // Written documents are found at once, through the remaining nodes.
            let found =
                cluster.client.search("books", &json!({"limit": 1000, "filter": format!("v = {version}")}));
            assert_eq!(found["hits"].as_array().unwrap().len(), 400);
            victims.iter().for_each(|victim| cluster.revive(victim));
            cluster.wait_repaired();
        }
        over.store(true, Ordering::Relaxed);
        searchers.into_iter().for_each(|searcher| searcher.join().unwrap());
        let searches = searches.load(Ordering::Relaxed);
        tell!("{searches} searches while four nodes died, two at a time: none failed");
        assert!(searches > 50, "{searches}");
    });
    cluster.library_is_whole(400, 3);
}

pub fn a_node_that_envoy_does_not_reach_takes_nothing() {
    let cluster = Sandbox::library(2, 1, 1);
    let node = cluster.add_node();
    let network = Network::default();
    network.connect(cluster.data());
    network.cut("gateway-0", &node, Cut::Closed);
    let way = format!("{node}=http://{}", network.way_to(&node));
    cluster.miroir_ok(&["node", "add", &way, "--no-wait"]);
    let (over, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let searcher = scope.spawn(|| search_on(&cluster.client, &over, &searches));
        let _end = End(&over);
        wait_until("the status says that the gateway does not reach the node", || {
            let error = cluster.status()["moved"]["errors"][&node].as_str().unwrap_or_default().to_owned();
            error.contains("has not answered the gateways' workers")
        });
        assert_eq!(
            cluster.member(&node)["active"],
            0,
            "the node must not get active replicas before gateways reach it"
        );
        network.heal("gateway-0", &node);
        wait_moved(&cluster);
        assert!(cluster.member(&node)["active"].as_u64().unwrap() >= 5);
        over.store(true, Ordering::Relaxed);
        searcher.join().unwrap();
        tell!("{searches:?} searches, none failed");
    });
    cluster.library_is_whole(400, 1);
}
