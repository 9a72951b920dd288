//! Keys, tasks, and what else concerns all indexes.

use super::script::{Script, Uid};
use crate::token::tenant_token;
use meilisearch_sdk::{
    client::{Client, SwapIndexes},
    features::ExperimentalFeatures,
    indexes::Index,
    key::{Action, KeyBuilder, KeyUpdater},
    tasks::{TasksCancelQuery, TasksDeleteQuery, TasksSearchQuery},
    webhooks::{WebhookCreate, WebhookUpdate},
};
use miroir_tests::nodes_are_real;
use serde_json::{Value, json};

const KEY: &str = "7a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a32";

pub async fn keys(s: &mut Script, client: &Client, url: &str) {
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

pub async fn rest(s: &mut Script, client: &Client, films: Index) {
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
