use super::{answer_reports, body, configured, found, managed, search};
use miroir_core::{protocol::REPORT_PATH, topology::TopologyConfig};
use miroir_filter_host::in_vm;
use serde_json::json;

#[test]
fn an_invalid_configuration_is_refused_with_all_its_errors() {
    in_vm(crate::_initialize, |vm| {
        let wrong =
            json!({"schema": 9, "version": 3, "nodes": [{"name": "", "cluster": "a"}], "placement": [[7]]});
        assert!(!vm.configure(&wrong.to_string()));
        for key in ["schema", "nodes[0].name", "placement[0]"] {
            assert!(vm.log().iter().any(|line| line.contains(key)), "{key} is not in {:?}", vm.log());
        }
        assert_eq!(vm.metric("miroir_topologies_refused_total"), 1);
        assert!(vm.callouts().is_empty());
    });
}

#[test]
fn what_was_refused_is_reported_until_something_is_taken() {
    configured(&managed(), |vm| {
        answer_reports(vm, &json!({"needed": 0, "lease": true}));
        assert!(!vm.configure(r#"{"schema":1,"version":9,"nodes":[],"placement":[],"ofLaterTimes":true}"#));
        let refused = || {
            vm.tick();
            let reports = vm.callouts_to(REPORT_PATH);
            let refused = body(reports.last().unwrap())["refused"].clone();
            answer_reports(vm, &json!({"needed": 0, "lease": true}));
            refused
        };
        let told = refused();
        assert_eq!(told["version"], 9, "{told}");
        assert!(told["reason"].as_str().unwrap().contains("ofLaterTimes"), "{told}");
        // The last good one stays.
        let stream = search(vm, &json!({}));
        vm.callouts_to("/indexes").iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
        assert_eq!(vm.reply(&stream).unwrap().status, 200);
        let newer = TopologyConfig { version: 10, ..managed() };
        assert!(vm.configure(&serde_json::to_string(&newer).unwrap()));
        assert!(refused().is_null());
        assert_eq!(vm.metric("miroir_topology_version"), 10);
    });
}

#[test]
fn nodes_that_do_not_answer_are_reported_and_asked_again() {
    in_vm(crate::_initialize, |vm| {
        vm.refuse("c", true);
        assert!(vm.configure(&serde_json::to_string(&managed()).unwrap()));
        let asked = vm.callouts_to("/health");
        assert_eq!(asked.iter().map(|call| call.cluster.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        vm.answer(&asked[0], 200, "{}");
        vm.fail(&asked[1]);
        let report = || {
            answer_reports(vm, &json!({"needed": 0, "lease": true}));
            vm.tick();
            let reports = vm.callouts_to(REPORT_PATH);
            body(reports.last().unwrap())
        };
        let told = report();
        assert_eq!(
            (&told["unreached"], &told["withoutCluster"]),
            (&json!(["b", "c"]), &json!(["c"])),
            "{told}"
        );
        vm.accept("c");
        vm.tick();
        vm.callouts_to("/health").iter().for_each(|call| vm.answer(call, 200, "{}"));
        let told = report();
        assert!(told.get("unreached").is_none() && told.get("withoutCluster").is_none(), "{told}");
    });
}
