//! Decides which requests the data plane handles itself.

use crate::path::ApiPath;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET` or `POST /indexes/{uid}/search`.
    Search {
        /// Index uid.
        index: String,
    },
    /// `POST /multi-search`.
    MultiSearch,
    /// `POST /indexes/{uid}/facet-search`.
    FacetSearch {
        /// Index uid.
        index: String,
    },
    /// `GET` or `POST /indexes/{uid}/similar`.
    Similar {
        /// Index uid.
        index: String,
    },
    /// `GET /indexes/{uid}/documents` or `POST /indexes/{uid}/documents/fetch`.
    DocumentList {
        /// Index uid.
        index: String,
    },
    /// `GET /indexes/{uid}/documents/{id}`.
    DocumentRead {
        /// Index uid.
        index: String,
        /// Document id.
        id: String,
    },
    /// A mutation of documents.
    Write {
        /// Index uid.
        index: String,
        /// The kind of mutation.
        kind: WriteKind,
    },
    /// The control plane's internal routes, which clients must not call.
    Internal,
    /// Everything else; the control plane answers it.
    ControlPlane,
}

/// The kind of a mutation of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// `POST` (replace) or `PUT` (update) `/indexes/{uid}/documents`.
    Add {
        /// `true` for `PUT`.
        update: bool,
    },
    /// `DELETE /indexes/{uid}/documents/{id}`.
    DeleteOne {
        /// Document id.
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
    /// The route for a method and a path.
    #[must_use]
    pub fn of(method: &str, path: &ApiPath) -> Self {
        let text = |segment: &str| segment.to_owned();
        let write = |index: &str, kind| Self::Write { index: text(index), kind };
        match (method, path.segments().as_slice()) {
            (_, ["_miroir", ..]) => Self::Internal,
            ("GET" | "POST", ["indexes", index, "search"]) => Self::Search { index: text(index) },
            ("POST", ["multi-search"]) => Self::MultiSearch,
            ("GET" | "POST", ["indexes", index, "similar"]) => Self::Similar { index: text(index) },
            ("POST", ["indexes", index, "facet-search"]) => Self::FacetSearch { index: text(index) },
            ("GET", ["indexes", index, "documents"]) | ("POST", ["indexes", index, "documents", "fetch"]) => {
                Self::DocumentList { index: text(index) }
            }
            ("POST", ["indexes", index, "documents"]) => write(index, WriteKind::Add { update: false }),
            ("PUT", ["indexes", index, "documents"]) => write(index, WriteKind::Add { update: true }),
            ("DELETE", ["indexes", index, "documents"]) => write(index, WriteKind::DeleteAll),
            ("POST", ["indexes", index, "documents", "delete-batch"]) => write(index, WriteKind::DeleteBatch),
            ("POST", ["indexes", index, "documents", "delete"]) => write(index, WriteKind::DeleteByFilter),
            ("POST", ["indexes", index, "documents", "edit"]) => write(index, WriteKind::Edit),
            // These names are routes, even if documents have them as ids.
            (_, ["indexes", _, "documents", "delete-batch" | "delete" | "edit" | "fetch"]) => {
                Self::ControlPlane
            }
            ("GET", ["indexes", index, "documents", id]) => {
                Self::DocumentRead { index: text(index), id: text(id) }
            }
            ("DELETE", ["indexes", index, "documents", id]) => {
                write(index, WriteKind::DeleteOne { id: text(id) })
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
            (
                "GET",
                "/indexes/x/documents/a%2Fb",
                Route::DocumentRead { index: "x".into(), id: "a/b".into() },
            ),
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
            ("GET", "/%5fmiroir/begin", Route::Internal),
            ("POST", "/%69ndexes/x/search", Route::Search { index: "x".into() }),
            ("POST", r"/indexes/raw\documents", Route::ControlPlane),
            (
                "DELETE",
                r"/indexes/x/documents/..\..\y",
                Route::Write { index: "x".into(), kind: WriteKind::DeleteOne { id: r"..\..\y".into() } },
            ),
            ("DELETE", "/indexes/x/search", Route::ControlPlane),
            ("GET", "/", Route::ControlPlane),
        ];
        for (method, path, route) in cases {
            assert_eq!(Route::of(method, &ApiPath::parse(path).unwrap()), route, "{method} {path}");
        }
    }
}
