//! Payloads, good and bad.

use super::{Case, case};
use serde_json::{Value, json};
use std::io::Write;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

pub fn json_payloads() -> Vec<Case> {
    let ids = [
        "1.5",
        "null",
        "{}",
        "[1]",
        "true",
        r#""a b""#,
        r#""""#,
        "-5",
        "18446744073709551615",
        "0",
        "-0",
        "1.0",
        "1e2",
        r#""é""#,
        r#""007""#,
        r#""\u0061b""#,
    ];
    let ids = ids.iter().map(|id| case(&format!("id {id}"), JSON, format!(r#"[{{"id":{id}}}]"#)));
    let long = |length: usize| {
        case(&format!("id of {length}"), JSON, json!([{"id": "a".repeat(length)}]).to_string())
    };
    let nested = |depth: usize| format!(r#"[{{"id":1,"a":{}{}}}]"#, "[".repeat(depth), "]".repeat(depth));
    let others: [(&str, Vec<u8>); 43] = [
        ("nothing", "".into()),
        ("blank", "   ".into()),
        ("null", "null".into()),
        ("number", "3".into()),
        ("text", r#""x""#.into()),
        ("empty array", "[]".into()),
        ("empty object", "{}".into()),
        ("cut", r#"[{"id":1},{"id":2"#.into()),
        ("after the end", r#"[{"id":1}]x"#.into()),
        ("comma at the end", r#"[{"id":1},]"#.into()),
        ("a member twice", r#"[{"id":1,"a":1,"a":2}]"#.into()),
        ("the id twice", r#"[{"id":1,"id":2}]"#.into()),
        ("two objects", r#"{"id":1}{"id":2}"#.into()),
        ("no id", r#"[{"name":"a"}]"#.into()),
        ("two candidates", r#"[{"aid":1,"bid":2}]"#.into()),
        ("one candidate", r#"[{"book_id":1,"t":2}]"#.into()),
        ("another case", r#"[{"ID":7}]"#.into()),
        ("a nested id", r#"[{"a":{"id":3}}]"#.into()),
        ("one id thrice", r#"[{"id":1,"a":1},{"id":1,"b":2},{"id":"1","c":3}]"#.into()),
        ("the second has no id", r#"[{"id":1},{"a":1}]"#.into()),
        ("bad coordinates", r#"[{"id":1,"_geo":"x"}]"#.into()),
        ("good coordinates", r#"[{"id":1,"_geo":{"lat":1,"lng":2}}]"#.into()),
        ("unknown vectors", r#"[{"id":1,"_vectors":{"a":[1,2]}}]"#.into()),
        ("no vectors at all", r#"[{"id":1},{"id":2},{"id":3,"_vectors":"x"}]"#.into()),
        ("nested 100", nested(100).into()),
        ("nested 200", nested(200).into()),
        ("nested 500,000", nested(500_000).into()),
        ("no UTF-8", b"[{\"id\":1,\"a\":\"\xff\"}]".to_vec()),
        ("byte order mark", b"\xef\xbb\xbf[{\"id\":1}]".to_vec()),
        ("control character", b"[{\"id\":1,\"a\":\"\x01\"}]".to_vec()),
        ("half a character", r#"[{"id":1,"a":"\ud800"}]"#.into()),
        ("zero character", r#"[{"id":1,"a":"\u0000"}]"#.into()),
        ("number out of range", r#"[{"id":1,"a":1e400}]"#.into()),
        (
            "long numbers",
            r#"[{"id":1,"a":0.1000000000000000055511151231257827,"b":12345678901234567890123}]"#.into(),
        ),
        ("white space", "\n\n [ {\"id\" : 1 } ] \n".into()),
        ("dots in names", r#"[{"id":1,"a.b":2,"a":{"b":3}}]"#.into()),
        ("half a token", r#"[{"id":1,"a":tru}]"#.into()),
        ("half an escape", r#"[{"id":1,"a":"\u00"}]"#.into()),
        ("no colon", r#"[{"id" 1}]"#.into()),
        (
            "a comment",
            r#"[{"id":1} // one
]"#
            .into(),
        ),
        ("single quotes", "[{'id':1}]".into()),
        ("not a number", r#"[{"id":1,"a":NaN}]"#.into()),
        ("leading zero", r#"[{"id":1,"a":01}]"#.into()),
    ];
    let others = others.into_iter().map(|(name, body)| case(name, JSON, body));
    ids.chain([long(511), long(512), long(600)]).chain(others).collect()
}

pub fn tables_and_lines() -> Vec<Case> {
    let lines: [(&str, &[u8]); 8] = [
        ("nothing", b""),
        ("CRLF and blank lines", b"{\"id\":1}\r\n\r\n{\"id\":2}\r\n"),
        ("a bad line", b"{\"id\":1}\n{\"id\":}\n"),
        ("two a line", b"{\"id\":1}{\"id\":2}"),
        ("cut", b"{\"id\":1}\n{\"id\":2"),
        ("blank", b"\n\n"),
        ("byte order mark", b"\xef\xbb\xbf{\"id\":1}"),
        ("no id", b"{\"a\":1}\n"),
    ];
    let tables: [(&str, &[u8]); 20] = [
        ("nothing", b""),
        ("a header", b"id,a\n"),
        ("a header without an end", b"id,a"),
        ("quoted line end", b"id,a\n1,\"x\ny\"\n"),
        ("byte order mark", b"\xef\xbb\xbfid,a\n1,b\n"),
        ("a header twice", b"id,a,a\n1,b,c\n"),
        ("types", b"id:number,price:number,ok:boolean,s:string\n1,2.5,true,3\n2,,,\n"),
        ("no number", b"id,price:number\n1,x\n"),
        ("no boolean", b"id,b:boolean\n1,yes\n"),
        ("unknown type", b"id,b:foo\n1,yes\n"),
        ("a short row", b"id,a,b\n1,2\n"),
        ("a long row", b"id,a\n1,2,3\n"),
        ("CRLF", b"id,a\r\n1,2\r\n"),
        ("quotes", b"id,a\n1,\"x\"\"y\"\n"),
        ("an open quote", b"id,a\n1,\"x\n"),
        ("no id", b"a,b\n1,2\n"),
        ("an empty id", b"id,a\n,2\n"),
        ("no UTF-8", b"id,a\n1,\xff\n"),
        ("spaces", b" id , a \n1, 2\n"),
        ("blank lines", b"id,a\n\n1,2\n\n"),
    ];
    let lines = lines.into_iter().map(|(name, body)| case(name, NDJSON, body));
    lines.chain(tables.into_iter().map(|(name, body)| case(name, CSV, body))).collect()
}

pub fn parameters_and_headers() -> Vec<Case> {
    const DOCUMENT: &str = r#"[{"id":1,"key":"k","a":{"b":"z"}}]"#;
    let queries = [
        "?primaryKey=key",
        "?primaryKey=a.b",
        "?foo=1",
        "?csvDelimiter=;",
        "?skipCreation=true",
        "?skipCreation=x",
        "?customMetadata=hello",
    ];
    let queries =
        queries.map(|query| Case { route: format!("/documents{query}"), ..case(query, JSON, DOCUMENT) });
    let delimiters = ["?csvDelimiter=;", "?csvDelimiter=ab", "?csvDelimiter=", "?csvDelimiter=%C3%A9"];
    let delimiters = delimiters
        .map(|query| Case { route: format!("/documents{query}"), ..case(query, CSV, "id;a\n1;2\n") });
    let types = [
        None,
        Some("text/plain"),
        Some("application/json; charset=utf-8"),
        Some("APPLICATION/JSON"),
        Some(""),
    ];
    let types = types.map(|content_type| Case { content_type, ..case("content type", JSON, DOCUMENT) });
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(DOCUMENT.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let encoded = [Case { encoding: Some("gzip"), ..case("gzip", JSON, gzip) }];
    queries.into_iter().chain(delimiters).chain(types).chain(encoded).collect()
}

pub fn deletions_and_edits() -> Vec<Case> {
    const BEFORE: &str = r#"[{"id":1,"a":1},{"id":2,"a":2},{"id":3}]"#;
    let bodies = [
        ("/documents/delete-batch", "[1,2]"),
        ("/documents/delete-batch", r#"["1","x",1]"#),
        ("/documents/delete-batch", r#"[1.5,null,{},[1],true,"a b"]"#),
        ("/documents/delete-batch", "[]"),
        ("/documents/delete-batch", "{}"),
        ("/documents/delete-batch", "[1"),
        ("/documents/delete-batch", ""),
        ("/documents/delete-batch?foo=1", "[1]"),
        ("/documents/delete", r#"{"filter":"id = 1"}"#),
        ("/documents/delete", r#"{"filter":["id = 1",["id = 2","id = 3"]]}"#),
        ("/documents/delete", r#"{"filter":"id ="}"#),
        ("/documents/delete", r#"{"filter":3}"#),
        ("/documents/delete", r#"{"filter":""}"#),
        ("/documents/delete", "{}"),
        ("/documents/delete", r#"{"filter":"id = 1","x":1}"#),
        ("/documents/delete", r#"{"filter":"#),
        ("/documents/delete", "[]"),
        ("/documents/edit", "{}"),
        ("/documents/edit", r#"{"function":"doc.a = 1"}"#),
        ("/documents/edit", r#"{"function":"doc.keys().len()","filter":"id ="}"#),
    ];
    let bodies = bodies.map(|(route, body)| Case {
        route: route.to_owned(),
        before: Some(BEFORE),
        ..case(route, JSON, body)
    });
    let deleted = ["/documents/1", "/documents/nobody", "/documents/a%20b", "/documents"].map(|route| Case {
        method: "DELETE",
        route: route.to_owned(),
        content_type: None,
        before: Some(BEFORE),
        ..case(route, JSON, "")
    });
    let again = [
        ("PUT", "/documents", r#"[{"id":1,"z":{"a":1}},{"id":1,"y":null},{"id":9}]"#),
        ("PUT", "/documents?skipCreation=true", r#"[{"id":1,"n":1},{"id":99,"n":1}]"#),
        ("POST", "/documents?primaryKey=key", r#"[{"id":2,"key":"b"}]"#),
        ("POST", "/documents?primaryKey=id", r#"[{"id":2,"key":"b"}]"#),
        ("POST", "/documents", r#"[{"key":"b"}]"#),
        ("POST", "/documents", "[]"),
    ];
    let again = again.map(|(method, route, body)| Case {
        method,
        route: route.to_owned(),
        before: Some(BEFORE),
        ..case(route, JSON, body)
    });
    bodies.into_iter().chain(deleted).chain(again).collect()
}

/// Documents that a node refuses because of the index's settings, among others that it would accept.
pub fn refused_by_settings() -> Vec<Case> {
    let settings = json!({
        "filterableAttributes": ["_geo", "_geojson"],
        "embedders": {"a": {"source": "userProvided", "dimensions": 2}, "b": {"source": "userProvided", "dimensions": 3}}
    });
    const VECTORS: &str = r#""_vectors":{"a":[1,2],"b":null}"#;
    let among_others = |method: &'static str, fields: &str| {
        let documents: Vec<String> = (0..30)
            .map(|id| match id {
                // If a name occurs twice in an object, the last member counts.
                17 => format!(r#"{{"id":{id},{VECTORS},{fields}}}"#),
                id => format!(r#"{{"id":{id},{VECTORS}}}"#),
            })
            .collect();
        Case {
            method,
            settings: Some(settings.clone()),
            ..case(fields, JSON, format!("[{}]", documents.join(",")))
        }
    };
    let fields = [
        r#""_geo":"x""#,
        r#""_geo":null"#,
        r#""_geo":{"lat":1}"#,
        r#""_geo":{"lat":"1e5","lng":"-3"}"#,
        r#""_geo":{"lat":"inf","lng":[]}"#,
        r#""_geojson":{"type":"Point","coordinates":[1,2]}"#,
        r#""_geojson":{"type":"Point","coordinates":[1]}"#,
        r#""_geojson":{"type":"Feature","geometry":null,"properties":{}}"#,
        r#""_geojson":{"type":"Point","coordinates":[1,2],"bbox":[1,2,3,4]}"#,
        r#""_vectors":3"#,
        r#""_vectors":{"a":[1,2,3],"b":null}"#,
        r#""_vectors":{"a":[[1,2],[3,4]],"b":{"embeddings":[1],"regenerate":false}}"#,
        r#""_vectors":{"a":[1,"x"],"b":null}"#,
        r#""_vectors":{"a":null,"b":{}}"#,
        r#""_vectors":{"a":null,"b":null,"c":"x"}"#,
        r#""_vectors":{"a":null,"b":[1,2,3],"c":["x"]}"#,
    ];
    let all = fields.map(|fields| among_others("POST", fields));
    let updated = Case {
        before: Some(r#"[{"id":1,"_vectors":{"a":[1,2],"b":null}}]"#),
        ..among_others("PUT", fields[2])
    };
    let with =
        |name: &str, settings: Value, body: &str| Case { settings: Some(settings), ..case(name, JSON, body) };
    let geo = || json!({"sortableAttributes": ["_geo"]});
    let some = [
        with("replaced within the payload", geo(), r#"[{"id":1,"_geo":"x"},{"id":2},{"id":1,"a":1}]"#),
        with("sortable", geo(), r#"[{"id":1},{"id":2},{"id":3},{"id":4,"_geo":[]},{"id":5}]"#),
        with("not sortable", json!({"sortableAttributes": ["_geo.lat"]}), r#"[{"id":1,"_geo":[]},{"id":2}]"#),
        Case {
            method: "PUT",
            ..with("updated within the payload", geo(), r#"[{"id":1,"_geo":"x"},{"id":1,"a":1}]"#)
        },
        Case { content_type: Some(CSV), ..with("a table", geo(), "id,_geo\n1,\n2,x\n3,\n") },
        Case { content_type: Some(NDJSON), ..with("lines", geo(), "{\"id\":1}\n{\"id\":2,\"_geo\":{}}") },
    ];
    all.into_iter().chain([updated]).chain(some).collect()
}
