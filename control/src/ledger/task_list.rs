//! Lists and counts tasks, and swaps the index names in them.

use super::{
    cell::Cell,
    tasks::{COLUMNS, Task},
};
use crate::{
    base::{error::Result, time::Nanos},
    domain::task::{TaskKind, TaskStatus},
};
use rusqlite::{Connection, params, types::Value as Sql};
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
    /// Date filters: the column, whether it must be after the date (else before), and the date.
    pub dates: Vec<(&'static str, bool, Nanos)>,
}

/// A page of tasks, and the total that nodes would report for the query.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn list(connection: &Connection, query: &Query) -> Result<(Vec<Task>, u64)> {
    let mut wheres: Vec<String> = vec!["1".to_owned()];
    let mut values: Vec<Sql> = Vec::new();
    let mut among = |column: &str, list: Option<Vec<Sql>>| {
        if let Some(list) = list {
            wheres.push(format!("{column} IN ({})", vec!["?"; list.len()].join(",")));
            values.extend(list);
        }
    };
    let numbers = |list: &Option<Vec<u32>>| {
        list.as_ref().map(|list| list.iter().map(|n| Sql::Integer(i64::from(*n))).collect())
    };
    let texts = |list: &Option<Vec<String>>| -> Option<Vec<Sql>> {
        list.as_ref().map(|list| list.iter().cloned().map(Sql::Text).collect())
    };
    among("uid", numbers(&query.uids));
    among("canceled_by", numbers(&query.canceled_by));
    among("status", names(query.statuses.as_deref(), TaskStatus::name));
    among("type", names(query.types.as_deref(), TaskKind::name));
    for (column, after, moment) in &query.dates {
        wheres.push(format!("{column} {} ?", if *after { ">" } else { "<" }));
        values.push(Sql::Integer(*moment));
    }
    // The total counts as Meilisearch does: it includes swaps of these indexes, although they are not listed, and tasks that
    // the key may not see.
    let (mut counted, mut counted_values) = (wheres.clone(), values.clone());
    if let Some(uids) = texts(&query.indexes) {
        let list = vec!["?"; uids.len()].join(",");
        counted.push(format!("(index_uid IN ({list}) OR {})", swaps_of(&list)));
        counted_values.extend(uids.iter().chain(&uids).cloned());
        wheres.push(format!("index_uid IN ({list})"));
        values.extend(uids);
    }
    let total: u64 = connection.query_row(
        &format!("SELECT count(*) FROM tasks WHERE {}", counted.join(" AND ")),
        rusqlite::params_from_iter(&counted_values),
        |row| row.get(0),
    )?;
    if let Some(patterns) = &query.visible {
        let mut any = vec!["0".to_owned()];
        for pattern in patterns {
            // `*` means the same in GLOB as in index patterns, and an index uid contains no other special character of GLOB.
            any.push("index_uid GLOB ?".to_owned());
            values.push(Sql::Text(pattern.clone()));
        }
        wheres.push(format!("({})", any.join(" OR ")));
    }
    if let Some(from) = query.from {
        wheres.push(format!("uid {} ?", if query.reverse { ">=" } else { "<=" }));
        values.push(Sql::Integer(i64::from(from)));
    }
    let order = if query.reverse { "ASC" } else { "DESC" };
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM tasks WHERE {} ORDER BY uid {order} LIMIT {}",
        wheres.join(" AND "),
        query.limit
    ))?;
    let rows = statement.query_and_then(rusqlite::params_from_iter(&values), Task::from_row)?;
    Ok((rows.collect::<Result<_>>()?, total))
}

/// The names of kinds or statuses, as values of a statement.
fn names<T: Copy>(list: Option<&[T]>, name: impl Fn(T) -> &'static str) -> Option<Vec<Sql>> {
    list.map(|list| list.iter().map(|it| Sql::Text(name(*it).to_owned())).collect())
}

/// An SQL condition: the task swaps at least one of the indexes in `list`, a list of placeholders.
fn swaps_of(list: &str) -> String {
    format!(
        "(type = 'indexSwap' AND EXISTS (SELECT 1 FROM json_each(details, '$.swaps') AS swap, \
         json_each(swap.value, '$.indexes') AS named WHERE named.value IN ({list})))"
    )
}

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
    connection.execute(
        "UPDATE tasks SET index_uid = CASE index_uid WHEN ?2 THEN ?3 ELSE ?2 END
         WHERE uid < ?1 AND index_uid IN (?2, ?3)",
        params![before, left, right],
    )?;
    let named = format!("SELECT uid, details FROM tasks WHERE uid < ?1 AND {}", swaps_of("?2, ?3"));
    let mut statement = connection.prepare(&named)?;
    let rows = statement.query_map(params![before, left, right], |row| {
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
        connection
            .execute("UPDATE tasks SET details = ?2 WHERE uid = ?1", params![uid, details.to_string()])?;
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
    let oldest = connection.query_row(
        "SELECT min(enqueued_at) FROM tasks WHERE status IN ('enqueued', 'processing')",
        [],
        |row| row.get(0),
    )?;
    Ok(Counts { tasks, oldest })
}
