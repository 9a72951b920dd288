//! Searches of all kinds.

use super::script::Script;
use meilisearch_sdk::{
    client::Client,
    errors::Error,
    indexes::Index,
    search::{FederationOptions, MatchingStrategies, SearchResults, Selectors},
    settings::Embedder,
};
use serde_json::{Value, json};
use std::collections::HashMap;

pub async fn searches(s: &mut Script, client: &Client, films: &Index) {
    type Found = Result<SearchResults<Value>, Error>;
    let found: Found = films.search().with_query("wondr").with_show_matches_position(true).execute().await;
    s.said("a typo", found);
    let found: Found = films
        .search()
        .with_filter("genre = Drama")
        .with_facets(Selectors::Some(&["genre", "year"]))
        .with_sort(&["year:desc"])
        .execute()
        .await;
    s.said("filter, facets, sort", found);
    s.said("pages", films.search().with_page(2).with_hits_per_page(2).execute::<Value>().await);
    let found: Found = films
        .search()
        .with_query("mad moana")
        .with_matching_strategy(MatchingStrategies::ALL)
        .with_attributes_to_highlight(Selectors::All)
        .with_show_ranking_score(true)
        .with_show_ranking_score_details(true)
        .execute()
        .await;
    s.said("strategy", found);
    let found: Found = films
        .search()
        .with_query("max")
        .with_attributes_to_crop(Selectors::Some(&[("title", Some(1))]))
        .with_attributes_to_retrieve(Selectors::Some(&["title"]))
        .with_attributes_to_search_on(&["title"])
        .with_ranking_score_threshold(0.5)
        .execute()
        .await;
    s.said("crop, retrieve, threshold", found);
    let near = ["_geoPoint(41, 2):asc"];
    s.said(
        "geo",
        films.search().with_filter("_geoRadius(41, 2, 300000)").with_sort(&near).execute::<Value>().await,
    );
    s.said(
        "distinct",
        films.search().with_distinct("genre").with_sort(&["year:asc"]).execute::<Value>().await,
    );
    s.said("a bad filter", films.search().with_filter("nope = 1").execute::<Value>().await);
    s.said("search in none", client.index("nothing").search().execute::<Value>().await);
    let (one, two) = (films.search().with_query("carol").build(), films.search().with_query("pi").build());
    let mut many = client.multi_search();
    many.with_search_query(one.clone()).with_search_query(two.clone());
    s.said("multi_search", many.execute::<Value>().await);
    let mut many = client.multi_search();
    many.with_search_query(one).with_search_query_and_weight(two, 0.5);
    let federated =
        many.with_federation(FederationOptions { limit: Some(3), ..FederationOptions::default() });
    s.told("federated", federated.execute::<Value>().await, |it| {
        json!([it.hits, it.limit, it.offset, it.estimated_total_hits])
    });
    let facets = films.facet_search("genre").with_facet_query("dra").execute().await;
    s.told("facet_search", facets, |it| {
        json!(it.facet_hits.iter().map(|hit| json!([hit.value, hit.count])).collect::<Vec<_>>())
    });

    let embedder = Embedder { dimensions: Some(3), ..Embedder::default() };
    let embedders = HashMap::from([("mine".to_owned(), embedder)]);
    s.done("set_embedders", films.set_embedders(&embedders).await).await;
    let vectors: Vec<Value> =
        (1..6).map(|id| json!({"id": id, "_vectors": {"mine": [id, 1, 0.5]}})).collect();
    s.done("vectors", films.add_or_update(&vectors, None).await).await;
    let found: Found =
        films.search().with_hybrid("mine", 1.0).with_vector(&[1.0, 1.0, 0.5]).with_limit(3).execute().await;
    s.said("by vector", found);
    let similar = films.similar_search("1", "mine").with_limit(2).execute::<Value>().await;
    s.told("similar_search", similar, |it| {
        json!(it.hits.iter().map(|hit| hit.result.clone()).collect::<Vec<_>>())
    });
    s.said("get_embedders", films.get_embedders().await);
    s.done("reset_embedders", films.reset_embedders().await).await;
}
