use super::{
    otlp::{Batch, Kind, Span},
    *,
};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const TRACED_BY_ENVOY: (&str, &str) = ("x-request-id", "01e533b8-06d1-95c0-8728-988f38b4f90e");
const NOT_TRACED_BY_ENVOY: (&str, &str) = ("x-request-id", "ee773530-0967-46c5-b2fe-8fda1871da17");

fn headers(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn traced(all: &[(&str, &str)]) -> Traced {
    Traced::of(&headers(all))
}

fn by(is_gateways: bool) -> Traced {
    Traced::By(Parent { trace: TraceId::read(TRACE).unwrap(), span: SpanId::read(SPAN), is_gateways })
}

#[test]
fn a_trace_is_read_as_it_is_written() {
    let w3c = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    for (headers, expected) in [
        (vec![], Traced::No),
        (vec![("traceparent", w3c("01"))], by(false)),
        (vec![("traceparent", w3c("03"))], by(false)),
        (vec![("traceparent", w3c("00"))], Traced::Unsampled),
        (vec![("traceparent", w3c("01-more"))], Traced::No),
        (vec![("traceparent", format!("cc-{TRACE}-{SPAN}-01-more"))], by(false)),
        (vec![("traceparent", format!("ff-{TRACE}-{SPAN}-01"))], Traced::No),
        (vec![("traceparent", format!("00-{}-{SPAN}-01", TRACE.to_uppercase()))], Traced::No),
        (vec![("traceparent", format!("00-{}-{SPAN}-01", "0".repeat(32)))], Traced::No),
        (vec![("traceparent", format!("00-{TRACE}-{}-01", "0".repeat(16)))], Traced::No),
        (vec![("traceparent", format!("00-{TRACE}-{SPAN}"))], Traced::No),
        (vec![("traceparent", "00-é".to_owned())], Traced::No),
        (vec![("b3", format!("{TRACE}-{SPAN}-1"))], by(false)),
        (vec![("b3", format!("{TRACE}-{SPAN}-d-{SPAN}"))], by(false)),
        (vec![("b3", format!("{TRACE}-{SPAN}-0"))], Traced::Unsampled),
        (vec![("b3", format!("{TRACE}-{SPAN}"))], Traced::Unsampled),
        (vec![("b3", "0".to_owned())], Traced::Unsampled),
        (vec![("b3", "1".to_owned())], Traced::No),
        (vec![("x-b3-sampled", "0".to_owned())], Traced::Unsampled),
    ] {
        let all: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(traced(&all), expected, "{all:?}");
    }
    let multi = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    assert_eq!(traced(&[multi[0], multi[1], ("x-b3-sampled", "1")]), by(false));
    assert_eq!(traced(&[multi[0], multi[1], ("x-b3-flags", "1")]), by(false));
    assert_eq!(traced(&[multi[0], multi[1], ("x-b3-sampled", "0")]), Traced::Unsampled);
    let Traced::By(short) = traced(&[("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-1")]) else {
        panic!("not read")
    };
    assert_eq!(short.trace.to_string(), "0000000000000000a3ce929d0e0e4736");
}

#[test]
fn envoys_own_span_is_recorded_as_envoy_has_decided() {
    let envoys = format!("00-{TRACE}-{SPAN}-01");
    let envoys = (GATEWAY_HEADER, envoys.as_str());
    assert_eq!(traced(&[envoys, TRACED_BY_ENVOY]), by(true));
    assert_eq!(traced(&[envoys, NOT_TRACED_BY_ENVOY]), Traced::Unsampled);
    assert_eq!(traced(&[envoys]), Traced::Unsampled);
    // Envoy continues the client's trace, and so follows its sampling decision.
    let theirs = |flags: &str| format!("00-{TRACE}-b7ad6b7169203331-{flags}");
    assert_eq!(traced(&[envoys, TRACED_BY_ENVOY, ("traceparent", &theirs("01"))]), by(true));
    assert_eq!(traced(&[envoys, TRACED_BY_ENVOY, ("traceparent", &theirs("00"))]), Traced::Unsampled);
    let other = format!("00-{}-{SPAN}-00", "1".repeat(32));
    assert_eq!(traced(&[envoys, TRACED_BY_ENVOY, ("traceparent", &other)]), by(true));
    // If Envoy has no tracer, its formatter writes dashes.
    let none = ((GATEWAY_HEADER, "00-----01"), ("traceparent", format!("00-{TRACE}-{SPAN}-01")));
    assert_eq!(traced(&[none.0, (none.1.0, &none.1.1)]), by(false));
}

#[test]
fn callouts_carry_their_own_span_in_every_form_that_came() {
    let (trace, parent) = (TraceId::read(TRACE).unwrap(), SpanId::read(SPAN).unwrap());
    let span = SpanId::new(7);
    let sent = |all: &[(&str, &str)]| callout_headers(&headers(all), trace, parent, span);
    let w3c = format!("00-{TRACE}-0000000000000007-01");
    let theirs = format!("00-{TRACE}-b7ad6b7169203331-01");
    assert_eq!(
        sent(&[("traceparent", &theirs), ("tracestate", "a=b"), TRACED_BY_ENVOY, ("accept", "x")]),
        headers(&[("traceparent", &w3c), TRACED_BY_ENVOY, ("tracestate", "a=b")])
    );
    assert_eq!(sent(&[("tracestate", "of=another")]), headers(&[("traceparent", &w3c)]));
    let b3 = format!("{TRACE}-0000000000000007-1-{SPAN}");
    assert_eq!(sent(&[("b3", "0")]), headers(&[("traceparent", &w3c), ("b3", &b3)]));
    assert_eq!(
        sent(&[("x-b3-traceid", TRACE), ("x-b3-flags", "1")]),
        headers(&[
            ("traceparent", &w3c),
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", "0000000000000007"),
            ("x-b3-parentspanid", SPAN),
            ("x-b3-sampled", "1"),
        ])
    );
}

fn span(name: &str) -> Span {
    Span {
        trace: TraceId::read(TRACE).unwrap(),
        id: SpanId::new(7),
        parent: None,
        name: name.to_owned(),
        kind: Kind::Client,
        begun: 1_544_712_660_000_000_000,
        ended: 1_544_712_661_000_000_000,
        attributes: vec![
            ("miroir.node", json!("meili-0")),
            ("http.response.status_code", json!(200)),
            ("miroir.nodes", json!(["a"])),
        ],
        error: None,
    }
}

#[test]
fn a_collector_is_told_in_its_own_words() {
    let mut batch = Batch::default();
    let config = TracingConfig::new("otel");
    assert_eq!(batch.take(&config, "vm"), None);
    let failed =
        Span { parent: SpanId::read(SPAN), error: Some("timeout".to_owned()), ended: 0, ..span("b") };
    assert!(batch.push(&span("a")) && batch.push(&failed) && !batch.is_full());
    let (body, count) = batch.take(&config, "vm").unwrap();
    assert_eq!(count, 2);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let of = &body["resourceSpans"][0];
    assert_eq!(
        of["resource"]["attributes"][0],
        json!({"key": "service.name", "value": {"stringValue": "miroir"}})
    );
    let spans = &of["scopeSpans"][0]["spans"];
    assert_eq!(
        spans[0],
        json!({
            "traceId": TRACE, "spanId": "0000000000000007", "name": "a", "kind": 3,
            "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": "1544712661000000000",
            "attributes": [
                {"key": "miroir.node", "value": {"stringValue": "meili-0"}},
                {"key": "http.response.status_code", "value": {"intValue": "200"}},
                {"key": "miroir.nodes", "value": {"arrayValue": {"values": [{"stringValue": "a"}]}}}
            ]
        })
    );
    assert_eq!(
        (&spans[1]["parentSpanId"], &spans[1]["status"]),
        (&json!(SPAN), &json!({"code": 2, "message": "timeout"}))
    );
    assert_eq!(spans[1]["endTimeUnixNano"], spans[1]["startTimeUnixNano"], "no time goes backwards");
    assert_eq!(batch.take(&config, "vm"), None);
}

#[test]
fn no_more_is_held_than_may_be() {
    let mut batch = Batch::default();
    let many = (0..3_000).filter(|_| batch.push(&span("a"))).count();
    assert!(many == 2_048 && batch.is_full(), "{many}");
    let mut batch = Batch::default();
    let large = span(&"x".repeat(100_000));
    let many = (0..100).filter(|_| batch.push(&large)).count();
    assert!(many == 20 && batch.is_full(), "{many}");
}

#[test]
fn what_is_wrong_is_named() {
    assert!(TracingConfig::new("otel").errors().is_empty());
    let wrong: TracingConfig =
        serde_json::from_value(json!({"cluster": "", "path": "x", "serviceName": "", "sampling": 2.0}))
            .unwrap();
    let errors = wrong.errors();
    for key in ["tracing.cluster", "tracing.path", "tracing.serviceName", "tracing.sampling"] {
        assert!(errors.iter().any(|error| error.starts_with(key)), "{key} not in {errors:?}");
    }
    assert!(serde_json::from_value::<TracingConfig>(json!({"cluster": "a", "url": "b"})).is_err());
    let sampling = |sampling| TracingConfig { sampling, ..TracingConfig::new("otel") };
    assert!(!sampling(0.0).samples(|| 0) && sampling(1.0).samples(|| u64::MAX));
    assert!(sampling(0.5).samples(|| 1 << 62) && !sampling(0.5).samples(|| 3 << 62));
}
