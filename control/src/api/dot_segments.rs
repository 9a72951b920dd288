//! Paths with the segments `.` or `..`. A node takes them as names, but an HTTP client resolves them, so the control plane
//! cannot send such a path to a node.

use crate::{
    base::error::{Error, api_error},
    domain::index_uid::check_index_uid,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use miroir_core::path::ApiPath;

/// The answer that a node gives to a path with `.` or `..`; `None` if the path has no such segment, or its route needs no node.
pub fn answer(path: &ApiPath) -> Option<Response> {
    let segments = path.segments();
    let is_a_route = super::authority::rule_of(path).is_some();
    let needs_no_node = match segments.as_slice() {
        // The path of a request that a gateway forwards is only parsed, and never sent to a node.
        ["_miroir", ..] => true,
        ["tasks" | "batches" | "webhooks", ..] => is_a_route,
        _ => false,
    };
    if !path.has_dots() || needs_no_node {
        return None;
    }
    let refused =
        |status, code, message: String| Error::from(api_error(status, "invalid_request", code, message));
    Some(match segments.as_slice() {
        ["indexes", index, ..] if check_index_uid(index).is_err() && is_a_route => {
            check_index_uid(index).map_err(Error::from).into_response()
        }
        ["keys", key] => {
            refused(404, "api_key_not_found", format!("API key `{key}` not found.")).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dots_are_refused_as_nodes_refuse_them() {
        let status = |path: &'static str| answer(&path.into()).map(|response| response.status().as_u16());
        for (path, expected) in [
            ("/indexes/..", Some(400)),
            ("/indexes/%2e%2E/settings", Some(400)),
            ("/indexes/../nothing", Some(404)),
            ("/indexes/x/settings/..", Some(404)),
            ("/keys/..", Some(404)),
            ("/../keys", Some(404)),
            ("/tasks/..", None),
            ("/tasks/./1", Some(404)),
            ("/webhooks/./x", Some(404)),
            ("/_miroir/refusal/indexes/../documents", None),
            ("/indexes/..a", None),
            (r"/indexes/..\\..", None),
        ] {
            assert_eq!(status(path), expected, "{path}");
        }
    }
}
