//! Routes of searches: in one index, in several indexes, among facet values, by similarity.

use axum::extract::Path;
use deserr::Deserr;
use serde::Serialize;

use super::{Answer, Call, blocking, ok};
use crate::auth::{Action, Rights};
use crate::error::{ApiError, Code, Result};
use crate::node::Features;
use crate::search::facet::{self, FacetQuery};
use crate::search::federated::{self, Federation, Part};
use crate::search::query::{IndexedQuery, SearchParams, SearchQuery};
use crate::search::similar::{self, SimilarParams, SimilarQuery};
use crate::search::{self, Request};
use crate::validate::InvalidJson;

const METADATA_HEADER: &str = "Meili-Include-Metadata";
const PROXY_HEADER: &str = "Meili-Proxy-Search";

/// `GET /indexes/{index}/search`
pub async fn by_params(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::Search, &index)?;
    let query = SearchQuery::try_from(call.params::<SearchParams>()?)?;
    one(index, call, rights, query).await
}

/// `POST /indexes/{index}/search`
pub async fn by_body(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::Search, &index)?;
    let query = call.json::<SearchQuery>()?;
    one(index, call, rights, query).await
}

async fn one(uid: String, call: Call, rights: Rights, mut query: SearchQuery) -> Answer {
    query.add_filter(rights.filter(&uid));
    let with_metadata = call.header_is_true(METADATA_HEADER);
    let node = call.node.clone();
    let answer = blocking(move || {
        let index = node.indexes.get(&uid)?;
        search::search(
            &Request { uid: &uid, index: &index, features: node.features(), with_metadata },
            &query,
        )
    })
    .await?;
    ok(&answer)
}

/// `POST /indexes/{index}/facet-search`
pub async fn facets(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::Search, &index)?;
    let query: FacetQuery = call.json()?;
    let node = call.node.clone();
    let answer = blocking(move || {
        facet::search(&node.indexes.get(&index)?, node.features(), query, rights.filter(&index))
    })
    .await?;
    ok(&answer)
}

/// `GET /indexes/{index}/similar`
pub async fn similar_by_params(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::Search, &index)?;
    let query = SimilarQuery::from(call.params::<SimilarParams>()?);
    similar_to(index, call, rights, query).await
}

/// `POST /indexes/{index}/similar`
pub async fn similar_by_body(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::Search, &index)?;
    let query: SimilarQuery = call.json()?;
    similar_to(index, call, rights, query).await
}

async fn similar_to(uid: String, call: Call, rights: Rights, query: SimilarQuery) -> Answer {
    let node = call.node.clone();
    let answer = blocking(move || {
        let index = node.indexes.get(&uid)?;
        let request = Request { uid: &uid, index: &index, features: node.features(), with_metadata: false };
        similar::search(&request, query, rights.filter(&uid))
    })
    .await?;
    ok(&answer)
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct MultiSearch {
    queries: Vec<IndexedQuery>,
    #[deserr(default)]
    federation: Option<Federation>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Indexed {
    index_uid: String,
    #[serde(flatten)]
    answer: search::Answer,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Indexed>,
}

/// `POST /multi-search`
pub async fn multi(call: Call) -> Answer {
    let rights = call.allow(Action::Search, None)?;
    let MultiSearch { queries, federation } = call.json()?;
    let with_metadata = call.header_is_true(METADATA_HEADER);
    let proxied = call.header_is_true(PROXY_HEADER);
    if proxied {
        Features::require(
            call.node.features().network,
            "Performing a remote federated search",
            "network",
            "https://github.com/orgs/meilisearch/discussions/805",
        )?;
    }
    let mut searches = Vec::new();
    for (position, query) in queries.into_iter().enumerate() {
        let at = |error: ApiError| ApiError {
            message: format!("Inside `.queries[{position}]`: {}", error.message),
            ..error
        };
        check_place(&query, federation.as_ref()).map_err(at)?;
        let (uid, mut query, options) = query.split();
        let uid = uid.to_string();
        if !rights.covers(&uid) {
            return Err(at(ApiError::new(Code::InvalidApiKey, "The provided API key is invalid.")));
        }
        query.add_filter(rights.filter(&uid));
        searches.push((position, uid, query, options));
    }
    let node = call.node.clone();
    match federation {
        None => {
            let results = blocking(move || {
                let mut results = Vec::new();
                for (position, uid, query, _) in searches {
                    let answered = node.indexes.get(&uid).and_then(|index| {
                        let request =
                            Request { uid: &uid, index: &index, features: node.features(), with_metadata };
                        search::search(&request, &query)
                    });
                    let answer = answered.map_err(|error| inside(position, error))?;
                    results.push(Indexed { index_uid: uid, answer });
                }
                Ok(Results { results })
            })
            .await?;
            ok(&results)
        }
        Some(federation) => {
            let answer = blocking(move || {
                let mut opened = Vec::new();
                for (position, uid, ..) in &searches {
                    opened.push(node.indexes.get(uid).map_err(|error| inside(*position, error))?);
                }
                let parts: Vec<Part<'_>> = searches
                    .iter()
                    .zip(&opened)
                    .map(|((position, uid, query, options), index)| Part {
                        request: Request { uid, index, features: node.features(), with_metadata },
                        query: query.clone(),
                        weight: options.as_ref().map_or(1.0, |options| options.weight.0),
                        position: options
                            .as_ref()
                            .and_then(|options| options.query_position)
                            .unwrap_or(*position),
                    })
                    .collect();
                federated::search(&parts, &federation, proxied)
            })
            .await?;
            ok(&answer)
        }
    }
}

/// The error of one query of several. An unknown index is then an error of the body (400), not of the route.
fn inside(position: usize, error: ApiError) -> ApiError {
    let status = if error.code == "index_not_found" { 400 } else { error.status };
    ApiError { message: format!("Inside `.queries[{position}]`: {}", error.message), status, ..error }
}

/// Refuses options that belong to the federation, or that need one.
fn check_place(query: &IndexedQuery, federation: Option<&Federation>) -> Result<()> {
    let refuse = |code, message: String| Err(ApiError::new(code, message));
    let Some(federation) = federation else {
        return match query.federation_options {
            Some(_) => refuse(
                Code::InvalidMultiSearchFederationOptions,
                "Using `federationOptions` is not allowed in a non-federated search.\n - Hint: remove \
                 `federationOptions` from the query or add `federation` to the request."
                    .into(),
            ),
            None => Ok(()),
        };
    };
    let paging = [
        ("offset", query.offset.is_some()),
        ("limit", query.limit.is_some()),
        ("page", query.page.is_some()),
        ("hitsPerPage", query.hits_per_page.is_some()),
    ];
    if let Some((name, _)) = paging.iter().find(|(_, given)| *given) {
        return refuse(
            Code::InvalidMultiSearchQueryPagination,
            format!(
                "Using pagination options is not allowed in federated queries.\n - Hint: remove `{name}` from the query \
                 or remove `federation` from the request\n - Hint: pass `federation.limit` and `federation.offset` for \
                 pagination in federated search"
            ),
        );
    }
    if let Some(facets) = query.facets.as_ref().filter(|facets| !facets.is_empty()) {
        return refuse(
            Code::InvalidMultiSearchQueryFacets,
            format!(
                "Using facet options is not allowed in federated queries.\n - Hint: remove `facets` from the query or \
                 remove `federation` from the request\n - Hint: pass `federation.facetsByIndex.{}: {facets:?}` for facets \
                 in federated search",
                query.index_uid
            ),
        );
    }
    if query.distinct.is_some() && federation.distinct.is_some() {
        return refuse(
            Code::InvalidMultiSearchDistinct,
            "Using `distinct` options is not allowed in federated queries when it also appears in \
             `.federation.distinct`.\n - Hint: remove `distinct` from the query or remove `federation` from the \
             request\n  - Note: `distinct` at the query level is discouraged in federated search."
                .into(),
        );
    }
    Ok(())
}
