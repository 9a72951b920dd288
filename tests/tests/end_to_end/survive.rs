//! What a cluster survives: nodes, gateways and the control plane die, sleep, and come back in any order.

use miroir_tests::{BOOKS_PATH, Client, End, Proxy, Random, Sandbox, books, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

fn wait_moved(cluster: &Sandbox) {
    wait_until("nothing moves", || {
        let status = cluster.status();
        status["moving"] == false && status["replicasMissing"] == 0
    });
}

#[test]
fn a_gateway_that_slept_reads_and_writes_nothing_that_has_left() {
    let cluster = Sandbox::library(3, 2, 2);
    let sleeper = cluster.gateway(1);
    for _ in 0..20 {
        // Every worker knows the topology.
        let found = sleeper.search("books", &json!({"limit": 1000}));
        assert_eq!(found["hits"].as_array().unwrap().len(), 400);
    }
    cluster.freeze("gateway-1");
    // What waits for it in its sockets is answered by what it knows when it wakes.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let client = sleeper.clone();
            thread::spawn(move || client.json("POST", "/indexes/books/search", &json!({"limit": 1000})))
        })
        .collect();
    let write = {
        let client = sleeper.clone();
        thread::spawn(move || client.json("POST", BOOKS_PATH, &books(400..401, 9)))
    };
    cluster.miroir_ok(&["node", "drain", "meili-0"]);
    cluster.miroir_ok(&["node", "remove", "meili-0"]);
    cluster.client.add("books", &books(0..400, 2));
    cluster.thaw("gateway-1");
    let mut refused = 0;
    for answer in waiting.into_iter().map(|waiting| waiting.join().unwrap()) {
        if answer.status == 503 {
            refused += 1;
            continue;
        }
        let hits = answer.body["hits"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
        let new = hits.iter().filter(|hit| hit["v"] == 2).count();
        assert_eq!((answer.header("x-miroir-missing-shards"), new), (None, 400));
    }
    println!("{refused} of 8 searches were refused");
    let answer = write.join().unwrap();
    if answer.status == 202 {
        assert_eq!(cluster.client.ended(&answer)["status"], "succeeded");
    } else {
        assert_eq!(answer.status, 503, "{}", answer.body);
    }
    assert_eq!(cluster.node(0).count("books"), 0, "nothing was written to a node that has left");
    cluster.client.succeeded(&cluster.client.json("DELETE", &format!("{BOOKS_PATH}/400"), &json!(null)));
    cluster.library_is_whole(400, 2);
}

#[test]
fn whoever_is_killed_in_the_middle_of_a_move_it_goes_on() {
    let cluster = Sandbox::library(2, 2, 1);
    let node = cluster.add_node();
    cluster.miroir_ok(&["node", "add", &cluster.named(&node), "--no-wait"]);
    cluster.kill("control");
    cluster.revive("control");
    wait_moved(&cluster);
    assert_eq!(cluster.member(&node)["active"], 10);
    cluster.library_is_whole(400, 1);
    cluster.miroir_ok(&["node", "drain", "meili-0", "--no-wait"]);
    cluster.kill(&node);
    cluster.client.add("books", &books(0..400, 2));
    cluster.revive(&node);
    wait_moved(&cluster);
    cluster.wait_repaired_by_control();
    cluster.library_is_whole(400, 2);
    // The whole cluster goes, in the middle of a third move, and comes back in another order.
    cluster.miroir_ok(&["replication", "set", "1", "--no-wait"]);
    let mut names: Vec<String> =
        cluster.processes().iter().map(|process| process["name"].as_str().unwrap().to_owned()).collect();
    for name in &names {
        cluster.kill(name);
    }
    let mut random = Random(7);
    while !names.is_empty() {
        let name = names.swap_remove(random.below(names.len()));
        cluster.revive(&name);
        thread::sleep(Duration::from_millis(random.draw() % 300));
    }
    wait_moved(&cluster);
    cluster.wait_repaired();
    cluster.library_is_whole(400, 2);
}

#[test]
fn a_cluster_that_is_killed_while_it_grows_comes_back() {
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

#[test]
fn a_node_that_lost_its_disk_gets_everything_again() {
    let cluster = Sandbox::library(2, 2, 1);
    cluster.kill("meili-1");
    std::fs::remove_dir_all(cluster.data().join("nodes/meili-1")).unwrap();
    std::fs::create_dir_all(cluster.data().join("nodes/meili-1")).unwrap();
    cluster.revive("meili-1");
    wait_until("it has its copies", || cluster.node(1).count("books") == 400);
    cluster.wait_repaired();
    cluster.library_is_whole(400, 1);
}

/// Searches, one after the other, until it is over: gives how many there were. None of them fails, or lacks anything.
fn search_on(client: &Client, over: &AtomicBool) -> u64 {
    let mut searches = 0;
    while !over.load(Ordering::Relaxed) {
        let answer = client.json("POST", "/indexes/books/search", &json!({"limit": 1000}));
        let hits =
            answer.body["hits"].as_array().unwrap_or_else(|| panic!("{}: {}", answer.status, answer.body));
        assert_eq!((answer.header("x-miroir-missing-shards"), hits.len()), (None, 400));
        searches += 1;
    }
    searches
}

#[test]
fn of_three_replicas_any_two_may_die() {
    let cluster = Sandbox::library(4, 3, 1);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let searchers: Vec<_> = (0..2).map(|_| scope.spawn(|| search_on(&cluster.client, &over))).collect();
        let _end = End(&over);
        for (number, victims) in [["meili-0", "meili-3"], ["meili-1", "meili-2"]].into_iter().enumerate() {
            let version = number as u64 + 2;
            victims.iter().for_each(|victim| cluster.kill(victim));
            cluster.client.add("books", &books(0..400, version));
            // What is written is found at once, through the nodes that are left.
            let found =
                cluster.client.search("books", &json!({"limit": 1000, "filter": format!("v = {version}")}));
            assert_eq!(found["hits"].as_array().unwrap().len(), 400);
            victims.iter().for_each(|victim| cluster.revive(victim));
            cluster.wait_repaired();
        }
        over.store(true, Ordering::Relaxed);
        let searches: u64 = searchers.into_iter().map(|searcher| searcher.join().unwrap()).sum();
        println!("{searches} searches while four nodes died, two at a time: none failed");
        assert!(searches > 50, "{searches}");
    });
    cluster.library_is_whole(400, 3);
}

#[test]
fn a_node_that_envoy_does_not_reach_takes_nothing() {
    let cluster = Sandbox::library(2, 1, 1);
    let node = cluster.add_node();
    let way = Proxy::closed_to_envoy(&cluster.address(&node));
    cluster.miroir_ok(&["node", "add", &format!("{node}={}", way.url()), "--no-wait"]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let searcher = scope.spawn(|| search_on(&cluster.client, &over));
        let _end = End(&over);
        wait_until("somebody is told", || {
            let error = cluster.status()["moved"]["errors"][&node].as_str().unwrap_or_default().to_owned();
            error.contains("has not answered the gateways' workers")
        });
        assert_eq!(cluster.member(&node)["active"], 0, "it would be the only one that has its shards");
        way.open();
        wait_moved(&cluster);
        assert!(cluster.member(&node)["active"].as_u64().unwrap() >= 5);
        over.store(true, Ordering::Relaxed);
        println!("{} searches, none failed", searcher.join().unwrap());
    });
    cluster.library_is_whole(400, 1);
}
