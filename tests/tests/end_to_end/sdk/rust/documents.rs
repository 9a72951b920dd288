//! Indexes and documents.

use super::script::Script;
use meilisearch_sdk::{
    client::Client,
    indexes::{Index, IndexesQuery},
};
use serde_json::{Value, json};

pub async fn indexes_and_documents(script: &mut Script, client: &Client) -> Index {
    let s = script;
    s.told("health", client.health().await, |health| json!(health.status));
    s.told("version", client.get_version().await, |version| json!(version.pkg_version.is_empty()));
    s.done("create_index", client.create_index("films", Some("id")).await).await;
    s.done("create_index again", client.create_index("films", Some("id")).await).await;
    s.seen("create_index with a bad uid", client.create_index("no good!", None).await);
    s.done("create_index, the second", client.create_index("books", None).await).await;
    let mut query = IndexesQuery::new(client);
    let uids = |indexes: &[Index]| json!(indexes.iter().map(|index| index.uid.clone()).collect::<Vec<_>>());
    s.told("indexes", query.with_limit(1).with_offset(1).execute().await, |it| uids(&it.results));
    s.told("list_all_indexes", client.list_all_indexes().await, |it| uids(&it.results));
    s.told("get_index", client.get_index("films").await, |index| json!([index.uid, index.primary_key]));
    s.told("get_index of none", client.get_index("nothing").await, |index| json!(index.uid));
    s.said("get_raw_index", client.get_raw_index("books").await);
    let mut books = client.index("books");
    s.done("set_primary_key", books.set_primary_key("isbn").await).await;
    s.told("get_primary_key", books.get_primary_key().await.map(|key| key.map(str::to_owned)), |it| {
        json!(it)
    });

    let films = client.index("films");
    let documents: Vec<Value> = (1..=6u64)
        .map(|id| {
            let genre = ["Drama", "Action"][id as usize % 2];
            let title =
                ["Carol", "Wonder Woman", "Life of Pi", "Mad Max", "Moana", "Philadelphia"][id as usize - 1];
            json!({"id": id, "title": title, "genre": genre, "year": 2010 + id,
                   "_geo": {"lat": 40 + id, "lng": 2}})
        })
        .collect();
    s.done("add_or_replace", films.add_or_replace(&documents, Some("id")).await).await;
    s.done("add_or_update", films.add_or_update(&[json!({"id": 6, "rating": 7.7})], None).await).await;
    for task in films.add_documents_in_batches(&documents, Some(4), None).await.unwrap() {
        s.done("add_documents_in_batches", Ok(task)).await;
    }
    let lines = "{\"id\":7,\"title\":\"Alien\"}\n{\"id\":8,\"title\":\"Heat\"}";
    s.done("add_documents_ndjson", films.add_documents_ndjson(lines.as_bytes(), Some("id")).await).await;
    s.done("update_documents_csv", films.update_documents_csv("id,title\n7,Aliens\n".as_bytes(), None).await)
        .await;
    s.done("a bad id", films.add_documents(&[json!({"id": "a b"})], None).await).await;
    s.done("no id", films.add_documents(&[json!({"title": "x"})], None).await).await;
    s.said("get_document", films.get_document::<Value>("7").await);
    s.said("get_document of none", films.get_document::<Value>("99").await);
    s.told("get_documents", films.get_documents::<Value>().await, |it| {
        json!([it.results, it.total, it.limit])
    });
    s.done("set_filterable_attributes", films.set_filterable_attributes(["genre", "year", "_geo"]).await)
        .await;
    s.done("set_sortable_attributes", films.set_sortable_attributes(["year", "title", "_geo"]).await).await;
    let query = meilisearch_sdk::documents::DocumentsQuery::new(&films)
        .with_filter("year > 2013")
        .with_fields(["id", "title"])
        .with_limit(2)
        .with_offset(1)
        .clone();
    let page = films.get_documents_with::<Value>(&query).await;
    s.told("get_documents_with", page, |it| json!([it.results, it.total, it.offset]));
    let query = meilisearch_sdk::documents::DocumentsQuery::new(&films).with_filter("nope = 1").clone();
    s.told("a bad filter", films.get_documents_with::<Value>(&query).await, |it| json!(it.total));
    s.done("delete_document", films.delete_document(8).await).await;
    s.done("delete_documents", films.delete_documents(&[7, 77]).await).await;
    let query =
        meilisearch_sdk::documents::DocumentDeletionQuery::new(&films).with_filter("year = 2016").clone();
    s.done("delete_documents_with", films.delete_documents_with(&query).await).await;
    let stats = films.get_stats().await;
    s.told("get_stats", stats, |it| json!([it.number_of_documents, it.is_indexing, it.field_distribution]));
    films
}
