//! Routes that change settings, on all nodes. The shard tag's rule stays the first filterable attribute.

use super::{Sent, Shared, indexes};
use crate::{
    base::error::{Error, Result, api_error, index_not_found},
    cluster::locks::Scope,
    disguise::{
        embedders::{EMBEDDERS, hide_secrets, with_template},
        facet_values::{self, FACETING},
        messages,
        settings_tag::{FILTERABLE, disguised, display_tag, forbidden_tokens, tag_rule, with_tag},
    },
    domain::{
        index_uid::check_index_uid,
        intent::{Effect, NodeRequest},
        settings_change::merge_change,
        task::TaskKind,
    },
    indexes::{
        broadcast::{Held, ImmediateEffect, Operation},
        creation,
    },
    ledger::tasks::{self, NewTask},
};
use axum::{extract::Path, response::Response};
use miroir_core::path::ApiPath;
use serde_json::{Map, Value, json};

/// `PATCH /indexes/{index}/settings`.
///
/// # Errors
/// A node's error.
pub async fn update(cluster: Shared, Path(index): Path<String>, sent: Sent) -> Result<Response> {
    let Some(Value::Object(client)) = sent.json().filter(|_| check_index_uid(&index).is_ok()) else {
        return indexes::refused(&cluster, &sent).await;
    };
    let Value::Object(mut body) = disguised(&Value::Object(client.clone())) else {
        return indexes::refused(&cluster, &sent).await;
    };
    if let Some(value) = body.get_mut(FILTERABLE) {
        match with_tag(value) {
            Some(with_tag) => *value = with_tag,
            None => return indexes::refused(&cluster, &sent).await,
        }
    }
    let held = lock(&cluster, &sent, &index, &client).await?;
    if let Some(embedders) = body.get_mut(EMBEDDERS) {
        with_template(embedders, Some(&embedders_now(&cluster, &index).await?));
    }
    facet_values::with_room(&mut body);
    display_tag(&mut body);
    let sets_rule = body.contains_key(FILTERABLE);
    let request = request("PATCH", ApiPath::of_index(&index, &["settings"]), Value::Object(body));
    write(&cluster, &sent, held, &index, request, sets_rule, Some(Value::Object(client))).await
}

/// `DELETE /indexes/{index}/settings`: resets all settings that a node lists, but keeps the shard tag's rule, without which no
/// search finds anything.
///
/// # Errors
/// A node's error.
pub async fn reset(cluster: Shared, Path(index): Path<String>, sent: Sent) -> Result<Response> {
    if check_index_uid(&index).is_err() {
        return indexes::refused(&cluster, &sent).await;
    }
    let held = indexes::lock(&cluster, &sent, Scope::indexes([index.as_str()])).await?;
    if !cluster.cluster_state().indexes.contains_key(&index) {
        return reset_nothing(&cluster, &sent, held, &index, None).await;
    }
    let path = ApiPath::of_index(&index, &["settings"]);
    let names = cluster.ask_any(&crate::node::Request::own("GET", path.clone(), None)).await?.json();
    let mut body: Map<String, Value> =
        names.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), Value::Null)).collect();
    body.insert(FILTERABLE.to_owned(), json!([tag_rule()]));
    body.insert(FACETING.to_owned(), facet_values::reset());
    write(&cluster, &sent, held, &index, request("PATCH", path, Value::Object(body)), true, None).await
}

/// `PUT`, `PATCH` and `DELETE /indexes/{index}/settings/{name}`.
///
/// # Errors
/// A node's error.
pub async fn one(
    cluster: Shared,
    Path((index, name)): Path<(String, String)>,
    sent: Sent,
) -> Result<Response> {
    let method = sent.request.method.clone();
    let path = ApiPath::of_index(&index, &["settings", &name]);
    // There is no grant if nodes have no such setting.
    if sent.grant().is_err() || check_index_uid(&index).is_err() {
        return indexes::refused(&cluster, &sent).await;
    }
    let attribute = camel_case(&name);
    let change = Map::from_iter(sent.json().map(|value| (attribute.clone(), value)));
    let held = lock(&cluster, &sent, &index, &change).await?;
    if method == "DELETE" && !cluster.cluster_state().indexes.contains_key(&index) {
        return reset_nothing(&cluster, &sent, held, &index, Some(json!({ attribute: null }))).await;
    }
    let sets_rule = attribute == FILTERABLE && method != "PATCH";
    let value = if method == "DELETE" { Some(Value::Null) } else { sent.json() };
    let Some(value) = value else { return indexes::refused(&cluster, &sent).await };
    let request = if sets_rule {
        let Some(with_tag) = with_tag(&value) else { return indexes::refused(&cluster, &sent).await };
        request("PUT", path, with_tag)
    } else if attribute == FACETING && method != "PUT" {
        let mut body = Map::from_iter([(attribute.clone(), value.clone())]);
        facet_values::with_room(&mut body);
        request("PATCH", path, body.remove(FACETING).unwrap_or_default())
    } else {
        let Value::Object(mut body) = disguised(&json!({ attribute.as_str(): value })) else {
            return indexes::refused(&cluster, &sent).await;
        };
        display_tag(&mut body);
        let mut body = body.remove(&attribute).unwrap_or_default();
        if attribute == EMBEDDERS {
            with_template(&mut body, Some(&embedders_now(&cluster, &index).await?));
        }
        NodeRequest { method, path, body: Some(body).filter(|_| sent.request.method != "DELETE"), main: true }
    };
    let change = json!({ attribute: value });
    let written = write(&cluster, &sent, held, &index, request, sets_rule, Some(change)).await;
    // The shard tag's rule comes before the client's rules, so positions in the error are shifted by one.
    written.map_err(|error| match error {
        Error::Api(mut error) if sets_rule => {
            error.body.message = messages::shift_position(&error.body.message, "at `[");
            error.into()
        }
        error => error,
    })
}

/// Waits for the locks of a change of settings. One that a node may refuse because of its documents must reach every shard: a node that
/// was away could never catch up with what the others have taken.
async fn lock(cluster: &Shared, sent: &Sent, index: &str, change: &Map<String, Value>) -> Result<Held> {
    let scope = Scope::indexes([index]);
    match depends_on_documents(change) {
        true => indexes::lock_documents(cluster, sent, scope).await,
        false => indexes::lock(cluster, sent, scope).await,
    }
}

/// Whether a node may refuse a change of settings because of its documents: they may lack what an embedder needs, or what places need.
fn depends_on_documents(change: &Map<String, Value>) -> bool {
    let embedders = change.get(EMBEDDERS).and_then(Value::as_object);
    let has_place = |name: &str| {
        let names = change.get(name).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).any(|name| PLACES.contains(&name))
    };
    embedders.is_some_and(|embedders| embedders.values().any(|embedder| !embedder.is_null()))
        || has_place(FILTERABLE)
        || has_place(SORTABLE)
}

/// The attributes whose values nodes check once they are filterable or sortable.
const PLACES: [&str; 2] = ["_geo", "_geojson"];
/// The name of this setting.
const SORTABLE: &str = "sortableAttributes";

/// The embedders of an index, including the changes of earlier tasks that have not ended; null if there is no index.
async fn embedders_now(cluster: &Shared, index: &str) -> Result<Value> {
    if !cluster.cluster_state().indexes.contains_key(index) {
        return Ok(Value::Null);
    }
    let path = ApiPath::of_index(index, &["settings", EMBEDDERS]);
    let answer = cluster.ask_any(&crate::node::Request::own("GET", path, None)).await?;
    let told = answer.json();
    // Nodes may not have made the index yet.
    let is_there = answer.status != 404;
    if is_there && !(answer.is_success() && (told.is_object() || told.is_null())) {
        return Err(Error::Other(format!("a node does not tell the embedders of index `{index}`")));
    }
    let mut now = Map::from_iter([(EMBEDDERS.to_owned(), if is_there { told } else { Value::Null })]);
    for earlier in cluster.tracked_tasks.changes_of(index) {
        merge_change(&mut now, earlier.as_ref());
    }
    Ok(now.remove(EMBEDDERS).unwrap_or_default())
}

/// Resets settings of an index that does not exist. The task fails on all nodes, with a node's error, and does not create the
/// index.
async fn reset_nothing(
    cluster: &Shared,
    sent: &Sent,
    held: Held,
    index: &str,
    change: Option<Value>,
) -> Result<Response> {
    let (method, path) = (sent.request.method.clone(), sent.request.path.clone());
    let request = NodeRequest { method, path, body: None, main: true };
    write(cluster, sent, held, index, request, true, change).await
}

fn request(method: &str, path: ApiPath, body: Value) -> NodeRequest {
    NodeRequest { method: method.to_owned(), path, body: Some(body), main: true }
}

/// Turns `filterable-attributes` into `filterableAttributes`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

/// Changes settings of an index under its locks. Whatever depends on the index is read under them too.
async fn write(
    cluster: &Shared,
    sent: &Sent,
    held: Held,
    index: &str,
    request: NodeRequest,
    sets_rule: bool,
    change: Option<Value>,
) -> Result<Response> {
    let grant = sent.grant()?;
    if let Some(change) = &change {
        check(change)?;
    }
    // The details of a reset also name settings that nodes hide while their experimental features are disabled.
    let reset = || json!({FILTERABLE: null, FACETING: null, "chat": null, "foreignKeys": null});
    let mut details = change.clone().unwrap_or_else(reset);
    hide_secrets(&mut details);
    let task = NewTask {
        index: Some(index.to_owned()),
        kind: TaskKind::SettingsUpdate,
        details: Some(details),
        custom_metadata: None,
    };
    let is_known = cluster.cluster_state().indexes.contains_key(index);
    if !is_known && !grant.may_create(index) {
        // Nodes get the requests under the master key, so they would create the index although the client's key does not allow
        // it.
        let error = index_not_found(index).body;
        let clock = cluster.clock.clone();
        let fail =
            move |connection: &_| tasks::insert_failed(connection, &task, |_| None, error, clock.wall());
        let task = cluster.ledger.call(fail).await?;
        return Ok(super::accepted(&task));
    }
    let creates = !is_known && request.method != "DELETE";
    let mut requests = vec![request];
    let sets_limit = change.as_ref().is_some_and(facet_values::sets_limit);
    if creates {
        requests.extend(creation::initial_settings(index, sets_rule, sets_limit));
    }
    // A new index gets into the catalogue before its settings get into the ledger. So after a crash in between, the ledger has
    // nothing that nodes lack.
    let at_once = if creates {
        ImmediateEffect::Created { index: index.to_owned(), primary_key: None }
    } else {
        ImmediateEffect::Nothing
    };
    let operation = Operation {
        task,
        requests,
        authority: sent.request.authority.clone(),
        at_once,
        effect: Effect::Settings { index: index.to_owned(), change: change.as_ref().map(disguised), creates },
    };
    indexes::run(cluster, held, operation).await
}

/// The most ranking rules, and the most attributes in `faceting.sortFacetValuesBy`. Gateways keep both for each index to merge
/// results, and nodes describe each rule in each hit of a search.
const MOST: usize = 500;

/// Refuses settings that a node would accept but a cluster cannot support.
fn check(change: &Value) -> Result<()> {
    let refused = |code: &str, message: String| Err(api_error(400, "invalid_request", code, message).into());
    for (name, code) in [
        ("nonSeparatorTokens", "invalid_settings_non_separator_tokens"),
        ("dictionary", "invalid_settings_dictionary"),
    ] {
        // Shard tags consist of these characters. They must stay separators, otherwise searches would match shard tags.
        if let Some(token) = change.get(name).map(forbidden_tokens).unwrap_or_default().first() {
            let message = format!(
                "Invalid value at `.{name}`: `{token}` is reserved by the cluster: it must stay a separator."
            );
            return refused(code, message);
        }
    }
    let rules = change.get("rankingRules").and_then(Value::as_array).map_or(0, Vec::len);
    let sorts = change.pointer("/faceting/sortFacetValuesBy").and_then(Value::as_object).map_or(0, Map::len);
    for (name, code, count) in [
        ("rankingRules", "invalid_settings_ranking_rules", rules),
        ("faceting.sortFacetValuesBy", "invalid_settings_faceting", sorts),
    ] {
        if count > MOST {
            return refused(
                code,
                format!("Invalid value at `.{name}`: a cluster accepts at most {MOST}, not {count}."),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_cannot_take_is_refused() {
        assert!(check(&json!({"dictionary": ["J. R. R.", ",,("]})).is_err());
        assert!(check(&json!({"nonSeparatorTokens": [","]})).is_err());
        assert!(check(&json!({"dictionary": ["f(x)"], "rankingRules": ["words"]})).is_ok());
        assert!(check(&json!({"rankingRules": vec!["a:asc"; 501]})).is_err());
        let sorts: Map<String, Value> = (0..501).map(|name| (name.to_string(), json!("count"))).collect();
        assert!(check(&json!({"faceting": {"sortFacetValuesBy": sorts}})).is_err());
    }

    #[test]
    fn routes_name_settings() {
        assert_eq!(camel_case("filterable-attributes"), FILTERABLE);
        assert_eq!(camel_case("search-cutoff-ms"), "searchCutoffMs");
        assert_eq!(camel_case("embedders"), "embedders");
    }

    #[test]
    fn embedders_and_places_depend_on_documents() {
        let depends = |change: Value| depends_on_documents(change.as_object().unwrap());
        for change in [
            json!({"embedders": {"e": {"source": "userProvided", "dimensions": 2}}}),
            json!({"filterableAttributes": ["a", "_geo"]}),
            json!({"sortableAttributes": ["_geo"]}),
        ] {
            assert!(depends(change.clone()), "{change}");
        }
        for change in [
            json!({"embedders": {"e": null}}),
            json!({"embedders": null}),
            json!({"filterableAttributes": ["a", {"attributePatterns": ["_geo"]}], "sortableAttributes": null}),
            json!({"stopWords": ["_geo"]}),
        ] {
            assert!(!depends(change.clone()), "{change}");
        }
    }
}
