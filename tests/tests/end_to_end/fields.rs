//! A node's answers depend on the fields that it knows. All nodes of a cluster must know the fields of all documents, so that a
//! condition finds the same as on a single node, whichever nodes have the documents.

use miroir_tests::{Client, Node, Random, Sandbox, number, tell};
use serde_json::{Value, json};

/// The fields in conditions. All documents have the field, or some, one or none of them. Each field also exists within an
/// object.
const FIELDS: [&str; 8] = ["all", "some", "one", "none", "in.all", "in.some", "in.one", "in.none"];
/// Conditions, with `F` in place of the field.
const CONDITIONS: [&str; 18] = [
    "F = x",
    "F != x",
    "F = true",
    "F != true",
    "F != 3",
    "F > 2",
    "F <= 2",
    "F 1 TO 3",
    "F IN [x, 3]",
    "F NOT IN [x, 3]",
    "F EXISTS",
    "F NOT EXISTS",
    "F IS NULL",
    "F IS NOT NULL",
    "F IS EMPTY",
    "F IS NOT EMPTY",
    "F STARTS WITH x",
    "F NOT STARTS WITH x",
];
const DOCUMENTS: i64 = 24;

fn documents() -> Vec<Value> {
    let values =
        [json!("x"), json!(true), json!(3), json!(null), json!(""), json!([]), json!(["x", 1]), json!({})];
    let mut documents: Vec<Value> = (0..DOCUMENTS)
        .map(|id| {
            let value = &values[usize::try_from(id).unwrap() % values.len()];
            json!({"id": id, "all": value, "in": {"all": value}})
        })
        .collect();
    for (position, document) in documents.iter_mut().enumerate() {
        if position % 5 == 1 {
            document["some"] = values[position % values.len()].clone();
            document["in"]["some"] = values[position % values.len()].clone();
        }
        if position == 17 {
            document["one"] = json!(true);
            document["in"] = json!([{"all": 1}, {"one": "x"}]);
            document["_geo"] = json!({"lat": 1, "lng": 2});
        }
    }
    documents
}

fn fill(client: &Client, index: &str) {
    let settings = json!({
        "filterableAttributes": ["all", "some", "one", "none", "in", "_geo", "edited", "id"],
        "sortableAttributes": ["id", "one", "none", "in.one", "_geo"],
    });
    client.create(index, "id", &settings);
    client.add(index, &json!(documents()));
}

/// Every condition on every field, also negated, and random combinations of them.
fn filters(random: &mut Random) -> Vec<Value> {
    let one = |field: &str, condition: &str| condition.replace('F', field);
    let mut filters = Vec::new();
    for field in FIELDS {
        for condition in CONDITIONS {
            filters.push(json!(one(field, condition)));
            filters.push(json!(format!("NOT ({})", one(field, condition))));
        }
    }
    fn draw(random: &mut Random, depth: usize) -> String {
        if depth == 0 || random.one_in(4) {
            let field: &str = random.of::<&str>(&FIELDS);
            return random.of(&CONDITIONS).replace('F', field);
        }
        match random.below(3) {
            0 => format!("NOT ({})", draw(random, depth - 1)),
            1 => format!("({}) AND ({})", draw(random, depth - 1), draw(random, depth - 1)),
            _ => format!("({}) OR ({})", draw(random, depth - 1), draw(random, depth - 1)),
        }
    }
    for _ in 0..number("MIROIR_FILTERS", 100) {
        filters.push(json!(draw(random, 3)));
        filters.push(json!([draw(random, 1), [draw(random, 1), draw(random, 2)]]));
    }
    filters
}

/// An answer without times and ids of requests, which may differ.
fn comparable(client: &Client, path: &str, body: &Value) -> String {
    let mut answer = client.json("POST", path, body);
    for name in ["processingTimeMs", "requestUid"] {
        answer.body.as_object_mut().map(|answer| answer.remove(name));
    }
    // Compared as text, because the order of fields matters.
    format!("{} {}", answer.status, answer.body)
}

pub fn a_condition_finds_what_it_finds_on_one_node_whoever_has_seen_its_field(
    cluster: &Sandbox,
    node: &Node,
) {
    let seed = number("MIROIR_SEED", u64::from(std::process::id()));
    tell!("seed {seed}");
    let mut random = Random(seed);
    let clients = [&cluster.client, &node.client];
    clients.iter().for_each(|client| fill(client, "flags"));
    let mut wrong = Vec::new();
    let mut compare = |path: &str, body: &Value| {
        let (one, other) = (comparable(clients[0], path, body), comparable(clients[1], path, body));
        if one != other {
            wrong.push(format!("{path} {body}:\n  cluster: {one}\n  node:    {other}"));
        }
    };
    let filters = filters(&mut random);
    for filter in &filters {
        compare("/indexes/flags/search", &json!({"filter": filter, "limit": 100, "facets": ["*"]}));
        compare("/indexes/flags/documents/fetch", &json!({"filter": filter, "limit": 100}));
    }
    let facets = json!({"filter": random.of(&filters), "facetName": "all", "facetQuery": ""});
    compare("/indexes/flags/facet-search", &facets);
    for sort in
        ["_geoPoint(1,1):asc", "_geoPoint(1,1):desc", "one:asc", "none:desc", "in.one:asc", "missing:asc"]
    {
        // The second sort makes the order the same on both for documents that the first one does not order.
        compare("/indexes/flags/documents/fetch", &json!({"sort": [sort, "id:asc"], "limit": 100}));
        compare("/indexes/flags/search", &json!({"sort": [sort, "id:asc"], "limit": 100}));
    }
    for body in [
        json!({"facets": ["unknown"]}),
        json!({"filter": "unknown = 1"}),
        json!({"distinct": "unknown"}),
        json!({"facets": ["in.one", "none"]}),
    ] {
        compare("/indexes/flags/search", &body);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 2 * filters.len(), wrong.join("\n"));
}

pub fn what_writes_by_a_condition_writes_the_same_on_all_replicas(cluster: &Sandbox, node: &Node) {
    let seed = number("MIROIR_SEED", u64::from(std::process::id()));
    tell!("seed {seed}");
    let mut random = Random(seed);
    let clients = [&cluster.client, &node.client];
    for client in clients {
        fill(client, "flags");
        let _ = client.json(
            "PATCH",
            "/experimental-features",
            &json!({"editDocumentsByFunction": true, "containsFilter": true}),
        );
    }
    let mut drawn = filters(&mut random);
    let certain =
        ["one != true", "NOT (one != true)", "none != x", "NOT (in.one != x)"].map(|filter| json!(filter));
    for _ in 0..8 {
        let position = random.below(drawn.len());
        drawn.swap(0, position);
        drawn.truncate(drawn.len().min(1000));
    }
    drawn.truncate(8);
    for (number, filter) in certain.iter().chain(&drawn).enumerate() {
        let done = clients.map(|client| {
            client.add("flags", &json!(documents()));
            let edit =
                json!({"filter": filter, "function": format!("doc.edited = {number}; doc.new_{number} = 1")});
            let edited = client.succeeded(&client.json("POST", "/indexes/flags/documents/edit", &edit));
            // The function has created a field on the nodes of some documents only.
            let body = json!({"filter": format!("edited != {number}"), "limit": 100, "fields": ["id"], "sort": ["id:asc"]});
            let others = comparable(client, "/indexes/flags/documents/fetch", &body);
            let deletion = json!({"filter": filter});
            let deleted =
                client.succeeded(&client.json("POST", "/indexes/flags/documents/delete", &deletion));
            // Documents written again after a deletion have another place in the order without a sort.
            let all = json!({"sort": ["id:asc"], "limit": 100});
            let left = comparable(client, "/indexes/flags/documents/fetch", &all);
            (others, edited["details"]["editedDocuments"].clone(), deleted["details"].clone(), left)
        });
        assert_eq!(done[0], done[1], "{filter}");
        let _ = cluster.identical("flags", "id");
    }
}

/// Sends writes without waiting for their tasks. What a condition finds must follow from the writes that were accepted before
/// it.
pub fn a_deletion_right_behind_the_first_document_with_a_field_knows_it(cluster: &Sandbox, node: &Node) {
    for round in 0..6 {
        let left = [&cluster.client, &node.client].map(|client| {
            let index = format!("flags-{round}");
            let plain: Vec<Value> = (0..20).map(|id| json!({"id": id, "title": "x"})).collect();
            client.create(&index, "id", &json!({"filterableAttributes": ["archived"]}));
            client.add(&index, &json!(plain));
            let path = format!("/indexes/{index}/documents");
            let archived = json!([{"archived": true, "title": "y", "id": 20 + round}]);
            assert_eq!(client.json("POST", &path, &archived).status, 202);
            let deletion = json!({"filter": "archived != true"});
            client.succeeded(&client.json("POST", &format!("{path}/delete"), &deletion));
            client.get(&path).body.to_string()
        });
        assert_eq!(left[0], left[1]);
        let _ = cluster.identical(&format!("flags-{round}"), "id");
    }
}

pub fn documents_show_their_fields_in_the_order_of_one_node(cluster: &Sandbox, node: &Node) {
    let cases = [
        // The primary key is inferred, so it has the position that it has in the first document.
        (
            "inferred",
            "",
            json!([{"title": "a", "bookId": 1, "z": 1}, {"y": 1, "bookId": 2}, {"bookId": 3, "a": 0}]),
        ),
        (
            "said",
            "?primaryKey=key",
            json!([{"b": 1, "key": 1}, {"a": 2, "key": 2, "b": 0}, {"key": 3, "0": 1}]),
        ),
        (
            "nested",
            "?primaryKey=meta.ref",
            json!([
                {"b": 1, "meta": {"x": 1, "ref": 1}}, {"a": 1, "meta": {"ref": 2}, "b": 0}
            ]),
        ),
    ];
    for (index, parameters, documents) in cases {
        let shown = [&cluster.client, &node.client].map(|client| {
            let path = format!("/indexes/{index}/documents{parameters}");
            client.succeeded(&client.json("POST", &path, &documents));
            let more = json!([{"new": 1, "a": 1, "bookId": 9, "key": 9, "meta": {"ref": 9}, "b": 1}]);
            client.succeeded(&client.json("PUT", &path, &more));
            let list = client.get(&format!("/indexes/{index}/documents")).body.to_string();
            let hits = client.search(index, &json!({}))["hits"].to_string();
            (list, hits, client.get(&format!("/indexes/{index}")).body["primaryKey"].clone())
        });
        assert_eq!(shown[0], shown[1], "{index}");
    }
}

pub fn odd_names_and_many_fields_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let odd =
        ["a.b", "a\"b", "a'b", "[0]", "", " ", "ä", "a\\b", "_geo.lat", "_vectors", "null", "a..b", ".", "*"];
    let clients = [&cluster.client, &node.client];
    for (number, name) in odd.iter().enumerate() {
        let index = format!("odd-{number}");
        let said = clients.map(|client| {
            let settings = json!({"filterableAttributes": ["*"]});
            client.create(&index, "id", &settings);
            let documents: Vec<Value> = (0..12).map(|id| json!({"id": id, "a": {"c": 1}})).collect();
            client.add(&index, &json!(documents));
            let document = Value::Object(
                [("id".to_owned(), json!(99)), ((*name).to_owned(), json!(1))].into_iter().collect(),
            );
            let task = client.ended(&client.json(
                "POST",
                &format!("/indexes/{index}/documents"),
                &json!([document]),
            ));
            let quoted = serde_json::to_string(name).unwrap();
            let found = comparable(
                client,
                &format!("/indexes/{index}/search"),
                &json!({"filter": format!("{quoted} != 2"), "facets": ["*"]}),
            );
            (task["status"].clone(), task["error"].clone(), found)
        });
        assert_eq!(said[0], said[1], "{name:?}");
    }
    // A payload with many fields, then a new field in each document, then more fields than an index can have.
    let with = |id: u64, from: usize, to: usize| {
        let fields = (from..to).map(|n| (format!("f{n}"), json!(n)));
        Value::Object(std::iter::once(("id".to_owned(), json!(id))).chain(fields).collect())
    };
    let said = clients.map(|client| {
        client.create(
            "many",
            "id",
            &json!({"searchableAttributes": ["id"], "filterableAttributes": ["f7", "f2100"]}),
        );
        let add = |documents: Value| {
            let task = client.ended(&client.json("POST", "/indexes/many/documents", &documents));
            (task["status"].clone(), task["error"]["code"].clone())
        };
        let mut said = vec![add(json!([with(1, 0, 2_000)]))];
        said.push(add((0..200).map(|n| with(2 + n, 2_000 + n as usize, 2_001 + n as usize)).collect()));
        said.push(add(json!([with(500, 3_000, 63_000)])));
        said.push(add(json!([with(501, 63_000, 70_000)])));
        let found = ["f7 != 1", "f2100 != 2100", "f2100 = 2100"]
            .map(|filter| client.search("many", &json!({"filter": filter}))["estimatedTotalHits"].clone());
        (said, found, client.count("many"))
    });
    assert_eq!(said[0], said[1]);
}

pub fn fields_follow_their_index_wherever_it_goes(cluster: &Sandbox, node: &Node) {
    let clients = [&cluster.client, &node.client];
    let found = |index: &str| {
        clients.map(|client| {
            let query = json!({"filter": "rare != 1", "limit": 100});
            comparable(client, &format!("/indexes/{index}/search"), &query)
        })
    };
    let each = |act: &dyn Fn(&Client)| clients.iter().for_each(|client| act(client));
    let add = |client: &Client, index: &str, document: Value| client.add(index, &json!([document]));
    each(&|client| {
        for index in ["one", "two"] {
            client.create(index, "id", &json!({"filterableAttributes": ["rare"]}));
            let documents: Vec<Value> = (0..20).map(|id| json!({"id": id, "of": index})).collect();
            client.add(index, &json!(documents));
        }
        add(client, "one", json!({"id": 20, "rare": 1}));
        client.succeeded(&client.json("POST", "/swap-indexes", &json!([{"indexes": ["one", "two"]}])));
        // After the swap, this index has never seen the field, but the other one has.
        add(client, "one", json!({"id": 21}));
    });
    for index in ["one", "two"] {
        let [one, other] = found(index);
        assert_eq!(one, other, "{index}");
    }
    each(&|client| {
        client.succeeded(&client.json("PATCH", "/indexes/two", &json!({"uid": "three"})));
        add(client, "three", json!({"id": 22, "rare": 2, "of": 3}));
        client.succeeded(&client.send("DELETE", "/indexes/one", None, ""));
        // A new index with the same name, in which all fields are new.
        client.create("one", "key", &json!({"filterableAttributes": ["rare"]}));
        add(client, "one", json!({"of": 1, "key": 1}));
        client.add("one", &json!((2..20).map(|key| json!({"z": 1, "key": key, "a": 1})).collect::<Vec<_>>()));
    });
    for index in ["one", "three"] {
        let [one, other] = found(index);
        assert_eq!(one, other, "{index}");
    }
    each(&|client| add(client, "one", json!({"key": 3, "rare": 1, "of": 2})));
    let [one, other] = found("one");
    assert_eq!(one, other);
}

/// Settings change while documents add new fields. The test waits only at the end.
pub fn settings_and_fields_may_change_at_once(cluster: &Sandbox, node: &Node) {
    let found = [&cluster.client, &node.client].map(|client| {
        client.create("busy", "id", &json!({}));
        client.add("busy", &json!((0..20).map(|id| json!({"id": id})).collect::<Vec<_>>()));
        let mut last = None;
        for round in 0..8 {
            let filterable: Vec<String> = (0..=round).map(|n| format!("f{n}")).collect();
            let settings = json!({"filterableAttributes": filterable, "sortableAttributes": filterable});
            assert_eq!(client.json("PATCH", "/indexes/busy/settings", &settings).status, 202);
            let mut document = json!({"id": round});
            document[format!("f{round}")] = json!(1);
            last = Some(client.json("PUT", "/indexes/busy/documents", &json!([document])));
        }
        client.succeeded(&last.unwrap());
        (0..8)
            .map(|round| {
                let query = json!({"filter": format!("f{round} != 1"), "sort": [format!("f{round}:asc"), "f0:desc"], "limit": 100});
                comparable(client, "/indexes/busy/search", &query)
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(found[0], found[1]);
}
