//! What clients have set on indexes.

use super::{cached::Cached, cell::Cell, fields};
use crate::{base::error::Result, domain::settings_change::merge_change};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value};

/// Changes what clients have set on an index: `null` resets one setting, `None` all of them.
///
/// # Errors
/// The database failed.
pub fn merge_settings(connection: &Connection, index: &str, change: Option<&Value>) -> Result<()> {
    let mut settings = settings(connection, index)?;
    merge_change(&mut settings, change);
    if settings.is_empty() {
        connection.execute_cached("DELETE FROM settings WHERE index_uid = ?1", [index])?;
        return Ok(());
    }
    connection.execute_cached(
        "INSERT OR REPLACE INTO settings (index_uid, body) VALUES (?1, ?2)",
        params![index, serde_json::to_string(&settings)?],
    )?;
    Ok(())
}

/// Moves settings and fields along with indexes that are renamed or swapped. `pairs`: from, to, and whether those of `to` move
/// back to `from`.
///
/// # Errors
/// The database failed.
pub fn move_settings(connection: &Connection, pairs: &[(String, String, bool)]) -> Result<()> {
    // A temporary name that no index can have.
    const ASIDE: &str = "/";
    for (from, to, exchange) in pairs {
        fields::rename(connection, to, ASIDE)?;
        fields::rename(connection, from, to)?;
        if *exchange {
            fields::rename(connection, ASIDE, from)?;
        } else {
            fields::forget(connection, ASIDE)?;
        }
        let (left, right) = (settings(connection, from)?, settings(connection, to)?);
        for (index, moved) in [(to, Some(left)), (from, exchange.then_some(right))] {
            connection.execute_cached("DELETE FROM settings WHERE index_uid = ?1", [index])?;
            if let Some(moved) = moved.filter(|moved| !moved.is_empty()) {
                connection.execute_cached(
                    "INSERT INTO settings (index_uid, body) VALUES (?1, ?2)",
                    params![index, serde_json::to_string(&moved)?],
                )?;
            }
        }
    }
    Ok(())
}

/// The settings that clients have set on an index.
///
/// # Errors
/// The database failed, or what is stored cannot be read.
pub fn settings(connection: &Connection, index: &str) -> Result<Map<String, Value>> {
    let stored: Option<String> = connection
        .query_row_cached("SELECT body FROM settings WHERE index_uid = ?1", [index], |row| row.get(0))
        .optional()?;
    let cell = Cell { table: "settings", row: &index, column: "body" };
    // Settings that nobody has set have no row.
    stored.map_or_else(|| Ok(Map::new()), |text| cell.json(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use serde_json::json;

    #[tokio::test]
    async fn what_cannot_be_read_is_not_stored_anew_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let damage = "INSERT INTO settings VALUES ('a', '{\"synonyms\":')";
        ledger.call(move |connection| Ok(connection.execute(damage, [])?)).await.unwrap();
        let change = |connection: &_| merge_settings(connection, "a", Some(&json!({"stopWords": ["x"]})));
        let renaming = |connection: &_| move_settings(connection, &[("a".to_owned(), "b".to_owned(), false)]);
        for error in [ledger.call(change).await, ledger.call(renaming).await] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("`body` of row `a` in table `settings`"), "{error}");
        }
        let stored = ledger.call(|connection| {
            Ok(connection.query_row("SELECT index_uid || body FROM settings", [], |row| row.get(0))?)
        });
        let stored: String = stored.await.unwrap();
        assert_eq!(stored, "a{\"synonyms\":");
    }

    #[tokio::test]
    async fn settings_are_merged_reset_and_moved() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let read = ledger
            .call(|connection| {
                let set = |change| merge_settings(connection, "a", Some(&change));
                set(json!({"faceting": {"maxValuesPerFacet": 5}, "stopWords": ["x"], "synonyms": {"a": ["b"]}}))?;
                set(json!({"faceting": {"sortFacetValuesBy": {"*": "count"}}, "stopWords": null, "synonyms": {}}))?;
                let merged = settings(connection, "a")?;
                move_settings(connection, &[("a".to_owned(), "b".to_owned(), true)])?;
                let moved = (settings(connection, "a")?, settings(connection, "b")?);
                merge_settings(connection, "b", None)?;
                Ok((merged, moved, settings(connection, "b")?))
            })
            .await
            .unwrap();
        let (merged, (left, right), reset) = read;
        let expected = json!({"faceting": {"maxValuesPerFacet": 5, "sortFacetValuesBy": {"*": "count"}}, "synonyms": {}});
        assert_eq!(Value::Object(merged.clone()), expected);
        assert!(left.is_empty() && reset.is_empty());
        assert_eq!(right, merged);
    }
}
