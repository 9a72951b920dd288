//! Which requests the data plane handles itself.

use crate::query::decode_segment;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET` or `POST /indexes/{uid}/search`.
    Search {
        /// Index uid, decoded.
        index: String,
    },
    /// `POST /multi-search`.
    MultiSearch,
    /// `POST /indexes/{uid}/facet-search`.
    FacetSearch {
        /// Index uid, decoded.
        index: String,
    },
    /// `GET` or `POST /indexes/{uid}/similar`.
    Similar {
        /// Index uid, decoded.
        index: String,
    },
    /// `GET /indexes/{uid}/documents` or `POST /indexes/{uid}/documents/fetch`.
    DocumentList {
        /// Index uid, decoded.
        index: String,
    },
    /// `GET /indexes/{uid}/documents/{id}`.
    DocumentRead {
        /// Document id, decoded.
        id: String,
    },
    /// A mutation of documents.
    Write {
        /// Index uid, decoded.
        index: String,
        /// Which.
        kind: WriteKind,
    },
    /// The control plane's own routes, which clients have no business with.
    Internal,
    /// Everything else: the control plane answers.
    ControlPlane,
}

/// Which mutation of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// `POST` (replace) or `PUT` (update) `/indexes/{uid}/documents`.
    Add {
        /// `true` for `PUT`.
        update: bool,
    },
    /// `DELETE /indexes/{uid}/documents/{id}`.
    DeleteOne {
        /// Document id, decoded.
        id: String,
    },
    /// `POST /indexes/{uid}/documents/delete-batch`.
    DeleteBatch,
    /// `POST /indexes/{uid}/documents/delete`.
    DeleteByFilter,
    /// `POST /indexes/{uid}/documents/edit`.
    Edit,
    /// `DELETE /indexes/{uid}/documents`.
    DeleteAll,
}

impl Route {
    /// The route of a method and a path without its query.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Self {
        // Nodes take slashes at the end, and several for one.
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        if segments.first().is_some_and(|first| *first == "_miroir") {
            return Self::Internal;
        }
        let write = |index: &str, kind| Self::Write { index: decode_segment(index), kind };
        match (method, segments.as_slice()) {
            ("GET" | "POST", ["indexes", index, "search"]) => Self::Search { index: decode_segment(index) },
            ("POST", ["multi-search"]) => Self::MultiSearch,
            ("GET" | "POST", ["indexes", index, "similar"]) => Self::Similar { index: decode_segment(index) },
            ("POST", ["indexes", index, "facet-search"]) => {
                Self::FacetSearch { index: decode_segment(index) }
            }
            ("GET", ["indexes", index, "documents"]) | ("POST", ["indexes", index, "documents", "fetch"]) => {
                Self::DocumentList { index: decode_segment(index) }
            }
            ("POST", ["indexes", index, "documents"]) => write(index, WriteKind::Add { update: false }),
            ("PUT", ["indexes", index, "documents"]) => write(index, WriteKind::Add { update: true }),
            ("DELETE", ["indexes", index, "documents"]) => write(index, WriteKind::DeleteAll),
            ("POST", ["indexes", index, "documents", "delete-batch"]) => write(index, WriteKind::DeleteBatch),
            ("POST", ["indexes", index, "documents", "delete"]) => write(index, WriteKind::DeleteByFilter),
            ("POST", ["indexes", index, "documents", "edit"]) => write(index, WriteKind::Edit),
            // These are routes, whatever documents are called.
            (_, ["indexes", _, "documents", "delete-batch" | "delete" | "edit" | "fetch"]) => {
                Self::ControlPlane
            }
            ("GET", ["indexes", _, "documents", id]) => Self::DocumentRead { id: decode_segment(id) },
            ("DELETE", ["indexes", index, "documents", id]) => {
                write(index, WriteKind::DeleteOne { id: decode_segment(id) })
            }
            _ => Self::ControlPlane,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn routes_are_told_apart() {
        let index = || "my index".to_owned();
        let cases = [
            ("POST", "/indexes/my%20index/search", Route::Search { index: index() }),
            ("GET", "/indexes/x/documents/a%2Fb", Route::DocumentRead { id: "a/b".into() }),
            (
                "PUT",
                "/indexes/my%20index/documents",
                Route::Write { index: index(), kind: WriteKind::Add { update: true } },
            ),
            (
                "DELETE",
                "/indexes/my%20index/documents/7",
                Route::Write { index: index(), kind: WriteKind::DeleteOne { id: "7".into() } },
            ),
            ("POST", "//indexes/x//search/", Route::Search { index: "x".into() }),
            ("DELETE", "/indexes/x/documents/delete", Route::ControlPlane),
            ("GET", "/indexes/x/documents/fetch", Route::ControlPlane),
            ("HEAD", "/indexes/x/documents/1", Route::ControlPlane),
            ("GET", "/indexes/x/documents", Route::DocumentList { index: "x".into() }),
            ("GET", "/_miroir/begin", Route::Internal),
            ("DELETE", "/indexes/x/search", Route::ControlPlane),
            ("GET", "/", Route::ControlPlane),
        ];
        for (method, path, route) in cases {
            assert_eq!(Route::of(method, path), route, "{method} {path}");
        }
    }
}
