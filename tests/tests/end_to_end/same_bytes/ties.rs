//! Documents with equal ranks: they are returned in the order in which they were written first, whatever the query, and
//! whatever was written again since.

use super::Pair;
use miroir_tests::{Answer, Client, Node, Random, Sandbox};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DOCUMENTS: usize = 700;

/// Documents with ids in random order, and few different values of all other fields.
fn documents() -> Vec<Value> {
    let mut random = Random(0x7135);
    let mut documents: Vec<Value> = (0..DOCUMENTS)
        .map(|number| {
            json!({"id": format!("{:08x}", random.draw() as u32), "title": format!("river {}", random.below(5)),
                "n": random.below(3), "group": format!("g{}", random.below(40)), "number": number})
        })
        .collect();
    documents[17]["id"] = json!(5);
    documents[18]["id"] = json!("40");
    documents
}

fn write(client: &Client, method: &str, index: &str, documents: &[Value]) {
    let path = format!("/indexes/{index}/documents");
    client.succeeded(&client.json(method, &path, &json!(documents)));
}

/// Writes the documents in several ways, then writes some of them again in several ways.
fn fill(client: &Client, index: &str, documents: &[Value]) {
    for (position, part) in documents[..500].chunks(125).enumerate() {
        write(client, if position % 2 == 0 { "POST" } else { "PUT" }, index, part);
    }
    let path = format!("/indexes/{index}/documents");
    let lines: Vec<String> = documents[500..600].iter().map(Value::to_string).collect();
    client.succeeded(&client.send("POST", &path, Some("application/x-ndjson"), lines.join("\n")));
    let table = documents[600..].iter().map(|document| {
        let text = |name: &str| document[name].as_str().unwrap().to_owned();
        format!("{},{},{},{},{}", text("id"), text("title"), document["n"], text("group"), document["number"])
    });
    let table: Vec<String> =
        std::iter::once("id,title,n:number,group,number:number".to_owned()).chain(table).collect();
    client.succeeded(&client.send("POST", &path, Some("text/csv"), table.join("\n")));

    let changed = |step: usize, at: usize| -> Vec<Value> {
        let changed = documents.iter().skip(at).step_by(step).cloned();
        changed
            .map(|mut document| {
                document["seen"] = json!("again");
                document
            })
            .collect()
    };
    write(client, "POST", index, &changed(11, 3));
    write(client, "PUT", index, &changed(13, 5));
    let mut both = changed(90, 8);
    let new = |id: &str| json!({"id": id, "title": "river 1", "n": 1, "group": "g1", "number": 0});
    both.insert(2, new("zz-first"));
    both.insert(0, new("aa-last"));
    both.push(new("zz-first"));
    both.push(new("mm"));
    write(client, "POST", index, &both);
    for document in changed(201, 9) {
        write(client, "PUT", index, &[document]);
    }
}

pub fn what_nothing_tells_apart_comes_in_the_order_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let documents = documents();
    let settings = json!({"sortableAttributes": ["n", "title"], "filterableAttributes": ["n", "group"], "searchableAttributes": ["title"]});
    let reversed: Vec<Value> = documents.iter().rev().take(60).cloned().collect();
    for client in pair.clients {
        client.create("ties", "id", &settings);
        fill(client, "ties", &documents);
        client.create("more", "id", &settings);
        write(client, "POST", "more", &reversed);
    }
    for query in [
        "",
        "?limit=1000",
        "?limit=37&offset=111",
        "?limit=5&offset=600",
        "?limit=37&offset=300&fields=title",
        "?limit=40&fields=number&sort=n:asc",
        "?limit=40&offset=80&sort=title:desc,n:desc",
    ] {
        pair.get(&format!("/indexes/ties/documents{query}"));
    }
    let queries = [
        json!({"limit": 1000}),
        json!({"limit": 20, "offset": 40}),
        json!({"limit": 20, "offset": 540}),
        json!({"limit": 50, "q": "river"}),
        json!({"limit": 50, "offset": 25, "q": "river 3", "showRankingScore": true}),
        json!({"limit": 50, "q": "river", "attributesToRetrieve": ["number"]}),
        json!({"limit": 50, "attributesToRetrieve": []}),
        json!({"limit": 50, "attributesToRetrieve": ["title"], "attributesToHighlight": ["*"], "q": "river"}),
        json!({"limit": 50, "sort": ["n:asc"]}),
        json!({"limit": 50, "sort": ["title:desc"], "offset": 20, "q": "river"}),
        json!({"limit": 20, "sort": ["n:desc"], "offset": 510, "attributesToRetrieve": ["number"]}),
        json!({"limit": 50, "filter": "n = 1"}),
        json!({"hitsPerPage": 30, "page": 4, "filter": "group = g1 OR group = g2"}),
        json!({"limit": 100, "distinct": "group"}),
        json!({"limit": 30, "distinct": "group", "q": "river", "attributesToRetrieve": ["number"]}),
    ];
    for body in &queries {
        pair.search("ties", body);
    }
    let of = |index: &str, body: Value| {
        let mut query = body;
        query["indexUid"] = json!(index);
        query
    };
    let federated = [
        vec![of("ties", json!({"q": "river"})), of("more", json!({"q": "river"}))],
        vec![of("ties", json!({"filter": "n = 1"})), of("ties", json!({"filter": "n = 2"}))],
        vec![of("ties", json!({"sort": ["n:asc"]})), of("more", json!({"sort": ["n:asc"]}))],
    ];
    for queries in &federated {
        for federation in [json!({}), json!({"limit": 60, "offset": 30})] {
            pair.post("/multi-search", &json!({"federation": federation, "queries": queries}));
        }
    }
    // The fields that determine the order are not displayed.
    for displayed in [json!(["title"]), json!([])] {
        for client in pair.clients {
            let settings = json!({"displayedAttributes": displayed, "distinctAttribute": null});
            client.succeeded(&client.json("PATCH", "/indexes/ties/settings", &settings));
        }
        pair.get("/indexes/ties/settings");
        for body in &queries[..9] {
            pair.search("ties", body);
        }
        pair.post("/multi-search", &json!({"federation": {"limit": 50}, "queries": federated[0]}));
    }
    pair.end();
    every_page_has_its_own(&cluster.client);
}

/// Documents that were written after a deletion have different orders on different replicas. Even so, no document may be on two
/// pages.
fn every_page_has_its_own(client: &Client) {
    let settings = json!({"displayedAttributes": ["*"]});
    client.succeeded(&client.json("PATCH", "/indexes/ties/settings", &settings));
    let listed = client.get("/indexes/ties/documents?limit=1000&fields=id").body;
    let ids: Vec<&Value> =
        listed["results"].as_array().unwrap().iter().map(|document| &document["id"]).collect();
    let gone: Vec<&Value> = ids.iter().step_by(9).copied().collect();
    client.succeeded(&client.json("POST", "/indexes/ties/documents/delete-batch", &json!(gone)));
    let new: Vec<Value> = (0..gone.len())
        .map(|number| json!({"id": format!("n{number}"), "title": "river 2", "n": 1}))
        .collect();
    write(client, "POST", "ties", &new);
    let pages = |ask: &dyn Fn(usize) -> Answer, name: &str| {
        let mut seen = BTreeSet::new();
        for offset in (0..ids.len()).step_by(20) {
            let page = ask(offset).body;
            let hits = page[name].as_array().unwrap();
            assert!(
                hits.iter().all(|hit| seen.insert(hit["id"].to_string())),
                "the page at offset {offset} has a document of another page"
            );
        }
        assert_eq!(seen.len(), ids.len(), "{name}");
    };
    for query in [json!({}), json!({"q": "river"}), json!({"sort": ["n:asc"]})] {
        let search = |offset: usize| {
            let mut query = query.clone();
            query["offset"] = json!(offset);
            query["attributesToRetrieve"] =
                if offset.is_multiple_of(40) { json!(["id"]) } else { json!(["*"]) };
            client.json("POST", "/indexes/ties/search", &query)
        };
        pages(&search, "hits");
    }
    pages(&|offset| client.get(&format!("/indexes/ties/documents?offset={offset}")), "results");
    let fields =
        |offset: usize| client.get(&format!("/indexes/ties/documents?offset={offset}&fields=id&sort=n:asc"));
    pages(&fields, "results");
}
