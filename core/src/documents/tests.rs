use super::*;
#[cfg(not(target_arch = "wasm32"))]
use proptest::prelude::*;
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const LIMIT: u64 = 100 << 20;

/// Reads a payload in chunks of `step` bytes.
fn read(format: Format, payload: &[u8], key: Option<&str>, step: usize) -> Result<Documents, ApiError> {
    let key = key.map(PrimaryKey::new);
    let mut reader = DocumentReader::new(format, key.as_ref(), LIMIT);
    for chunk in payload.chunks(step.max(1)) {
        reader.push(chunk)?;
    }
    reader.finish().map_err(|refused| refused.0)
}

fn parsed(documents: &mut Documents, key: &str) -> Vec<Value> {
    documents.assign(&PrimaryKey::new(key), 64).unwrap();
    serde_json::from_slice(&documents.tagged(9, |_| true)).unwrap()
}

fn message(format: Format, payload: &str) -> String {
    read(format, payload.as_bytes(), None, 7).unwrap_err().body.message
}

#[test]
fn every_form_gives_the_same_documents() {
    let tag = |id: &str, position| {
        json!([Shard::of_document(id, 64).tag(), Sequence { write: 9, position }.to_string()])
    };
    let expected = vec![
        json!({"id": 1, "name": "a b", "_miroir_shard": tag("1", 0)}),
        json!({"id": 2, "name": null, "_miroir_shard": tag("2", 1)}),
    ];
    let forms: [(Format, &str); 3] = [
        (Format::Json, " [ {\"id\":1,\n\"name\":\"a b\"} , {\"id\":2,\"name\":null} ]\n"),
        (Format::Ndjson, "{\"id\":1,\"name\":\"a b\"}\r\n\n{\"id\":2,\"name\":null}"),
        (Format::Csv { delimiter: b',' }, "id:number,name\n1,a b\n2,\n"),
    ];
    for (format, payload) in forms {
        for step in 1..payload.len() {
            let mut documents = read(format, payload.as_bytes(), Some("id"), step).unwrap();
            assert_eq!(parsed(&mut documents, "id"), expected, "{format:?} in steps of {step}");
        }
    }
    let mut one = read(Format::Json, b"{\"id\":1,\"name\":\"a b\"}", None, 4).unwrap();
    assert_eq!(parsed(&mut one, "id"), expected[..1]);
}

#[test]
fn fields_are_named_as_nodes_take_them_up() {
    let named = |format, payload: &str| {
        let named = |step| {
            let documents = read(format, payload.as_bytes(), Some("id"), step).unwrap();
            (documents.names().list(), documents.names().nested())
        };
        let whole = named(payload.len());
        for step in 1..payload.len() {
            assert_eq!(named(step), whole, "{payload} in steps of {step}");
        }
        whole
    };
    let lists = |own: &[&str], nested: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        (list(own), list(nested))
    };
    let json = |payload| named(Format::Json, payload);
    assert_eq!(json(r#"[{"b":1,"id":1},{"a":{"x":null},"b":2,"id":2}]"#), lists(&["b", "id", "a"], &["a.x"]));
    // Objects in lists, one field with values of several types, and names that look like nested fields.
    assert_eq!(
        json(r#"[{"id":1,"a":[{"y":{"z":[]}},[{"x":1}]],"b":2},{"id":{"c":0},"a":7,"a.x":1}]"#),
        lists(&["id", "a", "b", "a.x"], &["id.c", "a.y", "a.x", "a.y.z"])
    );
    assert_eq!(
        json(r#"{"id":1,"q\"\u00e9":{"":{"[]":1}},"":{"x":{"y":1}}}"#),
        lists(&["id", "q\"é", ""], &["q\"é.", "x", "q\"é..[]", "x.y"])
    );
    // Of the fields that the preflight checks, only `_geo` has subfields, whatever its value is.
    assert_eq!(
        json(r#"{"id":1,"_geo":null,"_vectors":{"a":{"regenerate":true}},"_geojson":{"type":"x"}}"#),
        lists(&["id", "_geo", "_vectors", "_geojson"], &["_geo.lat", "_geo.lng"])
    );
    assert_eq!(named(Format::Ndjson, "{\"id\":1}\n{\"c\":2,\"id\":3}"), lists(&["id", "c"], &[]));
    let csv = Format::Csv { delimiter: b',' };
    assert_eq!(
        named(csv, "c,id,c,_geo\n1,2,3,\n4,5,6,"),
        lists(&["c", "id", "_geo"], &["_geo.lat", "_geo.lng"])
    );
    assert_eq!(named(csv, "c,id\n"), lists(&[], &[]));
}

/// The long name of an object is part of the paths of all its fields: a small payload must not become gigabytes of names.
#[test]
fn what_is_told_of_fields_in_objects_is_bounded() {
    let below = |name: usize, fields: usize, depth: usize| {
        let fields: Vec<String> = (0..fields).map(|n| format!("\"f{n}\":{n}")).collect();
        let name = "x".repeat(name);
        let open = format!("{{\"{name}\":").repeat(depth);
        format!("{{\"id\":1,\"o\":{open}{{{}}}{}}}", fields.join(","), "}".repeat(depth))
    };
    for payload in
        [below(64 << 10, 60_000, 1), below(3 << 20, 1_000, 1), below(1000, 60_000, 90), below(1, 200_000, 1)]
    {
        let mut documents = read(Format::Json, payload.as_bytes(), Some("id"), 1 << 20).unwrap();
        // Too many nested fields are no error, because a node may not look at them at all.
        assert_eq!(documents.assign(&PrimaryKey::new("id"), 64), Ok(()));
        let nested = documents.names().nested();
        let bytes: usize = nested.iter().map(String::len).sum();
        assert!(bytes < 8 << 20 && nested.len() < 200_000, "{bytes} bytes, {} names", nested.len());
    }
}

#[test]
fn more_fields_than_an_index_can_have_fail_the_payload() {
    let with = |fields: usize| {
        let names: Vec<String> = (1..fields).map(|n| format!("\"f{n}\":{n}")).collect();
        read(Format::Json, format!("{{\"id\":1,{}}}", names.join(",")).as_bytes(), Some("id"), 1 << 16)
            .unwrap()
    };
    let assigned = |fields| with(fields).assign(&PrimaryKey::new("id"), 64);
    assert_eq!(assigned(MAX_FIELDS - 1), Ok(()));
    assert_eq!(with(MAX_FIELDS - 1).names().list().len(), MAX_FIELDS - 1);
    assert_eq!(assigned(MAX_FIELDS + 1).unwrap_err().code, "max_fields_limit_exceeded");
    // Long names fail too, because the size of the names in a begin is bounded.
    let long = format!("{{\"id\":1,\"{}\":1}}", "x".repeat(5 << 20));
    let mut documents = read(Format::Json, long.as_bytes(), Some("id"), 1 << 20).unwrap();
    assert!(documents.assign(&PrimaryKey::new("id"), 64).is_err());
}

/// The network may cut a payload anywhere, even inside a number that is kept as written.
#[test]
fn a_payload_may_be_cut_anywhere() {
    let documents = r#"{"id":-12,"_geo":{"lat":-1.5e-3,"lng":2E+1},"_vectors":{"a":[-0.25,1.0e2,null],"b":{"embeddings":[[-3]],
        "regenerate":true}},"s":"\ud83d\ude00 é \\","n":[-1.5e-7,true,false,{"a":-0.1}]}"#;
    let payload = format!("[{documents},{documents}]");
    for cut in 1..payload.len() {
        let mut reader = DocumentReader::new(Format::Json, Some(&PrimaryKey::new("id")), LIMIT);
        let (first, rest) = payload.as_bytes().split_at(cut);
        reader.push(first).unwrap();
        reader.push(rest).unwrap();
        let read = reader.finish().map_err(|refused| refused.0.body.message);
        assert_eq!(read.map(|documents| documents.len()), Ok(2), "cut at {cut}");
    }
}

#[test]
fn bytes_are_kept() {
    let payload = br#"[{"id":"x","n":1.000,"big":123456789012345678901234567890,"s":"\u00e9","id":"y"}]"#;
    let mut documents = read(Format::Json, payload, Some("id"), 5).unwrap();
    documents.assign(&PrimaryKey::new("id"), 64).unwrap();
    let text = String::from_utf8(documents.tagged(9, |_| true)).unwrap();
    assert!(text.starts_with(
        r#"[{"id":"x","n":1.000,"big":123456789012345678901234567890,"s":"\u00e9","id":"y","_miroir_shard":[""#
    ));
    assert_eq!(documents.shards(), [Shard::of_document("y", 64)], "the last of two ids counts");
}

#[test]
fn malformed_payloads_say_what_meilisearch_says() {
    let wrong = "The `json` payload provided is malformed. `Couldn't serialize document value: ";
    assert_eq!(
        message(Format::Json, "[{\"id\":1},\n{\"id\":"),
        format!("{wrong}EOF while parsing a value at line 2 column 6`.")
    );
    assert_eq!(
        message(Format::Json, "[{\"id\":1}"),
        format!("{wrong}EOF while parsing a list at line 1 column 9`.")
    );
    assert_eq!(
        message(Format::Json, "{\"id\":1} x"),
        format!("{wrong}trailing characters at line 1 column 10`.")
    );
    assert_eq!(
        message(Format::Json, "\"text\""),
        format!("{wrong}data are neither an object nor a list of objects`.")
    );
    assert_eq!(message(Format::Json, ""), "A json payload is missing.");
    assert!(
        message(Format::Ndjson, "{\"id\":1}\n{\"id\" 2}").contains("expected `:` at line 2 column 7"),
        "{}",
        message(Format::Ndjson, "{\"id\":1}\n{\"id\" 2}")
    );
    assert_eq!(
        message(Format::Csv { delimiter: b',' }, "id,name\n1\n"),
        "The `csv` payload provided is malformed: `CSV error: record 1 (line: 2, byte: 8): found record with 1 fields, but the previous record has 2 fields`."
    );
    assert!(read(Format::Json, b"[{\"id\":1,\"s\":\"\xff\"}]", Some("id"), 3).is_err());
}

#[test]
fn an_id_that_is_given_twice_is_read_as_carefully_as_other_fields() {
    for wrong in ["1e999", r#""\ud800""#, "[1e999]"] {
        let payload = format!(r#"[{{"id":{wrong},"id":1}}]"#);
        let (as_id, as_field) = (
            read(Format::Json, payload.as_bytes(), Some("id"), 5),
            read(Format::Json, payload.as_bytes(), None, 5),
        );
        assert_eq!(as_id.unwrap_err(), as_field.unwrap_err(), "{wrong}");
    }
    assert_eq!(read(Format::Json, br#"[{"id":[1],"id":1}]"#, Some("id"), 5).unwrap().len(), 1);
}

#[test]
fn what_follows_an_array_is_ignored_as_meilisearch_does() {
    assert_eq!(read(Format::Json, b"[{\"id\":1}] x", None, 3).unwrap().len(), 1);
}

#[test]
fn an_error_at_the_end_of_a_large_payload_is_found() {
    let mut payload = b"[".to_vec();
    while payload.len() < 3 << 20 {
        payload.extend_from_slice(br#"{"id":12345,"text":"some text to make it longer"},"#);
    }
    payload.extend_from_slice(br#"{"id":}]"#);
    let error = read(Format::Json, &payload, Some("id"), 16 << 10).unwrap_err();
    assert!(error.body.message.contains("expected value at line 1 column"), "{}", error.body.message);
}

#[test]
fn a_document_larger_than_a_segment_is_whole() {
    let long = "x".repeat(5 << 20);
    let payload = format!("[{{\"id\":1}},{{\"id\":2,\"text\":\"{long}\"}},{{\"id\":3}}]");
    let mut documents = read(Format::Json, payload.as_bytes(), Some("id"), 16 << 10).unwrap();
    assert_eq!(documents.len(), 3);
    assert_eq!(parsed(&mut documents, "id")[1]["text"].as_str().unwrap().len(), long.len());
}

#[test]
fn the_limit_holds() {
    let mut reader = DocumentReader::new(Format::Json, None, 1024);
    reader.push(&[b' '; 1024]).unwrap();
    let error = reader.push(b" ").unwrap_err();
    assert_eq!(error.status, 413);
    assert_eq!(
        error.body.message,
        "The provided payload reached the size limit. The maximum accepted payload size is 1 KiB."
    );
    assert!(payload_too_large(104_857_600).body.message.ends_with("size is 100 MiB."));
}

#[test]
fn ids_are_checked_as_meilisearch_does() {
    let key = PrimaryKey::new("id");
    let id = |document: &str| key.document_id(document.as_bytes());
    assert_eq!(id(r#"{"id":42}"#).unwrap(), "42");
    assert_eq!(id(r#"{"id":-7}"#).unwrap(), "-7");
    assert_eq!(id(r#"{"id":"a-B_9"}"#).unwrap(), "a-B_9");
    let long = format!(r#"{{"id":"{}"}}"#, "a".repeat(512));
    for bad in [r#"{"id":1.5}"#, r#"{"id":null}"#, r#"{"id":[1]}"#, r#"{"id":""}"#, r#"{"id":"a b"}"#, &long]
    {
        assert_eq!(id(bad).unwrap_err().body.code, "invalid_document_id", "{bad}");
    }
    assert!(
        id(r#"{"id":1.5}"#).unwrap_err().body.message.starts_with("Document identifier `1.5` is invalid.")
    );
    assert_eq!(
        id(r#"{"name":"x"}"#).unwrap_err().body.message,
        "Document doesn't have a `id` attribute: `{\"name\":\"x\"}`."
    );
}

#[test]
fn nested_primary_keys_are_followed() {
    let key = PrimaryKey::new("user.id");
    let id = |document: &str| key.document_id(document.as_bytes());
    assert_eq!(id(r#"{"user":{"name":"a","id":7}}"#).unwrap(), "7");
    assert_eq!(id(r#"{"user.id":8}"#).unwrap(), "8");
    assert_eq!(id(r#"{"user":{"id":7},"user.id":8}"#).unwrap_err().body.code, "invalid_document_id");
    assert_eq!(id(r#"{"user":3}"#).unwrap_err().body.code, "missing_document_id");
}

#[test]
fn primary_keys_are_inferred_as_meilisearch_does() {
    let infer = |document: &str| infer_primary_key(Some(document.as_bytes()));
    assert_eq!(infer(r#"{"a":1,"movieID":2}"#).unwrap().name(), "movieID");
    assert_eq!(infer(r#"{"a":1}"#).unwrap_err().code, "index_primary_key_no_candidate_found");
    let two = infer(r#"{"uid":1,"id":2}"#).unwrap_err();
    assert!(two.message.contains("found 2 fields ending with `id` in their names: 'id' and 'uid'"));
    assert_eq!(infer_primary_key(None).unwrap_err().code, "index_primary_key_no_candidate_found");
}

#[test]
fn the_reserved_field_is_refused() {
    for (format, payload) in [
        (Format::Json, r#"[{"id":1,"_miroir_shard":"x"}]"#),
        (Format::Ndjson, r#"{"_miroir_shard":"x","id":1}"#),
        (Format::Csv { delimiter: b',' }, "id,_miroir_shard\n1,x\n"),
    ] {
        assert!(message(format, payload).contains("`_miroir_shard` is reserved"), "{format:?}");
    }
}

#[test]
fn content_types_are_checked() {
    assert_eq!(
        Format::from_content_type(Some("application/json; charset=utf-8"), None).unwrap(),
        Format::Json
    );
    assert_eq!(
        Format::from_content_type(Some("text/csv"), Some(b';')).unwrap(),
        Format::Csv { delimiter: b';' }
    );
    assert_eq!(Format::from_content_type(None, None).unwrap_err().body.code, "missing_content_type");
    assert_eq!(
        Format::from_content_type(Some("text/plain"), None).unwrap_err().body.message,
        "The Content-Type `text/plain` is invalid. Accepted values for the Content-Type header are: `application/json`, `application/x-ndjson`, `text/csv`"
    );
}

#[test]
fn duplicates_of_an_id_stay_in_order() {
    let payload = br#"[{"id":1,"v":1},{"id":2,"v":2},{"id":1,"v":3}]"#;
    let mut documents = read(Format::Json, payload, Some("id"), 9).unwrap();
    documents.assign(&PrimaryKey::new("id"), 64).unwrap();
    let one = Shard::of_document("1", 64);
    let values: Vec<Value> = serde_json::from_slice(&documents.tagged(9, |shard| shard == one)).unwrap();
    assert_eq!(values.iter().map(|value| value["v"].clone()).collect::<Vec<_>>(), [json!(1), json!(3)]);
}

#[cfg(not(target_arch = "wasm32"))]
proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
        for format in [Format::Json, Format::Ndjson, Format::Csv { delimiter: b',' }] {
            let _ = read(format, &bytes, Some("id"), step);
        }
    }

    #[test]
    fn json_like_text_reads_the_same_in_any_chunks(
        text in r#"[\[\]{}",:a1 \\]{0,40}"#, step in 1usize..10,
    ) {
        let payload = format!("[{{\"id\":1}},{text}");
        let whole = read(Format::Json, payload.as_bytes(), Some("id"), payload.len());
        let parts = read(Format::Json, payload.as_bytes(), Some("id"), step);
        match (whole, parts) {
            (Ok(whole), Ok(parts)) => prop_assert_eq!(whole.len(), parts.len()),
            (Err(whole), Err(parts)) => prop_assert_eq!(whole, parts),
            (whole, parts) => prop_assert!(false, "{:?} against {:?}", whole, parts),
        }
    }
}

#[test]
fn another_key_assigns_again() {
    let mut documents = read(Format::Json, br#"[{"id":1,"other":"a"}]"#, Some("id"), 9).unwrap();
    documents.assign(&PrimaryKey::new("id"), 64).unwrap();
    assert_eq!(documents.shards(), [Shard::of_document("1", 64)]);
    documents.assign(&PrimaryKey::new("other"), 64).unwrap();
    assert_eq!(documents.shards(), [Shard::of_document("a", 64)]);
    assert_eq!(documents.assign(&PrimaryKey::new("none"), 64).unwrap_err().code, "missing_document_id");
    assert_eq!(documents.assign(&PrimaryKey::new("none"), 64).unwrap_err().code, "missing_document_id");
}
