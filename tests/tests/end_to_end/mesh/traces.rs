//! Traces: a collector receives the spans of the filter and of Envoy.

use super::{Envoy, HOST, Mesh, SEARCH};
use miroir_tests::{MASTER_KEY, http, serve, wait_until};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// A fake trace collector.
pub struct Collector {
    address: &'static str,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// The spans of the filter, as JSON.
    spans: Vec<Value>,
    /// The spans of Envoy, as protobuf.
    envoys: Vec<Vec<u8>>,
}

impl Collector {
    pub fn start() -> Self {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let told = heard.clone();
        let url = serve(move |head, body| {
            assert!(head.starts_with("post /v1/traces "), "{head}");
            let mut heard = told.lock().unwrap();
            if !head.contains("content-type: application/json") {
                heard.envoys.push(body.to_vec());
                return String::new();
            }
            let body: Value = serde_json::from_slice(body).unwrap();
            for resource in body["resourceSpans"].as_array().unwrap() {
                assert_eq!(attribute(&resource["resource"], "service.name"), "miroir");
                let scopes = resource["scopeSpans"].as_array().unwrap().iter();
                heard.spans.extend(scopes.flat_map(|scope| scope["spans"].as_array().unwrap().clone()));
            }
            "{}".to_owned()
        });
        Self { address: url.trim_start_matches("http://").to_owned().leak(), heard }
    }

    pub fn address(&self) -> &'static str {
        self.address
    }

    /// The Envoy cluster of the collector.
    pub fn cluster(&self, name: &str) -> Value {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        let address =
            json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap()}});
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
        json!({"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}})
    }

    fn spans(&self, trace: &str) -> Vec<Value> {
        let spans = self.heard.lock().unwrap().spans.clone();
        spans.into_iter().filter(|span| span["traceId"] == trace).collect()
    }

    /// The span of the request in a trace, and the spans of its callouts, in the order in which they started.
    fn trace(&self, trace: &str) -> (Value, Vec<Value>) {
        // The span of the request ends last.
        let is_request = |span: &Value| span["kind"] != 3;
        wait_until("the collector hears of the request", || self.spans(trace).iter().any(is_request));
        let (mut requests, mut calls): (Vec<Value>, Vec<Value>) =
            self.spans(trace).into_iter().partition(is_request);
        assert_eq!(requests.len(), 1, "{requests:?}");
        let request = requests.remove(0);
        calls.sort_by_key(begun);
        for call in &calls {
            assert_eq!(call["parentSpanId"], request["spanId"], "{call}");
            assert!(begun(&request) <= begun(call) && begun(call) <= ended(call), "{request}\n{call}");
            assert!(ended(call) <= ended(&request), "{request}\n{call}");
        }
        let ids: BTreeSet<String> = calls.iter().map(|call| call["spanId"].to_string()).collect();
        assert_eq!(ids.len(), calls.len(), "{calls:?}");
        (request, calls)
    }
}

fn attribute(of: &Value, key: &str) -> Value {
    let attributes = of["attributes"].as_array().unwrap();
    let value = attributes.iter().find(|attribute| attribute["key"] == key).map(|it| it["value"].clone());
    let kinds = ["stringValue", "intValue", "arrayValue", "boolValue"];
    value.and_then(|value| kinds.iter().find_map(|kind| value.get(kind).cloned())).unwrap_or_default()
}

fn begun(span: &Value) -> u64 {
    span["startTimeUnixNano"].as_str().unwrap().parse().unwrap()
}

fn ended(span: &Value) -> u64 {
    span["endTimeUnixNano"].as_str().unwrap().parse().unwrap()
}

fn nodes(calls: &[Value]) -> Vec<String> {
    calls.iter().map(|call| attribute(call, "miroir.node").as_str().unwrap().to_owned()).collect()
}

/// The shards in the attributes of a callout's span.
fn shards(call: &Value) -> Vec<u16> {
    let values = attribute(call, "miroir.shards")["values"].as_array().cloned().unwrap_or_default();
    values.iter().map(|value| value["intValue"].as_str().unwrap().parse().unwrap()).collect()
}

/// Sends a request with this `traceparent`, as a client with its own span does.
pub fn ask_traced(envoy: &Envoy, method: &str, path: &str, traceparent: &str, body: &Value) -> (u16, Value) {
    let request = http()
        .request(method.parse().unwrap(), format!("{}{path}", envoy.client.url()))
        .header("host", HOST)
        .header("traceparent", traceparent)
        .bearer_auth(MASTER_KEY)
        .json(body);
    let answer = request.send().unwrap();
    (answer.status().as_u16(), answer.json().unwrap_or_default())
}

/// All three nodes are asked, and one of them fails. Checks that each callout has a span, also those to the nodes that stand
/// in.
pub fn a_node_that_fails_and_its_stand_in_are_spans(mesh: &Mesh) {
    let Mesh { unmanaged: envoy, collector, heads, .. } = mesh;
    let client = "00f067aa0ba902b7";
    let (trace, head) = (0..500)
        .find_map(|number: u64| {
            let trace = format!("4bf92f3577b34da6a3ce929d{number:08x}");
            let traceparent = format!("00-{trace}-{client}-01");
            let (status, answer) = ask_traced(envoy, "POST", SEARCH, &traceparent, &json!({"limit": 100}));
            assert_eq!(status, 200, "{answer}");
            let heads = heads.lock().unwrap();
            let head = heads.iter().find(|head| head.contains(&trace)).cloned();
            head.map(|head| (trace, head))
        })
        .expect("nobody asks the third node");
    let (request, calls) = collector.trace(&trace);
    assert_eq!(
        (&request["parentSpanId"], &request["name"], &request["kind"]),
        (&json!(client), &json!("search"), &json!(2))
    );
    assert_eq!(attribute(&request, "db.collection.name"), "movies");
    assert_eq!(attribute(&request, "http.response.status_code"), "200");
    assert!(request.get("status").is_none(), "{request}");
    let asked = nodes(&calls);
    assert_eq!(asked[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{asked:?}");
    assert!(asked.len() > 3, "somebody stands in: {asked:?}");
    for (call, node) in calls.iter().zip(&asked) {
        let is_third = node == "meili-2";
        assert_eq!(call["status"]["code"] == 2, is_third, "{call}");
        assert_eq!(attribute(call, "http.response.status_code"), if is_third { "500" } else { "200" });
    }
    let third = &calls[asked.iter().position(|node| node == "meili-2").unwrap()];
    assert!(
        head.contains(&format!("traceparent: 00-{trace}-{}-01\r\n", third["spanId"].as_str().unwrap())),
        "{head}"
    );
    let stood_in: BTreeSet<u16> = calls[3..].iter().flat_map(shards).collect();
    assert_eq!(stood_in, shards(third).into_iter().collect(), "{calls:?}");
    assert!(calls[3..].iter().all(|call| begun(call) >= ended(third)), "{calls:?}");
    // The collector gets the spans before the filter gets the collector's answer.
    wait_until("sent spans are counted", || {
        envoy.prometheus().contains("miroir_spans_total{outcome=\"sent\"}")
    });
}

/// Checks the traces of an Envoy that has its own tracer.
pub fn a_request_is_one_trace_below_envoys_own_span(mesh: &Mesh) {
    let Mesh { managed: envoy, collector, .. } = mesh;
    let client = "b7ad6b7169203331";
    let (unsampled, search, write) = ("1".repeat(32), "2".repeat(32), "3".repeat(32));
    let path = "/indexes/movies/search";
    let ask = |trace: &str, flags: &str, path: &str, body: &Value| {
        ask_traced(envoy, "POST", path, &format!("00-{trace}-{client}-{flags}"), body).0
    };
    assert_eq!(ask(&unsampled, "00", path, &json!({})), 200);
    assert_eq!(ask(&search, "01", path, &json!({"q": "title"})), 200);
    assert_eq!(ask(&write, "01", "/indexes/movies/documents", &json!([{"id": 1, "title": "title 1"}])), 202);
    // A client without tracing: Envoy starts a trace.
    assert_eq!(envoy.client.get("/indexes/movies/documents/17").status, 200);

    let (request, calls) = collector.trace(&search);
    assert_eq!((&request["name"], &request["kind"]), (&json!("search"), &json!(1)));
    assert_ne!(request["parentSpanId"], client, "it is a part of Envoy's own span");
    let all: Vec<u16> = calls.iter().flat_map(shards).collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (4, 4), "each shard once: {calls:?}");

    let (request, calls) = collector.trace(&write);
    assert_eq!(request["name"], "write");
    let names: Vec<&str> = calls.iter().map(|call| call["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[4]), (5, "begin control", "commit control"), "{names:?}");
    let asked = nodes(&calls);
    assert!(asked[1..4].iter().all(|node| node.starts_with("meili-")), "{asked:?}");
    assert!(names[1].starts_with("look_up ") && asked[2..4].contains(&asked[1]), "{names:?}");
    assert!(asked[2] != asked[3] && names[2..4].iter().all(|name| name.starts_with("write ")), "{names:?}");
    assert!(shards(&calls[2]) == shards(&calls[3]) && shards(&calls[2]).len() == 1, "{calls:?}");

    let mut read = Value::Null;
    wait_until("the collector hears of the document's read", || {
        let heard = collector.heard.lock().unwrap();
        let is_read = |span: &&Value| span["name"] == "document_read";
        read = heard.spans.iter().find(is_read).cloned().unwrap_or_default();
        !read.is_null()
    });
    let (read, calls) = collector.trace(read["traceId"].as_str().unwrap());
    assert_eq!((calls.len(), &read["kind"]), (1, &json!(1)));
    assert!(collector.spans(&unsampled).is_empty());

    // Envoy sends its own spans five at a time.
    for _ in 0..5 {
        assert_eq!(envoy.client.get("/indexes/movies/documents/17").status, 200);
    }
    let bytes = |id: &Value| {
        let id = id.as_str().unwrap();
        (0..id.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap())
            .collect::<Vec<u8>>()
    };
    for request in [request, read] {
        let parent = bytes(&request["parentSpanId"]);
        wait_until("the parent is a span of Envoy's", || {
            let heard = collector.heard.lock().unwrap();
            heard.envoys.iter().any(|body| body.windows(parent.len()).any(|bytes| bytes == parent))
        });
    }
}
