//! Explains to clients why the cluster does not answer a read that a node would accept.

use super::Context;
use crate::{
    error::{ApiError, Code},
    http::{Answer, Reply},
    json::RawObject,
    route::Route,
    search::request::remotes,
};
use serde_json::{Value, value::RawValue};

impl Context {
    /// The index has just been created: nodes have it, but cannot filter by the tag yet. Clients are told that the index does
    /// not exist yet.
    pub(super) fn not_there_yet(&self, refusal: &Answer) -> Reply {
        // A refusal that cannot be read names no query.
        let refusal: Option<Value> = serde_json::from_slice(&refusal.body).ok();
        let message = refusal.as_ref().and_then(|refusal| refusal.get("message")?.as_str()).unwrap_or("");
        // A multi-search's message begins with `Inside `.queries[3]`: …`.
        let query = message.strip_prefix("Inside `.queries[").and_then(|rest| rest.split_once(']'));
        let query = query.and_then(|(query, _)| query.parse::<usize>().ok());
        let reply = |index: &str, place: String, status: u16| {
            let error = ApiError::new(Code::INDEX_NOT_FOUND, format!("{place}Index `{index}` not found."));
            ApiError { status, ..error }.reply()
        };
        match (query, Route::of(&self.head.method, &self.head.path)) {
            (Some(query), Route::MultiSearch) => match index_of_query(&self.body, query) {
                Some(index) => reply(&index, format!("Inside `.queries[{query}]`: "), 400),
                // The node has read another body than this one.
                None => self.unavailable(),
            },
            (
                _,
                Route::Search { index }
                | Route::FacetSearch { index }
                | Route::Similar { index }
                | Route::DocumentList { index },
            ) => reply(&index, String::new(), Code::INDEX_NOT_FOUND.status()),
            _ => self.unavailable(),
        }
    }

    /// The reason why the cluster cannot answer a query that a node accepts.
    pub(super) fn unread(&self) -> ApiError {
        let own = self.topology.config().server_name.as_deref();
        if remotes::are_asked(&self.head, &self.body, own) {
            let message = "A cluster does not search the servers of `/network`: each node would search them separately.";
            return ApiError::new(Code::BAD_REQUEST, message);
        }
        ApiError::new(Code::INTERNAL, "A node accepts this query, but the cluster cannot parse it.")
    }
}

/// The index of the query at this position of a multi-search.
fn index_of_query(body: &[u8], position: usize) -> Option<String> {
    let queries: Vec<&RawValue> = serde_json::from_slice::<RawObject<'_>>(body).ok()?.read("queries")?;
    let query: RawObject<'_> = serde_json::from_str(queries.get(position)?.get()).ok()?;
    query.read("indexUid")
}
