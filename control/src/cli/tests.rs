//! Checks that `miroir` accepts the flags and descriptions in the deployment files.

use super::{Cli, Command};
use crate::base::{config::ClusterFile, log::LogFormat};
use clap::Parser;
use serde::Deserialize;
use serde_yaml_ng::Value;

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const CONTROL: &str = include_str!("../../../envoy/kustomize/base/control.yaml");
const GATEWAY: &str = include_str!("../../../envoy/kustomize/overlays/envoy/gateway.yaml");
const ISTIO: &str = include_str!("../../../envoy/kustomize/overlays/istio/control.yaml");

/// The first resource of a kind.
fn resource(text: &str, kind: &str) -> Value {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let mut documents = documents.map(|document| Value::deserialize(document).unwrap());
    documents.find(|document| document["kind"] == kind).unwrap()
}

fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    Cli::try_parse_from(std::iter::once("miroir").chain(arguments)).unwrap().command
}

fn parse_list(arguments: &Value) -> Command {
    parse(arguments.as_sequence().unwrap().iter().map(|argument| argument.as_str().unwrap()))
}

/// Parses the `miroir bootstrap` command of a shell line.
fn parse_line(line: &Value) -> Command {
    let (_, arguments) = line.as_str().unwrap().split_once("miroir bootstrap").unwrap();
    let (arguments, _) = arguments.split_once('>').unwrap();
    parse(std::iter::once("bootstrap").chain(arguments.split_whitespace()))
}

#[test]
fn compose_says_what_miroir_understands() {
    let compose: Value = serde_yaml_ng::from_str(COMPOSE).unwrap();
    let Command::Serve(serve) = parse_list(&compose["services"]["control"]["command"]) else {
        panic!("not a control plane")
    };
    assert_eq!(crate::serve::describe(&serve).unwrap().nodes.len(), 3);
    let Command::Bootstrap(bootstrap) = parse_line(&compose["services"]["bootstrap"]["entrypoint"][2]) else {
        panic!("not a bootstrap")
    };
    assert_eq!(Some(bootstrap.xds_dir), serve.publish_dir);
    let envoy = compose["services"]["envoy"]["image"].as_str().unwrap();
    let envoy = envoy.strip_suffix("${ENVOY_DIGEST:-}").unwrap();
    let (_, version) = envoy.split_once(":v").unwrap();
    let tested = format!("ENVOY_VERSION := {version}\n");
    assert!(include_str!("../../../Makefile").contains(&tested), "{envoy} is not the Envoy that tests run");
    for text in [GATEWAY, include_str!("../../../envoy/helm/miroir/values.yaml")] {
        assert!(text.contains(envoy));
    }
}

#[test]
fn manifests_say_what_miroir_understands() {
    for (text, publishes) in [(CONTROL, false), (ISTIO, true)] {
        let container = &resource(text, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        let Command::Serve(serve) = parse_list(&container["args"]) else { panic!("not a control plane") };
        assert_eq!(serve.envoy_filter.is_some(), publishes);
    }
    let gateway = resource(GATEWAY, "Deployment");
    let bootstrap = &gateway["spec"]["template"]["spec"]["initContainers"][0]["args"][0];
    let Command::Bootstrap(bootstrap) = parse_line(bootstrap) else { panic!("not a bootstrap") };
    assert_eq!(bootstrap.grpc.as_deref(), Some("miroir.miroir.svc:7799"));
    for cluster in [
        include_str!("../../../envoy/kustomize/base/cluster.yaml"),
        include_str!("../../../envoy/kustomize/overlays/istio/cluster.yaml"),
    ] {
        let cluster: ClusterFile = serde_yaml_ng::from_str(cluster).unwrap();
        assert_eq!(cluster.validate().unwrap().nodes.len(), 3);
    }
}

#[test]
fn a_collector_of_traces_is_named_by_flag_or_by_description() {
    let tracing = |arguments: &[&str]| {
        let Command::Serve(serve) = parse(arguments.iter().copied()) else { panic!("not a control plane") };
        crate::serve::describe(&serve).unwrap().tracing.map(|tracing| tracing.cluster)
    };
    let node = ["serve", "--node", "a=http://a:7700"];
    assert_eq!(tracing(&node), None);
    let flag = ["--tracing-cluster", "otel"];
    assert_eq!(tracing(&[&node[..], &flag].concat()).as_deref(), Some("otel"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    let text = "nodes: [{name: a, url: 'http://a:7700'}]\nreplication: 1\ntracing: {cluster: described}\n";
    std::fs::write(&file, text).unwrap();
    let described = ["serve", "--config", file.to_str().unwrap()];
    assert_eq!(tracing(&[&described[..], &flag].concat()).as_deref(), Some("described"));
}

#[test]
fn the_log_is_text_unless_json_is_asked_for() {
    let format = |arguments: &[&str]| Cli::parse_from([&["miroir"], arguments].concat()).log_format();
    assert_eq!(format(&["serve", "--node", "a=http://a:7700"]), LogFormat::Text);
    assert_eq!(format(&["serve", "--node", "a=http://a:7700", "--log-format", "json"]), LogFormat::Json);
    assert_eq!(format(&["recover", "--node", "a=http://a:7700", "--log-format", "json"]), LogFormat::Json);
    assert!(Cli::try_parse_from(["miroir", "serve", "--log-format", "xml"]).is_err());
}
