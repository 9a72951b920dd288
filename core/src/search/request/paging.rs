//! Paging of hits.

/// Meilisearch's default for `limit` and `hitsPerPage`.
const DEFAULT_LIMIT: u64 = 20;

/// The parameters that choose a part of the hits.
pub(super) const PARAMETERS: [&str; 4] = ["offset", "limit", "page", "hitsPerPage"];

/// The requested part of the hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// `offset` and `limit`, with an estimated total.
    Offset {
        /// Number of hits to skip.
        offset: u64,
        /// Number of hits to return.
        limit: u64,
    },
    /// `page` and `hitsPerPage`, with an exact total.
    Page {
        /// Counted from 1; 0 returns no hits.
        page: u64,
        /// Number of hits on a page.
        hits_per_page: u64,
    },
}

impl Paging {
    /// The paging for these parameters of a request.
    #[must_use]
    pub fn of(
        page: Option<u64>,
        hits_per_page: Option<u64>,
        offset: Option<u64>,
        limit: Option<u64>,
    ) -> Self {
        if page.is_some() || hits_per_page.is_some() {
            Self::Page { page: page.unwrap_or(1), hits_per_page: hits_per_page.unwrap_or(DEFAULT_LIMIT) }
        } else {
            Self::Offset { offset: offset.unwrap_or(0), limit: limit.unwrap_or(DEFAULT_LIMIT) }
        }
    }

    /// The number of hits to skip, and the number of hits to return.
    #[must_use]
    pub fn window(self) -> (u64, u64) {
        // A node computes this with 64 bits that wrap around: a page may then begin anywhere, and a page that ends before its
        // beginning is empty.
        let (before, wanted) = match self {
            Self::Offset { offset, limit } => (offset, limit),
            Self::Page { page: 0, .. } => (0, 0),
            Self::Page { page, hits_per_page } => ((page - 1).wrapping_mul(hits_per_page), hits_per_page),
        };
        if before.checked_add(wanted).is_none() { (before, 0) } else { (before, wanted) }
    }

    /// The value of an answer's member that describes the paging; `None` for any other member.
    #[must_use]
    pub fn member(self, name: &str) -> Option<u64> {
        match (name, self) {
            ("offset", Self::Offset { offset, .. }) => Some(offset),
            ("limit", Self::Offset { limit, .. }) => Some(limit),
            ("page", Self::Page { page, .. }) => Some(page),
            ("hitsPerPage", Self::Page { hits_per_page, .. }) => Some(hits_per_page),
            _ => None,
        }
    }

    /// The number of pages for this many hits; `None` if the client does not use pages.
    #[must_use]
    pub fn pages(self, hits: u64) -> Option<u64> {
        let Self::Page { hits_per_page, .. } = self else { return None };
        Some(hits.wrapping_add(hits_per_page.saturating_sub(1)).checked_div(hits_per_page).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn pages_beyond_all_ends_are_where_a_node_finds_them() {
        let window = |page, hits_per_page| Paging::Page { page, hits_per_page }.window();
        assert_eq!(window(3, 20), (40, 20));
        assert_eq!(window(0, 20), (0, 0));
        assert_eq!(window((1 << 63) + 1, 2), (0, 2));
        assert_eq!(window(2, u64::MAX), (u64::MAX, 0));
        assert_eq!(window(u64::MAX, 1), (u64::MAX - 1, 1));
        assert_eq!(Paging::Offset { offset: 20, limit: u64::MAX }.window(), (20, 0));
        let pages = |hits_per_page, hits| Paging::Page { page: 1, hits_per_page }.pages(hits);
        assert_eq!(
            (pages(20, 41), pages(0, 41), pages(u64::MAX, 1), pages(u64::MAX, 41)),
            (Some(3), Some(0), Some(1), Some(0))
        );
    }
}
