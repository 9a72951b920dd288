//! How lists of tasks are read: which index of the table gives their rows, and in how many scans.

use super::task_list::Query;
use crate::domain::task::{TaskKind, TaskStatus};
use rusqlite::types::Value as Sql;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;

/// A query that would need more scans than this is one scan of all tasks.
const MOST_SCANS: usize = 4_000;

/// A moment of a task that lists are filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When it got its uid.
    Enqueued,
    /// When the first node began.
    Started,
    /// When the last node ended.
    Finished,
}

impl Moment {
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued_at",
            Self::Started => "started_at",
            Self::Finished => "finished_at",
        }
    }

    pub(super) fn index(self) -> &'static str {
        match self {
            Self::Enqueued => "tasks_by_enqueued_at",
            Self::Started => "tasks_by_started_at",
            Self::Finished => "tasks_by_finished_at",
        }
    }
}

/// A condition on a row, with its one value.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub sql: String,
    pub value: Sql,
}

/// The rows with these values in the columns of an index, which has them in the order of uids.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    columns: Vec<(&'static str, Sql)>,
}

impl Scan {
    /// What a row fulfils, and the values of the placeholders.
    pub fn conditions(&self, rest: &[Condition], more: &[Condition]) -> (String, Vec<Sql>) {
        let (mut all, mut values) = (vec!["1".to_owned()], Vec::new());
        for (column, value) in &self.columns {
            all.push(format!("{column} = ?"));
            values.push(value.clone());
        }
        for condition in rest.iter().chain(more) {
            all.push(condition.sql.clone());
            values.push(condition.value.clone());
        }
        (all.join(" AND "), values)
    }
}

/// How a query is read: by scans of one index of the table, each of which gives its rows in the order of lists, and by conditions on
/// their rows. So a page costs as much as its rows, however many tasks there are.
#[derive(Debug)]
pub(super) struct Plan {
    /// `None` leaves the choice to SQLite.
    pub index: Option<&'static str>,
    pub scans: Vec<Scan>,
    pub rest: Vec<Condition>,
}

impl Plan {
    pub fn of(query: &Query, indexes: Option<Vec<String>>) -> Self {
        let mut rest: Vec<Condition> = Vec::new();
        let mut among = |column: &str, value: Option<Sql>| {
            // One value, however long the list is: SQLite limits the number of placeholders.
            let sql = format!("{column} IN (SELECT value FROM json_each(?))");
            rest.extend(value.map(|value| Condition { sql, value }));
        };
        among("uid", query.uids.as_deref().map(array));
        among("canceled_by", query.canceled_by.as_deref().map(array));
        let by_uids = query.uids.is_some() || query.canceled_by.is_some();
        let statuses = names(query.statuses.as_deref(), TaskStatus::name);
        let types = names(query.types.as_deref(), TaskKind::name);
        let (every_status, every_type) = (
            || names(Some(TaskStatus::ALL), TaskStatus::name).unwrap_or_default(),
            || names(Some(TaskKind::ALL), TaskKind::name).unwrap_or_default(),
        );
        let (index, columns) = match (&indexes, &statuses, &types) {
            _ if by_uids => (None, Vec::new()),
            (None, None, None) => (None, Vec::new()),
            (Some(indexes), None, None) => (Some("tasks_by_index"), vec![("index_uid", indexes.clone())]),
            (Some(indexes), statuses, types) => (
                Some("tasks_by_index_status_type"),
                vec![
                    ("index_uid", indexes.clone()),
                    ("status", statuses.clone().unwrap_or_else(every_status)),
                    ("type", types.clone().unwrap_or_else(every_type)),
                ],
            ),
            (None, statuses, Some(types)) => (
                Some("tasks_by_type_status"),
                vec![("type", types.clone()), ("status", statuses.clone().unwrap_or_else(every_status))],
            ),
            (None, Some(statuses), None) => (Some("tasks_by_status"), vec![("status", statuses.clone())]),
        };
        let columns: Vec<(&str, BTreeSet<String>)> =
            columns.into_iter().map(|(column, values)| (column, values.into_iter().collect())).collect();
        let scans = columns.iter().map(|(_, values)| values.len()).fold(1, usize::saturating_mul);
        let is_scanned = index.is_some() && scans <= MOST_SCANS;
        if !is_scanned {
            among("index_uid", indexes.as_deref().map(array));
            among("status", statuses.as_deref().map(array));
            among("type", types.as_deref().map(array));
        }
        for (moment, after, date) in &query.dates {
            let sql = format!("{} {} ?", moment.column(), if *after { ">" } else { "<" });
            rest.push(Condition { sql, value: Sql::Integer(*date) });
        }
        let scans = if is_scanned { product(&columns) } else { vec![Scan::default()] };
        Self { index: index.filter(|_| is_scanned), scans, rest }
    }

    pub fn by(&self) -> String {
        self.index.map_or_else(String::new, |index| format!("INDEXED BY {index}"))
    }
}

/// A scan for each combination of the columns' values.
fn product(columns: &[(&'static str, BTreeSet<String>)]) -> Vec<Scan> {
    columns.iter().fold(vec![Scan::default()], |scans, (column, values)| {
        let with = |scan: &Scan, value: &String| {
            let mut columns = scan.columns.clone();
            columns.push((*column, Sql::Text(value.clone())));
            Scan { columns }
        };
        scans.iter().flat_map(|scan| values.iter().map(move |value| with(scan, value))).collect()
    })
}

/// A list as one value of a statement.
pub(super) fn array<T: Serialize>(list: &[T]) -> Sql {
    Sql::Text(json!(list).to_string())
}

/// The names of kinds or statuses.
fn names<T: Copy>(list: Option<&[T]>, name: impl Fn(T) -> &'static str) -> Option<Vec<String>> {
    list.map(|list| list.iter().map(|it| name(*it).to_owned()).collect())
}
