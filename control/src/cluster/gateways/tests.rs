use super::*;
use crate::{base::time::Clock, testing::ManualClock};
use std::sync::Arc;

fn gateways(lease_ms: u64, known: Option<&[&str]>) -> (Gateways, Arc<ManualClock>) {
    let clock = ManualClock::new();
    let known = known.map(|known| known.iter().map(|vm| (*vm).to_owned()).collect());
    (Gateways::new(lease_ms, known, clock.clone()), clock)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn an_old_copy_may_go_when_all_that_have_a_lease_know() {
    let (gateways, clock) = gateways(800, None);
    let report = |vm: &str, oldest| gateways.report(Report { vm: vm.into(), oldest, ..Report::default() }, 7);
    assert_eq!(report("a", 3).0.needed, 7);
    assert!(!gateways.confirmed(3), "others may have a lease from before");
    clock.advance(millis(1199));
    let _ = (report("a", 3), report("b", 4));
    assert!(!gateways.confirmed(3), "their leases last 1.2 s");
    clock.advance(millis(1));
    let _ = (report("a", 3), report("b", 4));
    assert!(gateways.confirmed(3) && !gateways.confirmed(4));
    clock.advance(millis(600));
    let _ = report("b", 4);
    assert!(!gateways.confirmed(4));
    clock.advance(millis(650));
    assert!(gateways.confirmed(4), "the lease of the first is over");
    assert_eq!(gateways.status().len(), 1);
}

#[test]
fn who_has_an_old_topology_must_know_that_it_is_not_to_be_read_by() {
    let (gateways, clock) = gateways(100, None);
    let published = clock.monotonic();
    let report = |needed| {
        let _ = gateways.report(Report { vm: "a".into(), oldest: 3, needed, ..Report::default() }, 0);
    };
    assert!(!gateways.know(4, published), "others may have a lease from before");
    clock.advance(millis(150));
    report(Some(3));
    assert!(gateways.is_late(published) && !gateways.know(4, published));
    report(Some(4));
    assert!(gateways.know(4, published) && !gateways.confirmed(4));
    report(None);
    assert!(gateways.know(4, published) && !gateways.know(4, clock.monotonic()));
}

#[test]
fn what_begins_goes_by_a_version_that_all_have_whose_lease_lasts() {
    let (gateways, clock) = gateways(100, Some(&["a", "gone"]));
    let report = |vm: &str, oldest, newest| {
        gateways.report(Report { vm: vm.into(), oldest, newest, ..Report::default() }, 0).1
    };
    assert!(report("a", 3, 4) && !report("a", 3, 4), "the first tells something new");
    assert!(!gateways.all_start_with(4), "one that is known has not reported since the start");
    clock.advance(millis(150));
    assert!(!report("a", 3, 4) && gateways.all_start_with(4) && !gateways.all_start_with(5));
    assert!(report("b", 5, 5) && !gateways.all_start_with(5));
    assert!(report("a", 3, 5) && gateways.all_start_with(5) && !gateways.confirmed(5));
    assert!(self::gateways(100, Some(&[])).0.all_start_with(9), "nobody has a lease");
}

#[tokio::test]
async fn a_vm_has_a_lease_once_its_name_is_stored() {
    let (gateways, clock) = gateways(100, Some(&["a", "gone"]));
    let stored = Mutex::new(Vec::new());
    let admit = async |vm: &str, works: bool| {
        let store = async |mut names: Vec<String>| {
            names.sort();
            tokio::task::yield_now().await;
            if works {
                *stored.lock().unwrap() = names;
            }
            works.then_some(()).ok_or(())
        };
        gateways.admit(vm, store).await
    };
    assert!(admit("a", true).await.is_ok() && stored.lock().unwrap().is_empty(), "the ledger has it");
    for _ in 0..2 {
        assert!(admit("c", false).await.is_err(), "it is not stored");
    }
    let (one, other) = tokio::join!(admit("c", true), admit("d", true));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(*stored.lock().unwrap(), ["a", "c", "d", "gone"]);
    clock.advance(millis(100));
    admit("a", true).await.unwrap();
    assert!(["c", "d"].iter().all(|vm| stored.lock().unwrap().contains(&(*vm).to_owned())));
    clock.advance(millis(60));
    admit("e", true).await.unwrap();
    assert_eq!(*stored.lock().unwrap(), ["a", "e"]);
    admit("c", true).await.unwrap();
    assert_eq!(*stored.lock().unwrap(), ["a", "c", "e"], "one whose lease was over is stored again");
}

#[test]
fn a_node_is_a_stranger_to_those_that_it_has_not_answered() {
    let (gateways, clock) = gateways(100, None);
    let report = |vm: &str, unreached: &[&str]| {
        let unreached = unreached.iter().map(|name| (*name).into()).collect();
        let _ = gateways.report(Report { vm: vm.into(), oldest: 3, unreached, ..Report::default() }, 0);
    };
    report("a", &[]);
    report("b", &["x", "y"]);
    assert_eq!(gateways.vms_that_cannot_reach("y"), ["b"]);
    report("b", &["x"]);
    assert!(gateways.vms_that_cannot_reach("y").is_empty());
    clock.advance(millis(150));
    assert!(gateways.vms_that_cannot_reach("x").is_empty(), "the lease is over");
    let old: Report = serde_json::from_str(r#"{"vm":"c","oldest":1}"#).unwrap();
    assert!(old.unreached.is_empty(), "a filter of before says nothing of nodes");
}

#[test]
fn what_is_wrong_with_a_gateway_is_told_once_and_in_words() {
    let (gateways, clock) = gateways(10_000, None);
    let refused =
        RefusedTopology::new(br#"{"schema":2,"version":9}"#, &["schema: no".into(), "and more".into()]);
    let report = |vm: &str, newest, refused: &Option<RefusedTopology>, unreached: &[&str]| {
        let unreached = unreached.iter().map(|name| (*name).into()).collect();
        let (gateway, without_cluster) = ("g".to_owned(), vec!["y".into()]);
        let report = Report {
            vm: vm.into(),
            newest,
            refused: refused.clone(),
            unreached,
            gateway,
            without_cluster,
            ..Report::default()
        };
        let _ = gateways.report(report, 0);
    };
    report("a", 8, &Some(refused.clone()), &["x", "y"]);
    report("b", 8, &Some(refused.clone()), &["y"]);
    // A filter of an older build reports no topology.
    report("c", 0, &None, &[]);
    let troubles = |published| {
        let found = gateways.troubles(published, Duration::from_secs(60));
        found.into_iter().map(|it| format!("{} {} {}", it.gateway, it.kind, it.what)).collect::<Vec<_>>()
    };
    assert_eq!(troubles(8), ["g refused refuses topology 9: schema: no; and more"]);
    for vm in gateways.vms().values_mut() {
        vm.at = vm.since + Duration::from_secs(4);
    }
    let always = [
        "g refused refuses topology 9: schema: no; and more",
        "g unreached does not reach x: the node does not answer it",
        "g unreached does not reach y: its Envoy does not have this node's cluster",
    ];
    assert_eq!(troubles(8), always);
    assert_eq!(troubles(9), always, "it has some seconds for what is new");
    for vm in gateways.vms().values_mut() {
        vm.since = clock.monotonic().checked_sub(Duration::from_secs(10)).unwrap();
    }
    let behind = "g behind still has topology 8 instead of 9: see its Envoy's log";
    assert_eq!(troubles(9)[0], behind);
    assert_eq!(gateways.troubles(9, Duration::from_secs(1)).len(), 3, "it has just been published");
    assert_eq!(RefusedTopology::new(b"{", &[]).version, None);
    report("a", 9, &None, &[]);
    report("b", 9, &None, &[]);
    assert!(troubles(9).is_empty());
}
