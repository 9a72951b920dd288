use super::{
    Publisher, Snapshot, grpc, json_resources, kubernetes::Kubernetes, protobuf_resources,
    subscribers::Subscriber,
};
use crate::{
    base::{config::CONTROL_CLUSTER, time::Instant},
    testing::{node_config, publisher},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{Node, TypedExtensionConfig, transport_socket::ConfigType},
        },
        extensions::{filters::http::wasm::v3::Wasm, transport_sockets::tls::v3::UpstreamTlsContext},
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::{protobuf::StringValue, rpc},
};
use futures_util::stream;
use miroir_core::protocol::SECRET_HEADER;
use prost::{Message, Name};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

/// Publishes a version with these nodes.
fn publish(publisher: &Publisher, version: u64, nodes: &[&str]) {
    let topology = json!({
        "schema": 1, "version": version, "placement": [[0]],
        "nodes": nodes.iter().map(|name| json!({"name": name, "cluster": name})).collect::<Vec<_>>(),
    });
    let node = |name: &&str| node_config(name, &format!("http://{name}:7700"));
    let snapshot = Snapshot {
        at: Instant::now(),
        topology: serde_json::from_value(topology).unwrap(),
        nodes: nodes.iter().map(node).collect(),
        control: publisher.control.clone(),
        control_cluster: publisher.control_cluster.clone(),
        tls: publisher.tls.clone(),
        control_tls: publisher.control_tls.clone(),
        wasm: publisher.wasm.clone(),
    };
    publisher.snapshots.send_replace(Some(Arc::new(snapshot)));
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// A stream of an Envoy's requests, with this secret.
fn saying<T>(
    secret: &'static str,
    mut requests: mpsc::Receiver<T>,
) -> Request<impl stream::Stream<Item = T>> {
    let mut request = Request::new(stream::poll_fn(move |context| requests.poll_recv(context)));
    request.metadata_mut().insert(SECRET_HEADER, secret.parse().unwrap());
    request
}

async fn until(publisher: &Publisher, is: impl Fn(&[Subscriber]) -> bool) {
    let begun = Instant::now();
    while !is(&publisher.subscribers.list()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", publisher.subscribers.list());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn client(url: &str) -> AggregatedDiscoveryServiceClient<tonic::transport::Channel> {
    AggregatedDiscoveryServiceClient::connect(url.to_owned()).await.unwrap()
}

async fn next<T>(answers: &mut Streaming<T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), answers.message()).await.unwrap().unwrap().unwrap()
}

fn names(answer: &DiscoveryResponse) -> Vec<String> {
    let cluster = |any: &envoy_types::pb::google::protobuf::Any| Cluster::decode(&*any.value).unwrap().name;
    answer.resources.iter().map(cluster).collect()
}

#[tokio::test]
async fn an_envoy_hears_of_every_version_and_what_it_refuses_is_told() {
    let publisher = publisher();
    let url = serve(grpc::routes(&publisher)).await;
    publish(&publisher, 4, &["a"]);
    let (says, requests) = mpsc::channel(8);
    let mut answers = client(&url).await.stream_aggregated_resources(saying("gateways", requests)).await;
    let answers = answers.as_mut().unwrap().get_mut();
    let ask = |kind: String, nonce: &str, refused: Option<&str>| DiscoveryRequest {
        node: Some(Node { id: "gateway-7".into(), ..Node::default() }),
        type_url: kind,
        response_nonce: nonce.into(),
        error_detail: refused
            .map(|message| rpc::Status { message: message.into(), ..rpc::Status::default() }),
        ..DiscoveryRequest::default()
    };
    says.send(ask(Cluster::type_url(), "", None)).await.unwrap();
    let clusters = next(answers).await;
    assert_eq!(
        (clusters.version_info.as_str(), names(&clusters)),
        ("4", vec!["a".into(), CONTROL_CLUSTER.into()])
    );
    says.send(ask(Cluster::type_url(), &clusters.nonce, None)).await.unwrap();
    says.send(ask(TypedExtensionConfig::type_url(), "", None)).await.unwrap();
    let filter = next(answers).await;
    let config = TypedExtensionConfig::decode(&*filter.resources[0].value).unwrap();
    let plugin = Wasm::decode(&*config.typed_config.unwrap().value).unwrap().config.unwrap();
    assert!(plugin.allow_on_headers_stop_iteration.unwrap().value);
    let topology = StringValue::decode(&*plugin.configuration.unwrap().value).unwrap().value;
    assert!(topology.contains("\"version\":4"), "{topology}");
    says.send(ask(TypedExtensionConfig::type_url(), &filter.nonce, Some("no such thing"))).await.unwrap();
    until(&publisher, |all| all.first().is_some_and(|one| one.refused.is_some())).await;
    let refusing = &publisher.subscribers.list()[0];
    assert_eq!((refusing.name.as_str(), refusing.accepted["clusters"].as_str()), ("gateway-7", "4"));
    let refused = refusing.refused.clone().unwrap();
    assert_eq!(
        (refused.kind.as_str(), refused.version.as_str(), refused.reason.as_str()),
        ("filter", "4", "no such thing")
    );

    publish(&publisher, 5, &["a", "b"]);
    let clusters = next(answers).await;
    assert_eq!(names(&clusters), ["a", "b", CONTROL_CLUSTER]);
    let filter = next(answers).await;
    says.send(ask(TypedExtensionConfig::type_url(), &filter.nonce, None)).await.unwrap();
    until(&publisher, |all| {
        all[0].refused.is_none() && all[0].accepted.get("filter").is_some_and(|v| v == "5")
    })
    .await;
    drop(says);
    until(&publisher, <[Subscriber]>::is_empty).await;
}

#[tokio::test]
async fn a_delta_stream_brings_what_has_changed_only() {
    let publisher = publisher();
    let url = serve(grpc::routes(&publisher)).await;
    publish(&publisher, 1, &["a", "b"]);
    let (says, requests) = mpsc::channel(8);
    let mut answers = client(&url).await.delta_aggregated_resources(saying("gateways", requests)).await;
    let answers = answers.as_mut().unwrap().get_mut();
    let ask = |nonce: &str| DeltaDiscoveryRequest {
        type_url: Cluster::type_url(),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    };
    let changed = |answer: &DeltaDiscoveryResponse| {
        answer.resources.iter().map(|resource| resource.name.clone()).collect::<Vec<_>>()
    };
    says.send(ask("")).await.unwrap();
    let first = next(answers).await;
    assert_eq!(changed(&first), ["a", "b", CONTROL_CLUSTER]);
    says.send(ask(&first.nonce)).await.unwrap();
    until(&publisher, |all| all.first().is_some_and(|one| !one.accepted.is_empty())).await;
    // Version 2 changes no cluster.
    publish(&publisher, 2, &["a", "b"]);
    until(&publisher, |all| all[0].accepted["clusters"] == "2").await;
    publish(&publisher, 3, &["b", "c"]);
    let second = next(answers).await;
    assert_eq!((changed(&second), &second.removed_resources), (vec!["c".to_owned()], &vec!["a".to_owned()]));

    // An Envoy that reconnects says which resources it has.
    let (says, requests) = mpsc::channel(8);
    let mut answers = client(&url).await.delta_aggregated_resources(saying("gateways", requests)).await;
    let answers = answers.as_mut().unwrap().get_mut();
    let resources = first.resources.iter().chain(&second.resources);
    let has = resources.map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    says.send(DeltaDiscoveryRequest { initial_resource_versions: has, ..ask("") }).await.unwrap();
    let again = next(answers).await;
    assert_eq!((changed(&again), again.removed_resources), (Vec::new(), vec!["a".to_owned()]));
}

#[tokio::test]
async fn who_does_not_know_the_secret_hears_nothing() {
    let publisher = publisher();
    let url = serve(grpc::routes(&publisher)).await;
    let (_says, requests) = mpsc::channel::<DiscoveryRequest>(1);
    let refused: Status =
        client(&url).await.stream_aggregated_resources(saying("guessed", requests)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[test]
fn who_is_spoken_to_by_tls_must_be_who_it_says() {
    let mut publisher = publisher();
    publisher.tls.authorities = "/certs/ca.pem".into();
    publish(&publisher, 1, &["a"]);
    let mut snapshot = Snapshot::clone(publisher.snapshots.borrow().as_ref().unwrap());
    let socket =
        |snapshot: &Snapshot| json_resources::clusters(snapshot)["resources"][0]["transport_socket"].clone();
    assert_eq!(socket(&snapshot), Value::Null);
    snapshot.nodes[0].url = "https://a:7700".parse().unwrap();
    snapshot.tls.identity = Some("/certs/me.pem".into());
    let context = &socket(&snapshot)["typed_config"];
    assert_eq!(context["sni"], "a");
    let common = &context["common_tls_context"];
    assert_eq!(common["tls_certificates"][0]["private_key"]["filename"], "/certs/me.pem");
    let validation = &common["validation_context"];
    assert_eq!(validation["trusted_ca"]["filename"], "/certs/ca.pem");
    assert_eq!(
        validation["match_typed_subject_alt_names"][0],
        json!({"san_type": "DNS", "matcher": {"exact": "a"}})
    );
    let cluster = Cluster::decode(&*protobuf_resources::clusters(&snapshot)[0].body.value).unwrap();
    let Some(ConfigType::TypedConfig(context)) = cluster.transport_socket.unwrap().config_type else {
        panic!("no TLS")
    };
    let context = UpstreamTlsContext::decode(&*context.value).unwrap();
    assert_eq!(context.sni, "a");
    assert_eq!(context.common_tls_context.unwrap().tls_certificates.len(), 1);

    let control =
        |snapshot: &Snapshot| json_resources::clusters(snapshot)["resources"][1]["transport_socket"].clone();
    assert_eq!(control(&snapshot), Value::Null);
    snapshot.control_tls = Some(snapshot.tls.clone());
    let names = &control(&snapshot)["typed_config"]["common_tls_context"]["validation_context"];
    assert_eq!(
        names["match_typed_subject_alt_names"][0],
        json!({"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}})
    );
    let cluster = Cluster::decode(&*protobuf_resources::clusters(&snapshot)[1].body.value).unwrap();
    assert!(cluster.transport_socket.is_some());
}

/// A Kubernetes API with one resource.
#[derive(Default)]
struct Api {
    resource: Value,
    patches: Vec<Value>,
    fails: bool,
}

type SharedApi = Arc<Mutex<Api>>;

async fn get_one(api: State<SharedApi>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if headers["authorization"] != "Bearer the-token" {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthorized"})));
    }
    (StatusCode::OK, Json(api.lock().unwrap().resource.clone()))
}

async fn patch_one(
    api: State<SharedApi>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut api = api.lock().unwrap();
    assert_eq!(headers["content-type"], "application/merge-patch+json");
    if std::mem::take(&mut api.fails) {
        return (StatusCode::CONFLICT, Json(json!({"message": "the object has been modified"})));
    }
    for (name, value) in patch["metadata"]["annotations"].as_object().unwrap() {
        api.resource["metadata"]["annotations"][name] = value.clone();
    }
    api.patches.push(patch);
    (StatusCode::OK, Json(api.resource.clone()))
}

async fn kubernetes(publisher: &Publisher, id: &str, token: &str) -> (SharedApi, tempfile::TempDir) {
    let api = SharedApi::default();
    api.lock().unwrap().resource = json!({"metadata": {"resourceVersion": "17"}});
    let path = "/apis/networking.istio.io/v1alpha3/namespaces/istio-system/envoyfilters/miroir-topology";
    let app = Router::new().route(path, get(get_one).patch(patch_one)).with_state(api.clone());
    let url = serve(app).await;
    let account = tempfile::tempdir().unwrap();
    std::fs::write(account.path().join("token"), token).unwrap();
    let kubernetes =
        Kubernetes::new("istio-system/miroir-topology", &url, account.path(), id.into()).unwrap();
    tokio::spawn(kubernetes.run(publisher.clone()));
    (api, account)
}

#[tokio::test]
async fn the_envoy_filter_is_patched_with_every_version() {
    let publisher = publisher();
    let (api, _account) = kubernetes(&publisher, "me", "the-token\n").await;
    api.lock().unwrap().fails = true;
    publish(&publisher, 7, &["a"]);
    let has = |version: &'static str| {
        move |all: &[Subscriber]| {
            all.first().is_some_and(|it| it.accepted.get("filter").is_some_and(|v| v == version))
        }
    };
    until(&publisher, has("7")).await;
    publish(&publisher, 8, &["a", "b"]);
    until(&publisher, has("8")).await;
    let patches = api.lock().unwrap().patches.clone();
    assert_eq!(patches.len(), 2);
    assert_eq!(patches[0]["metadata"]["resourceVersion"], "17");
    let patch = &patches[1]["spec"]["configPatches"][0];
    assert_eq!(
        (&patch["applyTo"], &patch["patch"]["operation"]),
        (&json!("EXTENSION_CONFIG"), &json!("ADD"))
    );
    let config = &patch["patch"]["value"]["typed_config"]["config"];
    assert!(config["configuration"]["value"].as_str().unwrap().contains("\"version\":8"));
    assert_eq!(config["allow_on_headers_stop_iteration"], true);
}

#[tokio::test]
async fn what_another_control_plane_publishes_is_left_alone() {
    let publisher = publisher();
    let (api, _account) = kubernetes(&publisher, "me", "the-token").await;
    api.lock().unwrap().resource["metadata"]["annotations"] = json!({"miroir/publisher": "another"});
    publish(&publisher, 7, &["a"]);
    until(&publisher, |all| all.first().is_some_and(|it| it.refused.is_some())).await;
    let refused = publisher.subscribers.list()[0].refused.clone().unwrap();
    assert!(refused.reason.contains("another control plane, another"), "{refused:?}");
    assert!(api.lock().unwrap().patches.is_empty());
    // An operator removes the other publisher's annotation: the control plane retries by itself. A newer version is not
    // overwritten.
    api.lock().unwrap().resource["metadata"]["annotations"] = json!({"miroir/topology-version": "9"});
    until(&publisher, |all| {
        all[0].refused.as_ref().is_some_and(|it| it.reason.contains("version 9 already"))
    })
    .await;
    publish(&publisher, 10, &["a"]);
    until(&publisher, |all| all[0].refused.is_none()).await;
}

#[tokio::test]
async fn why_kubernetes_refuses_is_told() {
    let publisher = publisher();
    let (_api, _account) = kubernetes(&publisher, "me", "old").await;
    publish(&publisher, 7, &["a"]);
    until(&publisher, |all| all.first().is_some_and(|it| it.refused.is_some())).await;
    let refused = publisher.subscribers.list()[0].refused.clone().unwrap();
    assert!(refused.reason.contains("401") && refused.reason.contains("Unauthorized"), "{refused:?}");
    for wrong in ["miroir", "a/b/c", "/b", "a/../b"] {
        assert!(
            Kubernetes::new(wrong, "http://x", std::path::Path::new("/"), String::new()).is_err(),
            "{wrong}"
        );
    }
}
