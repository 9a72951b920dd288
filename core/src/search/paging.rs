//! Pages of hits.

/// Meilisearch's `limit` and `hitsPerPage` where none is given.
const DEFAULT_LIMIT: u64 = 20;

/// The parameters that say which part of the hits is wanted.
pub(super) const PARAMETERS: [&str; 4] = ["offset", "limit", "page", "hitsPerPage"];

/// Which part of the hits is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// `offset` and `limit`, with an estimated total.
    Offset {
        /// Hits to leave out.
        offset: u64,
        /// Hits to give.
        limit: u64,
    },
    /// `page` and `hitsPerPage`, with an exact total.
    Page {
        /// From 1; 0 gives no hits.
        page: u64,
        /// Hits a page.
        hits_per_page: u64,
    },
}

impl Paging {
    /// What these parameters of a request say.
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

    /// Hits before the wanted ones, and the number of wanted ones.
    #[must_use]
    pub fn window(self) -> (u64, u64) {
        // A node counts in 64 bits, and goes on at 0: a page can begin anywhere then, and one that ends before its beginning is empty.
        let (before, wanted) = match self {
            Self::Offset { offset, limit } => (offset, limit),
            Self::Page { page: 0, .. } => (0, 0),
            Self::Page { page, hits_per_page } => ((page - 1).wrapping_mul(hits_per_page), hits_per_page),
        };
        if before.checked_add(wanted).is_none() { (before, 0) } else { (before, wanted) }
    }

    /// What an answer's member of this name says of the part of the hits; `None` where it says something else.
    #[must_use]
    pub fn told(self, member: &str) -> Option<u64> {
        match (member, self) {
            ("offset", Self::Offset { offset, .. }) => Some(offset),
            ("limit", Self::Offset { limit, .. }) => Some(limit),
            ("page", Self::Page { page, .. }) => Some(page),
            ("hitsPerPage", Self::Page { hits_per_page, .. }) => Some(hits_per_page),
            _ => None,
        }
    }

    /// The pages that hold so many hits; `None` where the hits are not asked for by pages.
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
