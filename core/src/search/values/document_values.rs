//! Values of documents that hits do not show.

use super::{FacetValue, document_id::DocumentId};
use std::collections::HashMap;

/// A document's values, by attribute.
pub(in crate::search) type Values = HashMap<String, Vec<FacetValue>>;

/// The hidden values of each document, by index.
#[derive(Clone, Debug, Default)]
pub struct DocumentValues(pub(in crate::search) HashMap<String, HashMap<DocumentId, Values>>);

impl DocumentValues {
    /// A document's values, if it has been read.
    #[must_use]
    pub fn values(&self, index: &str, id: &DocumentId) -> Option<&Values> {
        self.0.get(index)?.get(id)
    }
}
