//! What a description of a cluster is published as.

use super::{
    samples::{cluster_state, index, member},
    support::golden::compare,
};
use miroir_control::{
    base::{
        config::{ClusterConfig, ClusterFile},
        files,
        tls::UpstreamTls,
    },
    domain::{
        cluster_state::{ClusterState, Index, Member, Replica},
        intent::Effect,
        search_rules::SearchRule,
    },
    publish::{
        Publisher,
        bootstrap::{Bootstrap, MAX_HEAP_BYTES, Source},
        folder::Folder,
        kubernetes,
        subscribers::Subscribers,
    },
};
use serde_json::json;
use std::path::Path;

fn described() -> ClusterConfig {
    let file = json!({
        "nodes": [
            {"name": "a", "url": "http://127.0.0.1:7701"},
            {"name": "b", "url": "https://node-b.example", "cluster": "meili-b", "weight": 3, "zone": "z"},
            {"name": "c", "url": "http://node-c.example:7700"}
        ],
        "shards": 3, "replication": 2, "limits": {"leaseMs": 4000}, "pathPrefix": "/search",
        "tracing": {"cluster": "otel"}
    });
    serde_json::from_value::<ClusterFile>(file).unwrap().validate().unwrap()
}

#[test]
fn published_files_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let tls = |identity: Option<&str>| UpstreamTls {
        authorities: "/certs/ca.pem".into(),
        identity: identity.map(Into::into),
    };
    let publisher = Publisher {
        folder: Some(Folder::new(folder.path().to_owned(), files::PRIVATE)),
        wasm: "/etc/miroir/filter.wasm".into(),
        control: "control.example:7799".into(),
        control_cluster: "miroir_control".into(),
        tls: tls(None),
        control_tls: Some(tls(Some("/certs/gateway.pem"))),
        secret: "secret".into(),
        read_key: Some("read key".into()),
        internal_key: "internal key".into(),
        snapshots: tokio::sync::watch::Sender::default(),
        subscribers: Subscribers::default(),
    };
    let cluster = described();
    let settings = json!({
        "distinctAttribute": "series", "rankingRules": ["words", "year:desc"], "pagination": {"maxTotalHits": 5},
        "faceting": {"maxValuesPerFacet": 7, "sortFacetValuesBy": {"*": "count"}},
        "filterableAttributes": ["genre", {"attributePatterns": ["x_*"], "features": {"facetSearch": true}}]
    });
    let movies = Index { settings: settings.as_object().cloned().unwrap(), ..index(Some("id")) };
    let members = cluster.nodes.iter().map(|config| Member {
        config: config.clone(),
        since: 1,
        draining: false,
        leaving: false,
    });
    let action =
        json!({"selector": {"indexUid": "movies", "id": "1"}, "action": {"type": "pin", "position": 2}});
    let rule = SearchRule {
        uid: "r".into(),
        place: 0,
        body: json!({"actions": [action]}).as_object().cloned().unwrap(),
    };
    let change = Effect::Settings { index: "books".into(), change: None, creates: false };
    let cluster_state = ClusterState {
        nodes: members.collect(),
        replicas: vec![
            vec![Replica::active("b"), Replica::active("a")],
            vec![Replica::active("a"), Replica::stale("b")],
            vec![Replica::active("c")],
        ],
        indexes: [("movies".to_owned(), movies), ("books".to_owned(), index(None))].into(),
        rules: vec![rule],
        changing: [(3, change)].into(),
        ..cluster_state()
    };
    let retired = member("retired", false, false).config;
    publisher.publish(&cluster, &cluster_state, &[retired], tokio::time::Instant::now()).unwrap();
    for name in ["cds.json", "ecds.json"] {
        compare(name, &std::fs::read_to_string(folder.path().join(name)).unwrap());
    }
    let snapshot = publisher.snapshots.borrow().clone().unwrap();
    compare(
        "envoy-filter.json",
        &serde_json::to_string_pretty(&kubernetes::patches(&snapshot).unwrap()).unwrap(),
    );
    let tls = tls(Some("/certs/gateway.pem"));
    for (name, source) in [
        ("bootstrap-files.yaml", Source::Files(Path::new("/etc/miroir/xds"))),
        (
            "bootstrap-grpc.yaml",
            Source::Grpc { host: "control", port: "7799", secret: "secret", tls: Some(&tls) },
        ),
    ] {
        let bootstrap = Bootstrap {
            name: "gateway-7",
            zone: None,
            listen: "0.0.0.0:7700".parse().unwrap(),
            admin_port: 9901,
            max_heap_bytes: MAX_HEAP_BYTES,
            source,
            otlp: Some(("collector", "4318")),
            no_filter: false,
        };
        compare(name, &bootstrap.render());
    }
}
