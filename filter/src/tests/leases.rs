use super::{answer_reports, configured, found, managed, refused, search, shown};
use miroir_core::{protocol::REPORT_PATH, topology::OnLostControl};
use serde_json::json;

#[test]
fn a_worker_without_a_lease_asks_before_it_reads() {
    configured(&managed(), |vm| {
        let stream = search(vm, &json!({}));
        assert!(vm.callouts_to("/indexes").is_empty());
        assert!(!vm.callouts_to(REPORT_PATH).is_empty());
        answer_reports(vm, &json!({"needed": 0, "lease": true}));
        let calls = vm.callouts_to("/indexes");
        assert_eq!(calls.len(), 2);
        calls.iter().for_each(|call| vm.answer(call, 200, &found(&[u64::from(call.token)])));
        let reply = vm.reply(&stream).unwrap();
        assert_eq!((reply.status, shown(&reply.text()).len()), (200, 2));
        assert_eq!(reply.header("x-miroir-control-lost"), None);
    });
}

#[test]
fn without_a_control_plane_reads_say_so_or_are_refused() {
    for on_lost in [OnLostControl::Serve, OnLostControl::Refuse] {
        let mut config = managed();
        config.on_lost_control = on_lost;
        configured(&config, |vm| {
            let stream = search(vm, &json!({}));
            vm.callouts_to(REPORT_PATH).iter().for_each(|call| vm.fail(call));
            for call in vm.callouts_to("/indexes") {
                vm.answer(&call, 200, &found(&[1]));
            }
            let reply = vm.reply(&stream).unwrap();
            match on_lost {
                OnLostControl::Serve => {
                    assert_eq!((reply.status, reply.header("x-miroir-control-lost")), (200, Some("0")));
                    let degraded = vm.metric("miroir_degraded_total;reason=control_lost");
                    assert_eq!(degraded, 1);
                }
                OnLostControl::Refuse => {
                    assert_eq!(refused(vm, &stream).map(|(status, _)| status), Some(503));
                }
            }
        });
    }
}

#[test]
fn nothing_is_read_by_a_topology_that_is_too_old() {
    configured(&managed(), |vm| {
        let stream = search(vm, &json!({}));
        answer_reports(vm, &json!({"needed": 2, "lease": true}));
        assert!(vm.callouts_to("/indexes").is_empty());
        assert_eq!(vm.reply(&stream), None, "it waits for the newer one");
        // That comes while the control plane is asked again.
        let newer = miroir_core::topology::TopologyConfig { version: 2, ..managed() };
        assert!(vm.configure(&serde_json::to_string(&newer).unwrap()));
        answer_reports(vm, &json!({"needed": 2, "lease": true}));
        let calls = vm.callouts_to("/indexes");
        assert_eq!(calls.len(), 2);
        calls.iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
        assert_eq!(vm.reply(&stream).unwrap().status, 200);
    });
}

/// It was stopped, and copies that it knows may be gone: what they have answered is not shown.
#[test]
fn a_read_that_has_outlived_its_topology_is_begun_anew() {
    configured(&managed(), |vm| {
        answer_reports(vm, &json!({"needed": 0, "lease": true}));
        let stream = search(vm, &json!({}));
        let stale = vm.callouts_to("/indexes");
        vm.tick();
        answer_reports(vm, &json!({"needed": 2, "lease": true}));
        let newer = miroir_core::topology::TopologyConfig { version: 2, ..managed() };
        assert!(vm.configure(&serde_json::to_string(&newer).unwrap()));
        stale.iter().for_each(|call| vm.answer(call, 200, &found(&[404])));
        let calls = vm.callouts_to("/indexes");
        assert_eq!(calls.len(), 2, "it is asked again");
        calls.iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
        let reply = vm.reply(&stream).unwrap();
        assert!(reply.status == 200 && !reply.text().contains("404"), "{}", reply.text());
    });
}

#[test]
fn a_worker_reports_what_it_uses_as_time_goes_by() {
    configured(&managed(), |vm| {
        answer_reports(vm, &json!({"needed": 0, "lease": true}));
        assert_eq!(vm.tick_period().as_millis(), 1_000);
        vm.refuse("c", true);
        let newer = miroir_core::topology::TopologyConfig { version: 2, ..managed() };
        assert!(vm.configure(&serde_json::to_string(&newer).unwrap()));
        answer_reports(vm, &json!({"needed": 0, "lease": true}));
        vm.tick();
        let reports = vm.callouts_to(REPORT_PATH);
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].header("x-miroir-secret"), "s3cret");
        let report = super::body(&reports[0]);
        assert_eq!((&report["oldest"], &report["newest"]), (&json!(2), &json!(2)), "{report}");
        assert_eq!((&report["gateway"], &report["hasHeard"]), (&json!("gateway"), &json!(true)), "{report}");
    });
}
