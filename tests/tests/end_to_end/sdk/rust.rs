//! The Rust client's whole surface, against one address: a line for what every call gave.

use crate::token::tenant_token;
use meilisearch_sdk::{
    client::{Client, SwapIndexes},
    errors::Error,
    features::ExperimentalFeatures,
    indexes::{Index, IndexesQuery},
    key::{Action, KeyBuilder, KeyUpdater},
    search::{FederationOptions, MatchingStrategies, SearchResults, Selectors},
    settings::{
        Embedder, FacetSortValue, FacetingSettings, FilterableAttribute, LocalizedAttributes,
        MinWordSizeForTypos, PaginationSetting, PrefixSearchSettings, Settings, TypoToleranceSettings,
    },
    task_info::TaskInfo,
    tasks::{Task, TasksCancelQuery, TasksDeleteQuery, TasksSearchQuery},
    webhooks::{WebhookCreate, WebhookUpdate},
};
use miroir_tests::nodes_are_real;
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::HashMap, fmt::Debug, time::Duration};

/// What differs between any two servers.
const VOLATILE: [&str; 6] = ["processingTimeMs", "createdAt", "updatedAt", "uid", "key", "queryVector"];
const KEY: &str = "7a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a32";

/// A value as text: members by name, without what is volatile.
fn plain(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str())).collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// A task by its uid.
struct Uid(u32);

impl AsRef<u32> for Uid {
    fn as_ref(&self) -> &u32 {
        &self.0
    }
}

struct Script {
    client: Client,
    lines: Vec<String>,
}

impl Script {
    fn told<T>(&mut self, name: &str, result: Result<T, Error>, tell: impl FnOnce(&T) -> Value) -> Option<T> {
        let line = match &result {
            Ok(value) => plain(&tell(value)),
            Err(Error::Meilisearch(error)) => format!("{error:?}"),
            Err(error) => error.to_string().replace(self.client.get_host(), "…"),
        };
        self.lines.push(format!("{name}: {line}"));
        result.ok()
    }

    fn said<T: Serialize>(&mut self, name: &str, result: Result<T, Error>) -> Option<T> {
        self.told(name, result, |value| serde_json::to_value(value).unwrap())
    }

    fn seen<T: Debug>(&mut self, name: &str, result: Result<T, Error>) -> Option<T> {
        self.told(name, result, |value| json!(format!("{value:?}")))
    }

    /// A call that gives a task, which is waited for.
    async fn done(&mut self, name: &str, result: Result<TaskInfo, Error>) {
        let Some(task) =
            self.told(name, result, |task| json!(format!("{} {:?}", task.status, task.index_uid)))
        else {
            return;
        };
        let pause = Some(Duration::from_millis(20));
        let ended = task.wait_for_completion(&self.client, pause, Some(Duration::from_secs(60))).await;
        self.told(&format!("{name}: task"), ended, |task| match task {
            Task::Succeeded { content } => {
                json!(format!("{:?} {:?}", content.index_uid, content.update_type))
            }
            Task::Failed { content } => {
                json!(format!(
                    "{:?} {:?} {}",
                    content.task.index_uid, content.task.update_type, content.error
                ))
            }
            task => json!(format!("{task:?}")),
        });
    }
}

/// Sets, reads and resets a setting.
macro_rules! setting {
    ($script:ident, $index:ident, $set:ident($value:expr), $get:ident, $reset:ident) => {
        let result = $index.$set($value).await;
        $script.done(stringify!($set), result).await;
        $script.said(stringify!($get), $index.$get().await);
        let result = $index.$reset().await;
        $script.done(stringify!($reset), result).await;
        $script.said(concat!(stringify!($get), " after"), $index.$get().await);
    };
}

/// Drives the server at this address.
pub fn drive(url: &str, key: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut script = Script { client: Client::new(url, Some(key)).unwrap(), lines: Vec::new() };
        let client = script.client.clone();
        let films = indexes_and_documents(&mut script, &client).await;
        searches(&mut script, &client, &films).await;
        settings(&mut script, &films).await;
        keys(&mut script, &client, url).await;
        rest(&mut script, &client, films).await;
        script.lines
    })
}

async fn indexes_and_documents(script: &mut Script, client: &Client) -> Index {
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

async fn searches(s: &mut Script, client: &Client, films: &Index) {
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

async fn settings(s: &mut Script, films: &Index) {
    setting!(
        s,
        films,
        set_ranking_rules(["words", "typo", "year:desc"]),
        get_ranking_rules,
        reset_ranking_rules
    );
    setting!(s, films, set_stop_words(["of", "the"]), get_stop_words, reset_stop_words);
    let synonyms = HashMap::from([("film".to_owned(), vec!["movie".to_owned()])]);
    setting!(s, films, set_synonyms(&synonyms), get_synonyms, reset_synonyms);
    setting!(
        s,
        films,
        set_searchable_attributes(["title"]),
        get_searchable_attributes,
        reset_searchable_attributes
    );
    setting!(
        s,
        films,
        set_displayed_attributes(["id", "title"]),
        get_displayed_attributes,
        reset_displayed_attributes
    );
    setting!(s, films, set_distinct_attribute("year"), get_distinct_attribute, reset_distinct_attribute);
    let pagination = PaginationSetting { max_total_hits: 50 };
    setting!(s, films, set_pagination(pagination), get_pagination, reset_pagination);
    let sorts = [("*".to_owned(), FacetSortValue::Count)].into();
    let faceting = FacetingSettings { max_values_per_facet: 5, sort_facet_values_by: Some(sorts) };
    setting!(s, films, set_faceting(&faceting), get_faceting, reset_faceting);
    let typos = TypoToleranceSettings {
        enabled: Some(true),
        disable_on_words: Some(vec!["pi".to_owned()]),
        min_word_size_for_typos: Some(MinWordSizeForTypos { one_typo: Some(3), two_typos: Some(8) }),
        ..TypoToleranceSettings::default()
    };
    setting!(s, films, set_typo_tolerance(&typos), get_typo_tolerance, reset_typo_tolerance);
    setting!(s, films, set_dictionary(["J. R. R."]), get_dictionary, reset_dictionary);
    let separators = ["|".to_owned()];
    setting!(
        s,
        films,
        set_separator_tokens(&separators.to_vec()),
        get_separator_tokens,
        reset_separator_tokens
    );
    let words = ["#".to_owned()];
    setting!(
        s,
        films,
        set_non_separator_tokens(&words.to_vec()),
        get_non_separator_tokens,
        reset_non_separator_tokens
    );
    let proximity = "byAttribute".to_owned();
    setting!(
        s,
        films,
        set_proximity_precision(proximity.clone()),
        get_proximity_precision,
        reset_proximity_precision
    );
    setting!(s, films, set_facet_search(false), get_facet_search, reset_facet_search);
    setting!(
        s,
        films,
        set_prefix_search(PrefixSearchSettings::Disabled),
        get_prefix_search,
        reset_prefix_search
    );
    setting!(s, films, set_search_cutoff_ms(Some(900)), get_search_cutoff_ms, reset_search_cutoff_ms);
    let locales =
        vec![LocalizedAttributes { locales: vec!["eng".into()], attribute_patterns: vec!["title".into()] }];
    setting!(
        s,
        films,
        set_localized_attributes(&locales),
        get_localized_attributes,
        reset_localized_attributes
    );
    s.said("get_filterable_attributes", films.get_filterable_attributes().await);
    s.said("get_sortable_attributes", films.get_sortable_attributes().await);
    let rules = [FilterableAttribute::Attribute("year".to_owned())];
    s.done("set_filterable_attributes_advanced", films.set_filterable_attributes_advanced(rules).await).await;
    s.said("get_filterable_attributes_advanced", films.get_filterable_attributes_advanced().await);
    s.done("wrong settings", films.set_settings(&Settings::new().with_ranking_rules(["nope"])).await).await;
    let all = Settings::new().with_stop_words(["a"]).with_filterable_attributes(["year", "genre"]);
    s.done("set_settings", films.set_settings(&all.with_max_values_per_facet(7)).await).await;
    s.said("get_settings", films.get_settings().await);
    s.done("reset_settings", films.reset_settings().await).await;
    s.said("get_settings after", films.get_settings().await);
}

async fn keys(s: &mut Script, client: &Client, url: &str) {
    let mut key = KeyBuilder::new();
    key.with_uid(KEY).with_name("search").with_action(Action::Search).with_index("films");
    let made = s.said("create_key", client.create_key(&key).await).unwrap();
    s.said("create_key again", client.create_key(&key).await);
    s.said("get_key", client.get_key(KEY).await);
    s.told("get_keys", client.get_keys().await, |keys| {
        let mut names: Vec<_> = keys.results.iter().map(|key| key.name.clone()).collect();
        names.sort();
        json!(names)
    });
    let mut update = KeyUpdater::new(KEY);
    update.with_name("other").with_description("told");
    s.said("update_key", client.update_key(&update).await);
    let films = Client::new(url, Some(&made.key)).unwrap();
    s.said("search under a key", films.index("films").search().with_query("carol").execute::<Value>().await);
    s.said("search elsewhere", films.index("books").search().execute::<Value>().await);
    s.seen("add under it", films.index("films").add_documents(&[json!({"id": 9})], None).await);
    s.told("tasks under it", films.get_tasks().await, |tasks| json!(tasks.total));
    s.done("filterable again", client.index("films").set_filterable_attributes(["year"]).await).await;
    let token = tenant_token(KEY, &made.key, &json!({"films": {"filter": "year > 2013"}}));
    let tenant = Client::new(url, Some(token)).unwrap();
    s.said("search under a token", tenant.index("films").search().execute::<Value>().await);
    s.told("no key", Client::new(url, None::<&str>).unwrap().get_stats().await, |_| json!(0));
    s.told("a wrong key", Client::new(url, Some("wrong")).unwrap().get_stats().await, |_| json!(0));
    s.said("delete_key", client.delete_key(KEY).await);
    s.said("search under what is gone", films.index("films").search().execute::<Value>().await);
}

async fn rest(s: &mut Script, client: &Client, films: Index) {
    let mut query = TasksSearchQuery::new(client);
    query.with_types(["indexCreation"]).with_statuses(["succeeded"]).with_limit(10);
    s.told("get_tasks_with", client.get_tasks_with(&query).await, |it| json!([it.total, it.results.len()]));
    s.told("tasks of an index", films.get_tasks().await, |it| json!([it.total, it.results.len()]));
    s.seen("get_task of none", client.get_task(Uid(999_999)).await);
    s.told("get_batches", client.get_batches().await, |it| json!(it.results.len()));
    let mut query = TasksCancelQuery::new(client);
    query.with_uids([0, 1].iter());
    s.done("cancel_tasks_with", client.cancel_tasks_with(&query).await).await;
    s.seen("cancel all without a filter", client.cancel_tasks_with(&TasksCancelQuery::new(client)).await);
    let mut query = TasksDeleteQuery::new(client);
    query.with_uids([0, 1].iter());
    s.done("delete_tasks_with", client.delete_tasks_with(&query).await).await;
    let pair = SwapIndexes { indexes: ("films".into(), "books".into()), rename: None };
    s.done("swap_indexes", client.swap_indexes([&pair]).await).await;
    s.told("get_stats of all", client.get_stats().await, |stats| {
        json!([stats.indexes["films"].number_of_documents, stats.indexes["books"].number_of_documents])
    });
    let mut index = client.get_index("books").await.unwrap();
    s.told("fetch_info", index.fetch_info().await, |()| json!(0));
    let mut features = ExperimentalFeatures::new(client);
    features.set_contains_filter(true);
    s.seen("features", features.update().await);
    s.seen("features read", ExperimentalFeatures::new(client).get().await);
    // `miroir-devnode` has no webhooks.
    if nodes_are_real() {
        webhooks(s, client).await;
    }
    let dump = client.create_dump().await.unwrap().wait_for_completion(client, None, None).await;
    s.told("create_dump", dump, |task| json!(task.is_success()));
    s.done("create_snapshot", client.create_snapshot().await).await;
    s.done("delete_all_documents", index.delete_all_documents().await).await;
    s.done("delete", index.delete().await).await;
    s.done("delete of none", client.delete_index("books").await).await;
}

async fn webhooks(s: &mut Script, client: &Client) {
    let hook = client.create_webhook(&WebhookCreate::new("http://127.0.0.1:9/x").with_header("a", "b")).await;
    let hook = s.told("create_webhook", hook, |it| json!([it.is_editable, it.webhook.url])).unwrap();
    let mut update = WebhookUpdate::new();
    update.with_url("http://127.0.0.1:9/y").remove_header("a");
    let updated = client.update_webhook(hook.uuid.to_string(), &update).await;
    s.told("update_webhook", updated, |it| json!([it.webhook.url, it.webhook.headers]));
    s.told("get_webhooks", client.get_webhooks().await, |it| json!(it.results.len()));
    s.said("delete_webhook", client.delete_webhook(hook.uuid.to_string()).await);
}
