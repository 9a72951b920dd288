//! Lists and counts tasks, and swaps the index names in them.

pub use super::task_plan::Moment;

use super::{
    cached::Cached,
    cell::Cell,
    task_plan::{Condition, Plan, array},
    tasks::{self, Task},
};
use crate::{
    base::{error::Result, time::Nanos},
    domain::task::{TaskKind, TaskStatus},
};
use rusqlite::{Connection, params, params_from_iter, types::Value as Sql};
use serde_json::Value;

/// The filters of `GET /tasks`. `None` means no filter; an empty list matches no task.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The maximum number of rows.
    pub limit: u32,
    /// The first uid of the page.
    pub from: Option<u32>,
    /// Whether the oldest tasks come first.
    pub reverse: bool,
    /// Only tasks with one of these uids.
    pub uids: Option<Vec<u32>>,
    /// Only tasks with one of these statuses.
    pub statuses: Option<Vec<TaskStatus>>,
    /// Only tasks of one of these types.
    pub types: Option<Vec<TaskKind>>,
    /// Only tasks of one of these indexes.
    pub indexes: Option<Vec<String>>,
    /// Only tasks that one of these tasks cancelled.
    pub canceled_by: Option<Vec<u32>>,
    /// Patterns of the indexes that the key may see. If set, tasks without an index are hidden.
    pub visible: Option<Vec<String>>,
    /// Date filters: the moment, whether it must be after the date (else before), and the date.
    pub dates: Vec<(Moment, bool, Nanos)>,
}

/// A page of tasks, and the total that nodes would report for the query.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn list(connection: &Connection, query: &Query) -> Result<(Vec<Task>, u64)> {
    let total = count(connection, query)?;
    let found = page(connection, query, total)?.into_iter();
    // A task may have been deleted by the transaction that this read is a part of, never in between.
    let tasks = found.filter_map(|uid| tasks::get(connection, uid).transpose()).collect::<Result<_>>()?;
    Ok((tasks, total))
}

/// The uids of a page of tasks.
///
/// # Errors
/// The database failed.
pub fn uids(connection: &Connection, query: &Query) -> Result<Vec<u32>> {
    page(connection, query, u64::MAX)
}

/// The total that nodes would report. It counts as Meilisearch does: it includes swaps of these indexes, although they are not listed,
/// and tasks that the key may not see.
fn count(connection: &Connection, query: &Query) -> Result<u64> {
    let counted = |plan: &Plan, more: &[Condition]| -> Result<u64> {
        plan.scans.iter().try_fold(0, |total, scan| {
            let (conditions, values) = scan.conditions(&plan.rest, more);
            let sql = format!("SELECT count(*) FROM tasks {} WHERE {conditions}", plan.by());
            let found: u64 =
                connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
            Ok(total + found)
        })
    };
    let listed = counted(&Plan::of(query, query.indexes.clone()), &[])?;
    let Some(indexes) = &query.indexes else { return Ok(listed) };
    if query.types.as_ref().is_some_and(|types| !types.contains(&TaskKind::IndexSwap)) {
        return Ok(listed);
    }
    let swaps = Query { types: Some(vec![TaskKind::IndexSwap]), indexes: None, ..query.clone() };
    let of_these = Condition { sql: SWAPS_OF.to_owned(), value: array(indexes) };
    Ok(listed + counted(&Plan::of(&swaps, None), &[of_these])?)
}

/// The uids of the page. `total` is how many tasks the query has; a larger number where that is not known.
fn page(connection: &Connection, query: &Query, total: u64) -> Result<Vec<u32>> {
    let indexes = match &query.visible {
        None => query.indexes.clone(),
        // One by one, since no index of a table finds what a pattern matches.
        Some(patterns) => {
            let mut seen = match &query.indexes {
                Some(indexes) => indexes.clone(),
                None => known_indexes(connection)?,
            };
            seen.retain(|index| patterns.iter().any(|pattern| matches(pattern, index)));
            Some(seen)
        }
    };
    let mut plan = Plan::of(query, indexes);
    let is_by_uids = query.uids.is_some() || query.canceled_by.is_some();
    if total <= FEW && plan.index.is_none() && !is_by_uids {
        plan.index = query.dates.first().map(|(moment, ..)| moment.index());
    }
    let by = match plan.index {
        // Otherwise SQLite might sort all tasks by their uids, for a page of twenty.
        None if query.canceled_by.is_none() => "NOT INDEXED".to_owned(),
        _ => plan.by(),
    };
    let from = query.from.map(|from| Condition {
        sql: format!("uid {} ?", if query.reverse { ">=" } else { "<=" }),
        value: Sql::Integer(i64::from(from)),
    });
    let order = if query.reverse { "ASC" } else { "DESC" };
    let mut found: Vec<u32> = Vec::new();
    for scan in &plan.scans {
        let (conditions, mut values) = scan.conditions(&plan.rest, from.as_slice());
        let sql = format!("SELECT uid FROM tasks {by} WHERE {conditions} ORDER BY uid {order} LIMIT ?");
        values.push(Sql::Integer(i64::from(query.limit)));
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| row.get(0))?;
        found.extend(rows.collect::<rusqlite::Result<Vec<u32>>>()?);
    }
    found.sort_unstable();
    if !query.reverse {
        found.reverse();
    }
    found.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// If a query by dates has at most so many tasks, they are sorted; otherwise tasks are looked at in the order of uids.
const FEW: u64 = 10_000;

/// Whether a pattern of a key, which may end in `*`, matches an index.
fn matches(pattern: &str, index: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => index.starts_with(start),
        None => index == pattern,
    }
}

/// The indexes that tasks are about, whether they exist or not. Each costs one look into an index of the table.
fn known_indexes(connection: &Connection) -> Result<Vec<String>> {
    let sql = "WITH RECURSIVE known (name) AS (
                   SELECT min(index_uid) FROM tasks
                   UNION ALL
                   SELECT (SELECT min(index_uid) FROM tasks WHERE index_uid > name) FROM known WHERE name IS NOT NULL
               )
               SELECT name FROM known WHERE name IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

/// A condition whose value is a list of indexes: the task swaps at least one of them.
const SWAPS_OF: &str = "EXISTS (SELECT 1 FROM json_each(details, '$.swaps') AS swap, json_each(swap.value, '$.indexes') AS named \
                        WHERE named.value IN (SELECT value FROM json_each(?)))";

/// Swaps two index names in all tasks before the task `before`, which swapped the indexes. Meilisearch does the same.
///
/// # Errors
/// The database failed.
pub fn swap_names(connection: &Connection, before: u32, left: &str, right: &str) -> Result<()> {
    let other = |name: &str| match name {
        name if name == left => right.to_owned(),
        name if name == right => left.to_owned(),
        name => name.to_owned(),
    };
    connection.execute_cached(
        "UPDATE tasks SET index_uid = CASE index_uid WHEN ?2 THEN ?3 ELSE ?2 END
         WHERE uid < ?1 AND index_uid IN (?2, ?3)",
        params![before, left, right],
    )?;
    let named = format!("SELECT uid, details FROM tasks WHERE uid < ? AND type = 'indexSwap' AND {SWAPS_OF}");
    let mut statement = connection.prepare_cached(&named)?;
    let rows = statement.query_map(params![before, array(&[left, right])], |row| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
    })?;
    for (uid, details) in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let cell = Cell { table: "tasks", row: &uid, column: "details" };
        let mut details: Value = cell.json(&details)?;
        for swap in details["swaps"].as_array_mut().into_iter().flatten() {
            for name in swap["indexes"].as_array_mut().into_iter().flatten() {
                if let Value::String(name) = name {
                    *name = other(name);
                }
            }
        }
        connection.execute_cached(
            "UPDATE tasks SET details = ?2 WHERE uid = ?1",
            params![uid, details.to_string()],
        )?;
    }
    Ok(())
}

/// Counts of tasks.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The group (`indexes`, `statuses` or `types`), the value, and the number of tasks.
    pub tasks: Vec<(&'static str, String, u32)>,
    /// When the oldest task that has not ended was enqueued.
    pub oldest: Option<Nanos>,
}

/// Counts tasks.
///
/// # Errors
/// The database failed.
pub fn counts(connection: &Connection) -> Result<Counts> {
    let mut tasks = Vec::new();
    for (kind, column) in [("indexes", "index_uid"), ("statuses", "status"), ("types", "type")] {
        let query = format!(
            "SELECT {column}, count(*) FROM tasks WHERE {column} IS NOT NULL GROUP BY {column} ORDER BY {column}"
        );
        let mut statement = connection.prepare_cached(&query)?;
        let rows = statement.query_map([], |row| Ok((kind, row.get(0)?, row.get(1)?)))?;
        tasks.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    let oldest = connection.query_row_cached(
        "SELECT min(enqueued_at) FROM tasks WHERE status IN ('enqueued', 'processing')",
        [],
        |row| row.get(0),
    )?;
    Ok(Counts { tasks, oldest })
}

#[cfg(test)]
mod tests;
