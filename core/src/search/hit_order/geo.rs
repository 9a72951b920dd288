//! Distances, compared as sorts compare them.

use std::cmp::Ordering;

/// Mean radius of the earth, in metres.
const EARTH: f64 = 6_371_000.0;

/// Sorts treat distances that differ by no more than this many metres as equal. Source: Meilisearch 1.50,
/// `milli/src/documents/geo_sort.rs`.
const MARGIN: f64 = 1.0;

/// A latitude and a longitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// In degrees.
    pub latitude: f64,
    /// In degrees.
    pub longitude: f64,
}

impl Place {
    /// Parses the place in `_geoPoint(latitude, longitude)`.
    #[must_use]
    pub fn of_point(text: &str) -> Option<Self> {
        let inside = text.trim().strip_prefix("_geoPoint")?.trim().strip_prefix('(')?.strip_suffix(')')?;
        let (latitude, longitude) = inside.split_once(',')?;
        Some(Self { latitude: latitude.trim().parse().ok()?, longitude: longitude.trim().parse().ok()? })
    }

    /// The distance to another place on a sphere, in metres (haversine).
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half = |from: f64, to: f64| ((to - from) / 2.0).sin().powi(2);
        let across = half(self.longitude.to_radians(), other.longitude.to_radians());
        let square = half(from, to) + from.cos() * to.cos() * across;
        2.0 * EARTH * square.sqrt().min(1.0).asin()
    }
}

/// Compares distances in metres; those that a sort treats as equal are equal.
#[must_use]
pub fn compare_distances(one: f64, other: f64) -> Ordering {
    if (one - other).abs() <= MARGIN { Ordering::Equal } else { one.total_cmp(&other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn distances_are_metres() {
        let paris = Place::of_point("_geoPoint(48.8566, 2.3522)").unwrap();
        let lille = Place { latitude: 50.6292, longitude: 3.0573 };
        assert!((paris.distance(lille) - 203_600.0).abs() < 1_000.0, "{}", paris.distance(lille));
        assert_eq!(compare_distances(5.0, 5.9), Ordering::Equal);
        assert_eq!(compare_distances(5.0, 6.1), Ordering::Less);
    }
}
